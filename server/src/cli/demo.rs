//! `cardea demo`: plays the stories of `examples/agents` against a running service, through real gRPC.
//!
//! [`play`] asks, changes state, asks again, prints each verdict with its reason, and compares it with what the
//! story expects. Never does: deciding anything itself, or retrying a decision.

#![expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]

mod bundle;
mod show;
mod stories;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use cardea_client::v1::{
    ApproveReviewRequest, Attempt, Decision, EntityRef, RejectReviewRequest, Review, ReviewScope,
    ReviewStatus, Session, Signal, SignalOutcome, StepUpRequirement, Verdict,
};
use cardea_client::{Client, entity};

pub use self::bundle::Unpacked;
use self::show::Painter;
use self::stories::{Change, Expected, Run, Step, Story};
use super::{DemoArgs, exit};
use crate::config::{Config, Overrides};
use crate::log;
use crate::proving::words::Named;
use crate::serve::Service;

/// How often a signal is sent again that came in the same millisecond as the one before it on the same kind, which
/// then keeps its place.
const SIGNAL_TRIES_MAX: usize = 20;
/// How often a review is looked for, which is opened right after its verdict.
const REVIEW_LOOKS_MAX: usize = 500;
/// Longer than the millisecond that tells two events apart.
const SIGNAL_PAUSE: Duration = Duration::from_millis(2);

/// What came of playing.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How many attempts were allowed.
    pub allowed: usize,
    /// How many were told to step up.
    pub stepped_up: usize,
    /// How many were denied.
    pub denied: usize,
    /// Attempts whose verdict is not the one that the story expects, in words.
    pub surprises: Vec<String>,
}

impl Outcome {
    /// Whether every story came out as told.
    #[must_use]
    pub fn is_as_told(&self) -> bool {
        self.surprises.is_empty()
    }

    fn count(&mut self, decision: Decision, times: usize) {
        match decision {
            Decision::Allow => self.allowed += times,
            Decision::StepUp => self.stepped_up += times,
            Decision::Deny | Decision::Unspecified => self.denied += times,
        }
    }
}

/// Runs the command: starts the service with the example bundle, plays, and goes on serving unless told otherwise.
pub(super) fn run(args: &DemoArgs) -> ExitCode {
    match demo(args) {
        Ok(outcome) if outcome.is_as_told() => ExitCode::from(exit::FINE),
        Ok(_) => ExitCode::from(exit::FINDINGS),
        Err(error) => {
            eprintln!("cannot play the demo: {error:#}");
            ExitCode::from(exit::COULD_NOT_RUN)
        }
    }
}

fn demo(args: &DemoArgs) -> anyhow::Result<Outcome> {
    let unpacked = Unpacked::new()?;
    let config = config(&unpacked)?;
    log::init(&config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve_and_play(config, args.once))
}

/// Free ports, so that the demo runs beside whatever runs already.
fn config(unpacked: &Unpacked) -> anyhow::Result<Config> {
    let overrides = Overrides {
        bundle: Some(unpacked.bundle().display().to_string()),
        store: Some(unpacked.root().join("store")),
        allow_unsigned: true,
        grpc: vec!["127.0.0.1:0".to_owned()],
        http: Some("127.0.0.1:0".to_owned()),
        audit_dir: Some(unpacked.root().join("audit")),
        state_dir: Some(unpacked.root().join("state")),
        log_filter: Some("warn".to_owned()),
        ..Overrides::default()
    };
    Config::from_flags(&overrides).map_err(|faults| anyhow::anyhow!("{faults}"))
}

async fn serve_and_play(config: Config, once: bool) -> anyhow::Result<Outcome> {
    let bundle = config.bundle.source.to_string();
    let service = Service::prepare(config)?;
    service.end_on_signals()?;
    let (grpc, http) = (service.grpc.first().copied(), service.http);
    let (audit_dir, shutdown) = (service.audit_dir.clone(), service.shutdown.clone());
    let playing = async {
        let mut out = std::io::stdout();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = out.is_terminal() && !plain;
        let played = async {
            let address = grpc.context("the service listens nowhere")?;
            let mut client = Client::connect(format!("http://{address}")).await?;
            let outcome = play(&mut client, &mut out, colour).await?;
            let goes_on = !once && outcome.is_as_told();
            if goes_on {
                let reach = Reach { grpc, http, audit_dir: &audit_dir, bundle_dir: Path::new(&bundle) };
                farewell(&mut out, &reach)?;
            }
            out.flush()?;
            anyhow::Ok((outcome, goes_on))
        };
        let played = played.await;
        if !matches!(played, Ok((_, true))) {
            shutdown.drain();
        }
        played
    };
    let (served, played) = tokio::join!(service.run(), playing);
    let (outcome, _) = played?;
    served?;
    Ok(outcome)
}

/// Plays all stories and prints them.
///
/// # Errors
/// When a call fails or the output cannot be written. A verdict that differs from the story is no error but in
/// [`Outcome::surprises`].
pub async fn play(client: &mut Client, out: &mut impl Write, colour: bool) -> anyhow::Result<Outcome> {
    let painter = Painter { colour };
    let mut left = Left::default();
    let run = begin(client, &mut left).await?;
    let mut outcome = Outcome::default();
    let mut played = Ok(());
    painter.header(out)?;
    for (number, story) in run.stories().into_iter().enumerate() {
        painter.title(out, number + 1, &story)?;
        played = tell(client, out, painter, story, &mut outcome, &mut left).await;
        if played.is_err() {
            break;
        }
    }
    // The state is put back even if a story broke off.
    let tidied = tidy(client, left).await;
    played?;
    tidied?;
    painter.summary(out, &outcome)?;
    Ok(outcome)
}

/// Where the service can be reached, for [`farewell`].
#[derive(Debug, Clone, Copy)]
pub struct Reach<'r> {
    /// Native gRPC, first of its addresses.
    pub grpc: Option<SocketAddr>,
    /// Metrics and health.
    pub http: Option<SocketAddr>,
    /// Where the audit records are.
    pub audit_dir: &'r Path,
    /// The bundle that is being served, and watched for changes.
    pub bundle_dir: &'r Path,
}

/// Prints where the service listens and what to try next.
///
/// # Errors
/// When the output cannot be written.
pub fn farewell(out: &mut impl Write, reach: &Reach<'_>) -> std::io::Result<()> {
    let Reach { grpc, http, audit_dir, bundle_dir } = reach;
    let shown = |address: &Option<SocketAddr>| address.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let (grpc, http) = (shown(grpc), shown(http));
    writeln!(out, "The service goes on until Ctrl-C.\n")?;
    writeln!(out, "  gRPC      {grpc}  (reflection is on)")?;
    writeln!(out, "  metrics   http://{http}/metrics")?;
    writeln!(out, "  audit     {}", audit_dir.display())?;
    writeln!(out, "  bundle    {}  (edit a policy: it is in force at once)\n", bundle_dir.display())?;
    writeln!(out, "Try:\n")?;
    writeln!(out, "  grpcurl -plaintext -d '{{\"attempt\": {{")?;
    writeln!(out, "      \"principal\": {{\"type\": \"Service\", \"id\": \"payments-batch\"}},")?;
    writeln!(out, "      \"action\": {{\"id\": \"call\"}},")?;
    writeln!(out, "      \"resource\": {{\"type\": \"Endpoint\", \"id\": \"billing/refunds\"}}}}}}' \\")?;
    writeln!(out, "    {grpc} cardea.v1.DecisionService/Decide")?;
    writeln!(out, "  grpcurl -plaintext -d '{{\"from_sequence\": 1}}' {grpc} cardea.v1.AuditService/Stream")?;
    writeln!(out, "  tail -f {}/*\n", audit_dir.display())
}

/// What a run leaves behind, to be taken back, and where it stands.
#[derive(Debug, Default)]
struct Left {
    sessions: Vec<String>,
    reviews: Vec<(Review, EntityRef)>,
    /// What the attempt before was asked for.
    asked: Vec<StepUpRequirement>,
}

/// Learns the service's time, and puts risk that another run may have left back to nothing.
async fn begin(client: &mut Client, left: &mut Left) -> anyhow::Result<Run> {
    // Names need to differ from run to run, not to be secret.
    let tag = format!("{:012x}", RandomState::new().build_hasher().finish() >> 16);
    let id = format!("demo-{tag}-clock");
    let session = Session { id: id.clone(), principal: Some(entity("Person", "nora")), ..Session::default() };
    let answer = client.open_session(session).await.context("cannot open a session")?;
    left.sessions.push(id);
    let opened_at = answer.session.and_then(|session| session.opened_at);
    let now_s = opened_at.context("the service does not say when the session was opened")?.seconds;
    report(client, Run::calm()).await?;
    Ok(Run { tag, now_s })
}

async fn tidy(client: &mut Client, left: Left) -> anyhow::Result<()> {
    report(client, Run::calm()).await?;
    for (review, reviewer) in left.reviews {
        let rejection = RejectReviewRequest {
            id: review.id,
            round: review.round,
            reviewer: Some(reviewer),
            // The next run asks anew.
            until: review.decided_at,
            reason: "the demo is over".to_owned(),
        };
        client.reject_review(rejection).await.context("cannot take an approval back")?;
    }
    for id in left.sessions {
        client.end_session(id, "the demo is over").await.context("cannot end a session")?;
    }
    Ok(())
}

async fn tell(
    client: &mut Client,
    out: &mut impl Write,
    painter: Painter,
    story: Story,
    outcome: &mut Outcome,
    left: &mut Left,
) -> anyhow::Result<()> {
    for step in story.steps {
        match step {
            Step::Change(what, change) => {
                painter.change(out, what)?;
                if let Change::Open(session) = &change {
                    left.sessions.push(session.id.clone());
                }
                make(client, change, left).await.with_context(|| format!("`{what}` failed"))?;
            }
            Step::Say(what) => painter.change(out, what)?,
            Step::Ask(attempt, times, expected) => {
                let verdict = ask(client, &attempt, times).await?;
                painter.verdict(out, &attempt, times, &verdict)?;
                outcome.count(verdict.decision(), times);
                left.asked.clone_from(&verdict.step_up);
                if let Some(surprise) = surprise(&attempt, &verdict, expected) {
                    painter.surprise(out, &surprise)?;
                    outcome.surprises.push(surprise);
                }
            }
        }
    }
    Ok(())
}

/// Asks once, or so many times at once; then the first verdict that differs from the first speaks for all.
async fn ask(client: &mut Client, attempt: &Attempt, times: usize) -> anyhow::Result<Verdict> {
    if times == 1 {
        return Ok(client.decide(attempt.clone()).await?);
    }
    let mut verdicts = client.decide_batch(vec![attempt.clone(); times]).await?;
    let first = verdicts.first().map(Verdict::decision).context("no verdict for no attempt")?;
    let odd = verdicts.iter().position(|verdict| verdict.decision() != first).unwrap_or(0);
    Ok(verdicts.swap_remove(odd))
}

fn surprise(attempt: &Attempt, verdict: &Verdict, expected: Expected) -> Option<String> {
    let policy = verdict.determining_policies.iter().any(|policy| policy == expected.because);
    let code = || verdict.reasons.iter().any(|reason| show::code(reason.code()) == expected.because);
    if verdict.decision() == expected.decision && (policy || code()) {
        return None;
    }
    Some(format!(
        "{}: expected {} by `{}`",
        show::attempt(attempt),
        show::word(expected.decision),
        expected.because
    ))
}

async fn make(client: &mut Client, change: Change, left: &mut Left) -> anyhow::Result<()> {
    match change {
        Change::Open(session) => drop(client.open_session(session).await?),
        Change::Update(update) => drop(client.update_session(update).await?),
        Change::Approve => left.reviews.push(approve(client, &left.asked).await?),
        Change::End(id) => drop(client.end_session(id, "ended in the demo").await?),
        Change::Report(signals) => report(client, signals).await?,
        Change::Pass(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
    }
    Ok(())
}

/// Approves what an attempt was asked for, as the first of its reviewers, for its session; gives the review and who it was.
async fn approve(client: &mut Client, asked: &[StepUpRequirement]) -> anyhow::Result<(Review, EntityRef)> {
    let asked = asked.iter().find(|asked| !asked.review_id.is_empty());
    let asked = asked.context("the verdict asks for no approval")?;
    let reviewer: Named = asked.reviewers.first().context("nobody may approve")?.parse()?;
    let review = opened(client, &asked.review_id).await?;
    let approval = ApproveReviewRequest {
        id: review.id,
        round: review.round,
        reviewer: Some(reviewer.reference()),
        ends_at: None,
        scope: Some(ReviewScope { this_session_only: true, ..ReviewScope::default() }),
        reason: "approved in the demo".to_owned(),
        ..ApproveReviewRequest::default()
    };
    let answer = client.approve_review(approval).await?;
    let review = answer.review.context("an answer without a review")?;
    Ok((review, reviewer.reference()))
}

/// A review, once it is open and pending: it is opened shortly after the verdict.
async fn opened(client: &mut Client, id: &str) -> anyhow::Result<Review> {
    for _ in 0..REVIEW_LOOKS_MAX {
        match client.review(id).await {
            Ok(review) if review.status() == ReviewStatus::Pending => return Ok(review),
            Ok(_) | Err(_) => tokio::time::sleep(SIGNAL_PAUSE).await,
        }
    }
    bail!("review {id} is not pending after {REVIEW_LOOKS_MAX} looks")
}

/// Reports signals until all of them are in force.
async fn report(client: &mut Client, mut signals: Vec<Signal>) -> anyhow::Result<()> {
    for _ in 0..SIGNAL_TRIES_MAX {
        let outcomes = client.report(signals.clone()).await.context("cannot report signals")?.outcomes;
        let mut late = outcomes.into_iter().map(|outcome| outcome == i32::from(SignalOutcome::Superseded));
        signals.retain(|_| late.next().unwrap_or(true));
        if signals.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(SIGNAL_PAUSE).await;
    }
    bail!("{} signals were still superseded after {SIGNAL_TRIES_MAX} tries", signals.len())
}
