//! The one path from an attempt to a verdict.
//!
//! Every door calls [`Pipeline::judge`]; no door decides anything itself. Facts come from memory; a missing fact is
//! itself a fact. A verdict is released only when its record has a place in the audit queue; a full queue follows
//! `audit.when_full`. One snapshot serves the whole decision.
//! Never does: awaiting, network reads, retries, logging of identities.

mod encoding;
mod entry;
mod hold;
mod outcomes;
mod responses;
mod weigh;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use cardea_core::ask::AskDigest;
use cardea_core::attempt::{Attempt, NotAnAttempt};
use cardea_core::decide::Question;
use cardea_core::facts::Facts;
use cardea_core::reason::ReasonCode;
use cardea_core::time::Now;
use cardea_core::verdict::{Decision, Verdict};
use cardea_policy_store::fragment::{Group, Needs};
use cardea_policy_store::snapshot::Snapshot;
use cardea_policy_store::store::PolicyStore;
use cardea_proto::v1::{self, record::Entry};
use smallvec::SmallVec;
use uuid::Uuid;

use self::responses::{Orders, Pace};
use crate::audit::{Audit, Durable, Place};
use crate::clock::Clock;
use crate::concluding::Concluding;
use crate::config::WhenStale;
use crate::holds::Bell;
use crate::metrics::{ActionLabels, Cell, Labels, Metrics};
use crate::reviews::{self, Desk, Named};
use crate::shadow::{Occasion, Sample, Shadow};
use crate::state::{Learned, Reservation, State};

pub use entry::{Seen, entity};
pub(crate) use entry::{observed_record, reason_text, reason_words, recorded, unrecorded};
pub(crate) use hold::{Reconsidered, Telling};
pub(crate) use weigh::{Weighed, weigh, weigh_unnoted};

/// Where attempts come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Native gRPC.
    Grpc,
    /// Envoy external authorization.
    ExtAuthz,
    /// Holds: allows that are watched over.
    Hold,
}

impl Door {
    /// Names, in the order of the variants; for records and metrics.
    pub const NAMES: [&'static str; 3] = ["grpc", "ext_authz", "hold"];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::ExtAuthz => "ext_authz",
            Self::Hold => "hold",
        }
    }
}

/// The names that decisions are counted under.
#[must_use]
pub fn labels(shards: usize) -> Labels {
    Labels { doors: &Door::NAMES, outcomes: &outcomes::NAMES, shards }
}

/// See the module. Shared by all workers.
#[derive(Debug)]
pub struct Pipeline {
    policy: Arc<PolicyStore>,
    state: Arc<State>,
    audit: Arc<Audit>,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// Whether records hold what it takes to judge the attempt again.
    replayable: bool,
    durability: Durability,
    /// Metric labels of the actions of one revision.
    actions: ArcSwap<(u64, ActionLabels)>,
    when_stale: WhenStale,
    shadow: Shadow,
    reviews: Desk,
    /// Who listens to this node's signals, if anybody does.
    concluding: OnceLock<Concluding>,
    /// How often policies may have holds judged again.
    notices: Pace,
    /// Rings for the holds when another snapshot comes into force.
    bell: Arc<Bell>,
}

/// A door could not make an attempt of what it was sent; what it saw goes into the record.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub fault: NotAnAttempt,
    /// What it saw.
    pub seen: Seen,
}

/// A verdict with what it rests on, for a door to put into its own words.
#[derive(Debug)]
pub struct Judgement<'j> {
    /// Names the decision.
    pub id: Uuid,
    /// The snapshot that judged; `None` if there is none.
    pub snapshot: Option<&'j Snapshot>,
    /// The attempt; `None` if the door could not make one.
    pub attempt: Option<&'j Attempt>,
    /// The answer.
    pub verdict: &'j Verdict,
    /// Version of the state that it rests on.
    pub state_version: u64,
    /// Ages of the groups of facts that were used, in milliseconds.
    pub ages: &'j [(Group, u64)],
    /// The risk score of the principal, if a candidate read it.
    pub risk: Option<u8>,
    /// The reviews that it asks for.
    pub reviews: &'j [(u16, AskDigest)],
    /// What an allow that counts unless it is given back can be settled with.
    pub reservation: Option<&'j Reservation>,
}

type Ages = SmallVec<[(Group, u64); 4]>;

impl Pipeline {
    /// Joins the parts.
    #[must_use]
    pub fn new(
        policy: Arc<PolicyStore>,
        state: Arc<State>,
        audit: Arc<Audit>,
        metrics: Arc<Metrics>,
        clock: Clock,
        when_stale: WhenStale,
    ) -> Self {
        let actions = ArcSwap::from_pointee((0, ActionLabels::default()));
        let shadow = Shadow::new(Arc::clone(&metrics));
        let reviews = Desk::new(metrics.reviews.clone());
        Self {
            policy,
            state,
            audit,
            metrics,
            clock,
            replayable: false,
            durability: Durability::default(),
            actions,
            when_stale,
            shadow,
            reviews,
            concluding: OnceLock::new(),
            notices: Pace::default(),
            bell: Arc::default(),
        }
    }

    /// Whether records hold what it takes to judge the attempt again: the request and every fact that a candidate
    /// read.
    #[must_use]
    pub fn replayable(self, replayable: bool) -> Self {
        Self { replayable, ..self }
    }

    /// Which answers leave only once their records are on the disk, beside those that policies ask it for.
    #[must_use]
    pub fn durable(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// Judges one attempt: `attempt` makes it from what the door was sent, `answer` puts the verdict into the door's
    /// words. The answer is handed out only once its record has its place.
    pub fn judge<R>(
        &self,
        door: Door,
        attempt: impl FnOnce(&Snapshot) -> Result<Attempt, Box<Refused>>,
        answer: impl FnOnce(&Judgement<'_>) -> R,
    ) -> Judged<R> {
        let now = self.clock.now();
        let place = match self.audit.admit() {
            Ok(place) => place,
            Err(_full) => {
                self.metrics.audit_refusals.increment(1);
                return Judged { said: self.unrecorded(door, now, answer), durable: None };
            }
        };
        let current = self.policy.snapshot();
        let (made, seen) = match &current {
            None => (Err(Verdict::deny(ReasonCode::NoPolicy)), Seen::default()),
            Some(snapshot) if self.is_too_stale(snapshot, now) => {
                (Err(Verdict::deny(ReasonCode::PolicyStale)), Seen::default())
            }
            Some(snapshot) => match attempt(snapshot) {
                Ok(attempt) => (Ok(attempt), Seen::default()),
                Err(refused) => {
                    (Err(Verdict::deny_because(refused.fault.code, refused.fault.message)), refused.seen)
                }
            },
        };
        let id = decision_id(now);
        let sampled = self.shadow.picks();
        let (verdict, basis, attempt) = match (made, &current) {
            (Ok(attempt), Some(snapshot)) => {
                let (verdict, basis, facts) = self.decide(snapshot, &attempt, now, sampled);
                if sampled {
                    self.sample(Occasion { id, door, now }, snapshot, &attempt, facts, &verdict);
                }
                (verdict, basis, Some(attempt))
            }
            (Err(verdict), _) => {
                if sampled {
                    self.shadow.count_unread();
                }
                (verdict, self.no_facts(), None)
            }
            (Ok(_), None) => (Verdict::deny(ReasonCode::NoPolicy), Basis::default(), None),
        };
        let elapsed_ns = self.clock.mono_ns().saturating_sub(now.mono_ns);
        let orders = match (&current, &attempt) {
            (Some(snapshot), Some(attempt)) => Orders::of(snapshot, attempt, &verdict),
            _ => None,
        };
        let given =
            Given { id, door, snapshot: current, attempt, seen, verdict, basis, elapsed_ns, hold: None };
        let said = self.give_out(place, given, now, answer);
        if let Some(orders) = orders {
            self.carry_out(&orders, now);
        }
        said
    }

    /// Counts a verdict, puts it into the door's words, and fills the place of its record.
    fn give_out<R>(
        &self,
        place: Option<Place<'_>>,
        given: Given,
        now: Now,
        answer: impl FnOnce(&Judgement<'_>) -> R,
    ) -> Judged<R> {
        let Given { id, door, snapshot, attempt, seen, verdict, basis, elapsed_ns, hold } = given;
        let is_durable = self.durability.covers(snapshot.as_deref(), &verdict);
        // What must be on the disk first and has no place will never be there.
        let verdict =
            if is_durable && place.is_none() { Verdict::deny(ReasonCode::AuditFull) } else { verdict };
        self.count(door, snapshot.as_deref(), attempt.as_ref(), &verdict, elapsed_ns);
        let reviews = match (&snapshot, &attempt) {
            (Some(snapshot), Some(attempt)) => {
                self.reviews.ask(snapshot, attempt, &verdict, id, &self.state, now)
            }
            _ => Named::new(),
        };
        let said = answer(&Judgement {
            id,
            snapshot: snapshot.as_deref(),
            attempt: attempt.as_ref(),
            verdict: &verdict,
            state_version: basis.state_version,
            ages: &basis.ages,
            risk: basis.risk,
            reviews: &reviews,
            reservation: basis.reservation.as_ref(),
        });
        if let Some(place) = place {
            let Basis { state_version, ages, facts, .. } = basis;
            let entry = entry::Decided {
                id,
                door,
                snapshot,
                attempt,
                seen,
                verdict,
                state_version,
                ages,
                facts,
                elapsed_ns,
                hold,
            };
            let durable = if is_durable {
                let durable = place.fill_durable(wall_ms(now), Box::new(entry));
                Some(Pending { durable, id, door, now })
            } else {
                place.fill(wall_ms(now), Box::new(entry));
                None
            };
            return Judged { said, durable };
        }
        // `admit` has counted it; a gap record will tell.
        self.metrics.audit_gaps.increment(1);
        Judged { said, durable: None }
    }

    /// Gives a verdict out once its record is where it has to be. Where that takes too long the door's own words for a deny leave instead,
    /// and a record says that the verdict was withheld.
    pub async fn release<R>(&self, judged: Judged<R>, answer: impl FnOnce(&Judgement<'_>) -> R) -> R {
        let Judged { said, durable } = judged;
        let Some(Pending { durable, id, door, now }) = durable else { return said };
        if durable.wait(self.durability.at_most).await {
            return said;
        }
        self.metrics.audit_refusals.increment(1);
        let withheld =
            v1::WithheldRecord { decision_id: id.hyphenated().to_string(), door: door.name().to_owned() };
        self.record(Entry::Withheld(withheld), self.clock.now());
        self.unrecorded(door, now, answer)
    }

    /// Whether the bundle is past its end and must not be asked any more.
    fn is_too_stale(&self, snapshot: &Snapshot, now: Now) -> bool {
        self.when_stale == WhenStale::Deny && snapshot.is_stale(now.wall_ms)
    }

    /// The basis of a verdict for which nothing was looked up.
    fn no_facts(&self) -> Basis {
        Basis { state_version: self.state.version(), ..Basis::default() }
    }

    fn decide(
        &self,
        snapshot: &Snapshot,
        attempt: &Attempt,
        now: Now,
        sampled: bool,
    ) -> (Verdict, Basis, Facts) {
        let question = Question::new(snapshot, attempt);
        let also = if sampled { Needs::every() } else { Needs::default() };
        let weighed = weigh(&self.state, &question, also, now);
        self.based(&question, weighed, now)
    }

    /// Records what was learned, and tells what the verdict rests on.
    fn based(&self, question: &Question<'_>, weighed: Weighed, now: Now) -> (Verdict, Basis, Facts) {
        let Weighed { verdict, facts, learned, used, reservation } = weighed;
        for known in &used {
            self.record(reviews::record(known, "used", self.state.version()), now);
        }
        if let Some(Learned { session, version, change }) = learned {
            let change = v1::SessionRecord {
                session_id: session.id.to_string(),
                principal: Some(entity(&session.principal)),
                change: change.to_owned(),
                state_version: version,
                reason: String::new(),
            };
            self.record(Entry::Session(change), now);
        }
        let basis = Basis::of(question, &facts, now);
        let replay = self.replayable.then(|| (facts.clone(), now));
        (verdict, Basis { facts: replay, reservation, ..basis }, facts)
    }

    /// Hands a decided attempt to the shadow: shared pieces only, and no wait.
    #[cold]
    fn sample(
        &self,
        occasion: Occasion,
        snapshot: &Arc<Snapshot>,
        attempt: &Attempt,
        facts: Facts,
        verdict: &Verdict,
    ) {
        self.shadow.offer(Box::new(Sample {
            occasion,
            snapshot: Arc::clone(snapshot),
            attempt: attempt.clone(),
            facts,
            answer: verdict.into(),
        }));
    }

    /// Deny for want of a place in the audit queue; the only verdict without a record, and counted.
    #[cold]
    fn unrecorded<R>(&self, door: Door, now: Now, answer: impl FnOnce(&Judgement<'_>) -> R) -> R {
        let verdict = Verdict::deny(ReasonCode::AuditFull);
        self.count(door, None, None, &verdict, self.clock.mono_ns().saturating_sub(now.mono_ns));
        answer(&Judgement {
            id: decision_id(now),
            snapshot: None,
            attempt: None,
            verdict: &verdict,
            state_version: self.state.version(),
            ages: &[],
            risk: None,
            reviews: &[],
            reservation: None,
        })
    }

    /// Records a change of state. A change is never held back for want of a place: most of them close doors. What
    /// cannot be recorded is counted, and a gap record tells.
    pub fn record(&self, entry: Entry, now: Now) {
        if !self.audit.record(wall_ms(now), entry) {
            self.metrics.audit_gaps.increment(1);
        }
    }

    fn count(
        &self,
        door: Door,
        snapshot: Option<&Snapshot>,
        attempt: Option<&Attempt>,
        verdict: &Verdict,
        elapsed_ns: u64,
    ) {
        let labels = self.actions.load();
        let action = match (snapshot, attempt.and_then(|attempt| attempt.action.number)) {
            (Some(snapshot), Some(number)) if snapshot.settings().revision == labels.0 => {
                labels.1.get(number)
            }
            _ => crate::metrics::ActionLabel::default(),
        };
        let outcome = outcomes::of(verdict);
        let candidates = usize::try_from(verdict.candidates()).unwrap_or(usize::MAX);
        self.metrics.decisions.count(Cell { door: door as usize, outcome, action }, candidates, elapsed_ns);
        // What a hold is told is no attempt.
        if let (Some(snapshot), Some(consequences)) = (snapshot, verdict.consequences())
            && door != Door::Hold
        {
            self.metrics.dry_runs.count(snapshot, &consequences.dry);
        }
        if !verdict.errors().is_empty() {
            self.metrics.policy_errors.increment(verdict.errors().len() as u64);
        }
    }

    /// Prepares metric labels for a snapshot that came into force.
    pub fn label_actions(&self, snapshot: &Snapshot) {
        let names: Vec<String> = snapshot.actions().iter().map(|action| action.uid.id().to_owned()).collect();
        let labels = self.metrics.decisions.label_actions(names.iter().map(String::as_str));
        self.actions.store(Arc::new((snapshot.settings().revision, labels)));
        self.metrics.prepare_dry_runs(snapshot);
        self.bell.ring();
    }

    /// Wakes the thread of the holds.
    #[must_use]
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Now {
        self.clock.now()
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What this node knows.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// What a bundle does that is past its end.
    #[must_use]
    pub fn when_stale(&self) -> WhenStale {
        self.when_stale
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Arc<PolicyStore> {
        &self.policy
    }

    /// The audit.
    #[must_use]
    pub fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// Tells this transmitter of signals what comes of changes, from now on.
    pub fn conclude_to(&self, concluding: Concluding) {
        // Set once, at the start.
        let _kept = self.concluding.set(concluding);
    }

    /// Who listens to this node's signals, if anybody does.
    pub(crate) fn concluding(&self) -> Option<&Concluding> {
        self.concluding.get()
    }

    /// The candidate beside the bundle in force.
    #[must_use]
    pub fn shadow(&self) -> &Shadow {
        &self.shadow
    }

    /// Where reviews are opened.
    #[must_use]
    pub fn reviews(&self) -> &Desk {
        &self.reviews
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }
}

/// Which answers leave only once their records survive a crash of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Durability {
    /// Those that allow.
    pub allow: bool,
    /// Those that ask for more.
    pub step_up: bool,
    /// Those that deny.
    pub deny: bool,
    /// How long they wait at most; then they become denies.
    pub at_most: Duration,
}

impl Default for Durability {
    fn default() -> Self {
        Self { allow: false, step_up: false, deny: false, at_most: crate::limits::AUDIT_DURABLE_WAIT }
    }
}

impl Durability {
    fn covers(&self, snapshot: Option<&Snapshot>, verdict: &Verdict) -> bool {
        let by_decision = match verdict.decision() {
            Decision::Allow => self.allow,
            Decision::StepUp => self.step_up,
            Decision::Deny => self.deny,
        };
        let asks = |at: &u32| snapshot.and_then(|of| of.policy(*at)).is_some_and(|policy| policy.is_durable);
        by_decision || verdict.determining().iter().any(asks)
    }
}

/// A verdict in a door's words; [`Pipeline::release`] gives it out.
#[derive(Debug)]
#[must_use = "a verdict leaves through `Pipeline::release`"]
pub struct Judged<R> {
    said: R,
    durable: Option<Pending>,
}

/// What a verdict waits for.
#[derive(Debug)]
struct Pending {
    durable: Durable,
    id: Uuid,
    door: Door,
    now: Now,
}

/// A verdict on its way out.
struct Given {
    id: Uuid,
    door: Door,
    snapshot: Option<Arc<Snapshot>>,
    attempt: Option<Attempt>,
    seen: Seen,
    verdict: Verdict,
    basis: Basis,
    elapsed_ns: u64,
    hold: Option<Box<v1::HoldRecord>>,
}

/// What a verdict rests on.
#[derive(Debug, Default)]
pub(crate) struct Basis {
    state_version: u64,
    ages: Ages,
    risk: Option<u8>,
    /// Kept for the record only where records are replayable.
    facts: Option<(Facts, Now)>,
    reservation: Option<Reservation>,
}

impl Basis {
    fn of(question: &Question<'_>, facts: &Facts, now: Now) -> Self {
        let needs = question.needs();
        let ages = if needs.is_empty() {
            Ages::new()
        } else {
            let used = Group::ALL.into_iter().filter(|group| needs.reads_any(*group));
            let (attempt, settings) = (question.attempt(), question.snapshot().settings());
            used.filter_map(|group| Some((group, facts.age_ms(group, attempt, settings, now)?))).collect()
        };
        // What was gathered for a shadow is none of the caller's business.
        let risk = facts.hops.last().filter(|_| needs.reads_any(Group::Risk));
        let risk = risk.and_then(|hop| hop.risk.as_deref()).map(|risk| risk.score(now));
        Self { state_version: facts.state_version, ages, risk, ..Self::default() }
    }
}

fn wall_ms(now: Now) -> u64 {
    u64::try_from(now.wall_ms).unwrap_or(0)
}

/// A UUIDv7 (RFC 9562 section 5.7): the time, then random bits that are unique, not secret.
fn decision_id(now: Now) -> Uuid {
    let random = fastrand::u128(..).to_le_bytes();
    let [a, b, c, d, e, f, g, h, i, j, ..] = random;
    uuid::Builder::from_unix_timestamp_millis(wall_ms(now), &[a, b, c, d, e, f, g, h, i, j]).into_uuid()
}
