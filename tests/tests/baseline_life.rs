//! The life of a baseline through the real binary: observed, learned from the audit, promoted, carried by a bundle, in force; and what
//! reviewers and attackers do to it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use cardea_proto::v1::Decision;
use cardea_tests::attempts::{attempt, entity};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::process::{Finished, run_cardea};
use cardea_tests::{audit, wait};
use serde_json::Value;
use tempfile::TempDir;

const SETTINGS: &str = r#"name = "office"

[step_up.review]
kind = "approval"
reviewers = ["Person::\"ann\""]
grant_s = 900

[behavior]
references = ["links"]
lists = ["to"]
[behavior.targets]
send = ["to"]
[behavior.classes]
read = ["read"]
egress = ["send"]
"#;

const OBSERVE: &str =
    "[behavior.observe]\nidentities = ['Agent::\"sec\"']\nuntil = \"2999-01-01T00:00:00Z\"\n";

const SCHEMA: &str = "entity Agent; entity Mailbox;
action read, send appliesTo { principal: Agent, resource: Mailbox, context: {
  session: Cardea::Session, behavior: Cardea::Behavior, request: { to?: String, links?: Set<String> } } };
";

const POLICIES: &str = r#"@id("work")
permit (principal is Agent, action in [Action::"read", Action::"send"], resource is Mailbox);

@id("outside") @reason("outside of what the task was approved for")
forbid (principal, action in [Action::"read", Action::"send"], resource)
when { context.behavior.out_of_scope };

@id("stranger") @reason("nobody approved this party for this work")
forbid (principal, action == Action::"send", resource)
when { context.behavior.mature && context.behavior.assessment == "abuse" };

@id("new") @reason("this is new; somebody must look at it") @step_up("review")
forbid (principal, action == Action::"send", resource)
when { (context.behavior.new_target || context.behavior.new_reference) && !context.session.grants.contains("review") };
"#;

/// A bundle in a directory; `more` is added to its settings.
fn bundle(more: &str) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("policies"))?;
    fs::write(at("bundle.toml"), format!("{SETTINGS}{more}"))?;
    fs::write(at("schema.cedarschema"), SCHEMA)?;
    fs::write(at("policies/all.cedar"), POLICIES)?;
    Ok(dir)
}

struct Node {
    cardea: Cardea,
    clients: Clients,
}

impl Node {
    async fn serving(bundle: &Path) -> Result<Self> {
        let source = Some(bundle.display().to_string());
        let cardea = Cardea::start_with(Options { source, ..Options::default() }).await?;
        let clients = cardea.clients()?;
        Ok(Self { cardea, clients })
    }

    /// A session of `Agent::"sec"` in task `month`, which was declared for reading and sending.
    async fn session(&mut self, id: &str) -> Result<()> {
        let task = v1::Task {
            id: "month".to_owned(),
            purpose: "Write to the owners.".to_owned(),
            actions: vec!["read".to_owned(), "send".to_owned()],
            ..v1::Task::default()
        };
        let session = v1::Session {
            id: id.to_owned(),
            principal: Some(entity("Agent::sec")?),
            task: Some(task),
            ..v1::Session::default()
        };
        self.clients.session.open(v1::OpenSessionRequest { session: Some(session) }).await?;
        Ok(())
    }

    async fn send(&mut self, session: &str, to: &str) -> Result<v1::Verdict> {
        self.clients.decide(send(session, to, None)?).await
    }

    /// What was approved: nine sessions that read, and write to ann and bob.
    async fn work(&mut self) -> Result<()> {
        for run in 0..9 {
            let session = format!("w{run}");
            self.session(&session).await?;
            let read = attempt("Agent::sec", "read", "Mailbox::in", &session)?;
            ensure!(self.clients.decide(read).await?.decision() == Decision::Allow);
            let verdict = self.send(&session, "ann, bob").await?;
            ensure!(verdict.decision() == Decision::Allow, "{verdict:?}");
            // On disk, where learning finds it.
            audit::decision(&mut self.clients, &verdict.decision_id).await?;
        }
        Ok(())
    }

    async fn review(&mut self, verdict: &v1::Verdict) -> Result<v1::Review> {
        let id = verdict.step_up.first().context("no requirement")?.review_id.clone();
        wait::until("the review", async || {
            let got = self.clients.review.get(v1::GetReviewRequest { id: id.clone() }).await;
            Ok(got.ok().and_then(|answer| answer.into_inner().review))
        })
        .await
    }

    fn url(&self) -> String {
        format!("http://{}", self.cardea.grpc)
    }
}

fn send(session: &str, to: &str, link: Option<&str>) -> Result<v1::Attempt> {
    let text = |text: &str| v1::Value { kind: Some(v1::value::Kind::String(text.to_owned())) };
    let set =
        |one: &str| v1::Value { kind: Some(v1::value::Kind::Set(v1::ValueSet { values: vec![text(one)] })) };
    let links = link.map(|link| ("links".to_owned(), set(link)));
    let context = [("to".to_owned(), text(to))].into_iter().chain(links).collect();
    Ok(v1::Attempt { context, ..attempt("Agent::sec", "send", "Mailbox::in", session)? })
}

fn run(words: &[&str]) -> Result<Finished> {
    run_cardea(words, b"")
}

fn fine(words: &[&str]) -> Result<Finished> {
    let done = run(words)?;
    ensure!(done.code == Some(0), "{words:?}: {}{}", done.stdout, done.stderr);
    Ok(done)
}

/// Learns what was observed, promotes it and imports it into a bundle without observing.
fn promoted(node: &Node) -> Result<(TempDir, TempDir)> {
    let here = tempfile::tempdir()?;
    let at = |name: &str| here.path().join(name).display().to_string();
    let (candidate, next) = (at("candidate.json"), at("next.json"));
    let audit = node.cardea.audit_dir().display().to_string();
    fine(&["baseline", "learn", "--audit", &audit, "--out", &candidate])?;
    fine(&[
        "baseline",
        "promote",
        &candidate,
        "--approved-by",
        "ann",
        "--reason",
        "seen in testing",
        "--out",
        &next,
    ])?;
    let bundle = bundle("")?;
    fine(&["baseline", "import", &next, "--bundle", &bundle.path().display().to_string()])?;
    Ok((bundle, here))
}

#[tokio::test]
async fn what_was_observed_is_approved_once_somebody_promoted_it_and_nothing_else_is() -> Result<()> {
    let observing = bundle(OBSERVE)?;
    let mut node = Node::serving(observing.path()).await?;
    node.work().await?;
    // In one session something is wrong: what else it did is not learned either.
    node.session("bad").await?;
    assert_eq!(node.send("bad", "carl").await?.decision(), Decision::Allow);
    let stranger = node.clients.decide(send("bad", "dan", Some("https://evil.io/"))?).await?;
    assert_eq!(stranger.decision(), Decision::Allow, "{stranger:?}");
    let record = audit::decision(&mut node.clients, &stranger.decision_id).await?;
    let deviation = record.deviation.context("the record tells the truth")?;
    assert_eq!((deviation.assessment.as_str(), deviation.observed), ("abuse", true));
    let observed = record.observed.context("nothing to learn from")?;
    assert_eq!((observed.task.as_str(), observed.observing), ("month", true));
    assert_eq!(
        (observed.targets, observed.references),
        (vec!["dan".to_owned()], vec!["https://evil.io/".to_owned()])
    );

    let (next, here) = promoted(&node)?;
    let live = here.path().join("live.json").display().to_string();
    fine(&["baseline", "learn", "--node", &node.url(), "--for", "1s", "--out", &live])?;
    assert_eq!(fs::read(&live)?, fs::read(here.path().join("candidate.json"))?, "live as from disk");
    let path = next.path().display().to_string();
    fine(&["bundle", "check", &path, "--deny", "warnings"])?;
    let shown = fine(&["baseline", "show", &format!("{path}/baselines.json"), "--format", "json"])?;
    let shown: Value = serde_json::from_str(&shown.stdout)?;
    assert_eq!((&shown["version"], &shown["approved_by"]), (&1.into(), &"ann".into()));
    assert_eq!(
        (&shown["baselines"][0]["runs"], &shown["promotions"][0]["reason"]),
        (&9.into(), &"seen in testing".into())
    );
    let candidate = here.path().join("candidate.json").display().to_string();
    let refused = run(&["baseline", "import", &candidate, "--bundle", &path])?;
    assert!(refused.code == Some(2) && refused.stderr.contains("nobody approved"), "{}", refused.stderr);

    let mut node = Node::serving(next.path()).await?;
    node.session("s").await?;
    assert_eq!(node.send("s", "ann, bob").await?.decision(), Decision::Allow);
    for stranger in ["carl", "dan", "mallory"] {
        assert_eq!(node.send("s", stranger).await?.decision(), Decision::Deny, "{stranger}");
    }
    let known = audit::find(&mut node.clients, "the bundle's record", |record| match &record.entry {
        Some(v1::record::Entry::Bundle(bundle)) => {
            Some((bundle.baseline_version, bundle.baseline_approved_by.clone()))
        }
        _ => None,
    });
    assert_eq!(known.await?, (1, "ann".to_owned()));
    Ok(())
}

#[tokio::test]
async fn observing_excuses_what_is_new_and_never_scope_and_ends_by_itself() -> Result<()> {
    let observing = bundle(OBSERVE)?;
    let mut node = Node::serving(observing.path()).await?;
    node.session("s").await?;
    assert_eq!(node.send("s", "whoever").await?.decision(), Decision::Allow);
    // Whoever is not observed is held to his baseline, and so is a task that was declared for something else.
    let task = v1::Task { id: "other".into(), actions: vec!["read".into()], ..v1::Task::default() };
    for (id, principal) in [("t", "Agent::sec"), ("u", "Agent::other")] {
        let session = v1::Session {
            id: id.to_owned(),
            principal: Some(entity(principal)?),
            task: (id == "t").then(|| task.clone()),
            ..v1::Session::default()
        };
        node.clients.session.open(v1::OpenSessionRequest { session: Some(session) }).await?;
    }
    assert_eq!(node.send("t", "whoever").await?.decision(), Decision::Deny);
    let other = v1::Attempt { principal: Some(entity("Agent::other")?), ..send("u", "whoever", None)? };
    assert_eq!(node.clients.decide(other).await?.decision(), Decision::StepUp);

    let over = bundle(&OBSERVE.replace("2999", "2001"))?;
    let warned = fine(&["bundle", "check", &over.path().display().to_string()])?;
    assert!(warned.stderr.contains("observe-period"), "{}", warned.stderr);
    let mut node = Node::serving(over.path()).await?;
    node.session("s").await?;
    assert_eq!(node.send("s", "whoever").await?.decision(), Decision::StepUp);
    Ok(())
}

/// A node whose baseline knows ann and bob, and the review that sending to carl opened there.
struct Asked {
    node: Node,
    bundle: TempDir,
    here: TempDir,
    review: v1::Review,
}

async fn asked() -> Result<Asked> {
    let observing = bundle(OBSERVE)?;
    let mut node = Node::serving(observing.path()).await?;
    node.work().await?;
    let (bundle, here) = promoted(&node)?;
    // A new party is asked about, not refused.
    let policies = bundle.path().join("policies/all.cedar");
    fs::write(&policies, fs::read_to_string(&policies)?.replace("== \"abuse\"", "== \"misconfiguration\""))?;
    let mut node = Node::serving(bundle.path()).await?;
    node.session("s").await?;
    let verdict = node.send("s", "carl").await?;
    ensure!(verdict.decision() == Decision::StepUp, "{verdict:?}");
    let review = node.review(&verdict).await?;
    Ok(Asked { node, bundle, here, review })
}

#[tokio::test]
async fn a_reviewer_sees_the_evidence_and_an_approval_for_one_attempt_opens_one_of_eight() -> Result<()> {
    let Asked { node, review, .. } = &mut asked().await?;
    let deviation = review.deviation.clone().context("no evidence")?;
    assert_eq!(
        (deviation.assessment.as_str(), deviation.baseline.as_str()),
        ("abuse", "1 (approved by ann)")
    );
    assert!(deviation.evidence.iter().any(|line| line.contains("carl was never a target")), "{deviation:?}");
    let url = node.url();
    let shown = fine(&["review", "show", "--node", &url, &review.id])?.stdout;
    for words in ["carl was never a target", "abuse", "in task month: carl"] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    fine(&[
        "review",
        "approve",
        "--node",
        &url,
        &review.id,
        "--as",
        "Person::\"ann\"",
        "--once",
        "--for",
        "5m",
    ])?;
    // At the same time, on eight connections.
    let retry = || async { node.cardea.clients()?.decide(send("s", "carl", None)?).await };
    let (a, b, c, d, e, f, g, h) =
        tokio::try_join!(retry(), retry(), retry(), retry(), retry(), retry(), retry(), retry())?;
    let allowed = [a, b, c, d, e, f, g, h].iter().filter(|one| one.decision() == Decision::Allow).count();
    assert_eq!(allowed, 1);
    // Asked anew: the next round is opened shortly after.
    wait::until("the next round", async || {
        let request = v1::GetReviewRequest { id: review.id.clone() };
        let review = node.clients.review.get(request).await?.into_inner().review;
        Ok(review.filter(|review| review.round == 2))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn what_a_reviewer_approves_into_the_next_baseline_counts_once_somebody_promoted_it() -> Result<()> {
    let Asked { node, bundle, here, review } = &mut asked().await?;
    let (url, by) = (node.url(), "Person::\"ann\"");
    fine(&[
        "review",
        "approve",
        "--node",
        &url,
        &review.id,
        "--as",
        by,
        "--into-baseline",
        "--reason",
        "a new owner",
    ])?;
    let at = |name: &str| here.path().join(name).display().to_string();
    let (candidate, second) = (at("second.json"), at("baselines-2.json"));
    let learned =
        fine(&["baseline", "learn", "--node", &url, "--identity", "Agent::\"sec\"", "--out", &candidate])?
            .stdout;
    assert!(learned.contains("approved in review by Person::\"ann\": send"), "{learned}");
    let onto = at("next.json");
    let promoted = fine(&[
        "baseline",
        "promote",
        &candidate,
        "--onto",
        &onto,
        "--approved-by",
        "eve",
        "--out",
        &second,
    ])?;
    assert!(promoted.stdout.contains("+ target send → carl"), "{}", promoted.stdout);
    assert!(promoted.stdout.contains("(9 -> 9 runs)"), "nothing matures by reviews: {}", promoted.stdout);
    let again = run(&[
        "baseline",
        "promote",
        &candidate,
        "--onto",
        &second,
        "--approved-by",
        "eve",
        "--out",
        &at("x"),
    ])?;
    assert!(again.code == Some(2) && again.stderr.contains("promoted before"), "{}", again.stderr);

    fine(&["baseline", "import", &second, "--bundle", &bundle.path().display().to_string()])?;
    let mut node = Node::serving(bundle.path()).await?;
    node.session("s").await?;
    assert_eq!(node.send("s", "carl").await?.decision(), Decision::Allow);
    assert_eq!(node.send("s", "dan").await?.decision(), Decision::StepUp);
    Ok(())
}

#[tokio::test]
async fn a_file_of_another_line_is_refused_and_what_a_bundle_carries_comes_out_of_it() -> Result<()> {
    let observing = bundle(OBSERVE)?;
    let mut node = Node::serving(observing.path()).await?;
    node.work().await?;
    let (next, here) = promoted(&node)?;
    let at = |name: &str| here.path().join(name).display().to_string();
    let path = next.path().display().to_string();
    // Somebody starts anew, without the history.
    let (candidate, fresh) = (at("candidate.json"), at("fresh.json"));
    fine(&["baseline", "promote", &candidate, "--approved-by", "mallory", "--out", &fresh])?;
    let refused = run(&["baseline", "import", &fresh, "--bundle", &path])?;
    assert!(refused.code == Some(1) && refused.stderr.contains("does not carry on"), "{}", refused.stderr);
    let packed = at("office.cardea");
    fine(&["bundle", "build", &path, "-o", &packed, "--revision", "1"])?;
    let out = at("exported.json");
    let exported = fine(&["baseline", "export", "--bundle", &packed, "--out", &out, "--format", "json"])?;
    let exported: Value = serde_json::from_str(&exported.stdout)?;
    assert_eq!((&exported["version"], &exported["approved_by"]), (&1.into(), &"ann".into()));
    assert_eq!(fs::read(&out)?, fs::read(next.path().join("baselines.json"))?);
    fine(&["baseline", "import", &fresh, "--bundle", &path, "--replace"])?;
    Ok(())
}

#[tokio::test]
async fn the_audit_becomes_a_report_with_the_answers() -> Result<()> {
    let observing = bundle(OBSERVE)?;
    let mut node = Node::serving(observing.path()).await?;
    node.work().await?;
    let stranger = node.clients.decide(send("w0", "dan", Some("https://evil.io/"))?).await?;
    audit::decision(&mut node.clients, &stranger.decision_id).await?;
    let here = tempfile::tempdir()?;
    let out = here.path().join("report.html").display().to_string();
    let (audit, bundle) =
        (node.cardea.audit_dir().display().to_string(), observing.path().display().to_string());
    let told = fine(&["monitor", "report", "--audit", &audit, "--bundle", &bundle, "--out", &out])?;
    assert!(told.stderr.contains("Of all attempts"), "{}", told.stderr);
    let page = fs::read_to_string(&out)?;
    assert!(page.contains("send → evil.io") && page.contains("policies did not see"), "{page}");
    let live = fine(&["monitor", "report", "--node", &node.url(), "--bundle", &bundle, "--out", &out])?;
    assert_eq!(told.stderr, live.stderr);
    Ok(())
}
