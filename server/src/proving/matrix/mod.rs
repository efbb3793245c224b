//! The matrix: for each principal, action and resource of a bundle, the verdict in named situations.
//!
//! Cells are the combinations that the schema allows, with a stranger (an entity that the bundle does not list) for
//! each type of principal: the stranger's rows show that what nobody permitted is denied. A type of resource without
//! an entity is stood for by a stranger as well.
//! Limits: [`CELLS_MAX`]. Never does: I/O, reading a clock; all cells are judged at one fixed time.

mod situation;
pub mod snap;

use std::collections::{BTreeMap, BTreeSet};

use cardea_core::decide::Question;
use cardea_core::verdict::Decision;
use cardea_policy_store::fragment::Needs;
use cardea_policy_store::snapshot::Snapshot;
use cardea_proto::v1;
use serde::Serialize;

use super::case::Got;
use super::request;
use super::run::empty_state;
use super::words::{ActionNamed, Named};
use crate::doors::told;
use crate::pipeline::weigh;
use crate::state::life_ms;
use cardea_core::time::Now;
pub use situation::{Situation, Situations};

/// Id of the entity that no bundle lists.
pub const STRANGER: &str = "stranger";
/// Most cells: some megabytes of snapshot, more than a review takes in, judged within seconds.
pub const CELLS_MAX: usize = 100_000;
/// When all cells are judged: 2026-01-01T12:00:00Z, Unix milliseconds.
const NOW_MS: i64 = 1_767_268_800_000;
/// Id of the session of a situation that has one.
const SESSION: &str = "matrix";

/// Which verdict is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Name of the situation.
    pub situation: String,
    /// Who acts.
    pub principal: Named,
    /// What it wants to do.
    pub action: ActionNamed,
    /// What it wants to do it to.
    pub resource: Named,
}

/// One verdict, as far as somebody compares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Answer {
    /// `allow`, `step_up` or `deny`.
    pub verdict: &'static str,
    /// Ids of the determining policies.
    pub policies: Vec<String>,
    /// Codes of the reasons, where no policy settled it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Names of the requirements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requirements: Vec<String>,
    /// Obligations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<String>,
}

impl Answer {
    /// From a verdict in words.
    #[must_use]
    pub fn of(got: Got) -> Self {
        let mut reasons: Vec<String> = Vec::new();
        if got.policies.is_empty() {
            reasons.extend(got.reasons.into_iter().map(|reason| reason.code));
        }
        Self {
            verdict: got.decision,
            policies: got.policies,
            reasons,
            requirements: got.requirements,
            obligations: got.obligations,
        }
    }

    /// The one that a record tells, in the words of [`Self::of`].
    #[must_use]
    pub fn recorded(record: &v1::DecisionRecord) -> Self {
        let verdict = match record.decision() {
            v1::Decision::Allow => Decision::Allow,
            v1::Decision::StepUp => Decision::StepUp,
            v1::Decision::Deny | v1::Decision::Unspecified => Decision::Deny,
        };
        let code = |reason: &v1::Reason| {
            reason.code().as_str_name().trim_start_matches("REASON_CODE_").to_ascii_lowercase()
        };
        let policies = record.determining_policies.clone();
        let reasons =
            if policies.is_empty() { record.reasons.iter().map(code).collect() } else { Vec::new() };
        Self {
            verdict: verdict.name(),
            policies,
            reasons,
            requirements: record.step_up.clone(),
            obligations: record.obligations.clone(),
        }
    }

    /// A deny without policy having been asked.
    #[must_use]
    pub fn refused(code: cardea_core::reason::ReasonCode) -> Self {
        Self {
            verdict: Decision::Deny.name(),
            policies: Vec::new(),
            reasons: vec![code.name().to_owned()],
            requirements: Vec::new(),
            obligations: Vec::new(),
        }
    }

    /// What it rests on, in one line: policies, or the reason; what a step-up needs; what an allow obliges to.
    #[must_use]
    pub fn why(&self) -> String {
        let mut why = match self.policies.is_empty() {
            true => format!("({})", self.reasons.join(", ")),
            false => self.policies.join(", "),
        };
        if !self.requirements.is_empty() {
            why.push_str(&format!(" -> {}", self.requirements.join(", ")));
        }
        if !self.obligations.is_empty() {
            why.push_str(&format!(" + {}", self.obligations.join(", ")));
        }
        // An id may hold anything; a line must stay one.
        why.chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect()
    }
}

/// Which cells are wanted; an empty text lets all pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// A part of the principal's name.
    pub principal: String,
    /// A part of the action's.
    pub action: String,
    /// A part of the resource's.
    pub resource: String,
}

/// More cells than the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the matrix has {cells} cells, and {CELLS_MAX} at most are drawn")]
pub struct TooManyCells {
    /// How many there would be.
    pub cells: usize,
}

/// The names of entities, by type.
type Names = BTreeMap<String, BTreeSet<String>>;

/// Every combination of the entities of the bundles that the schema of one of them allows, in each situation.
///
/// # Errors
/// When there are more than [`CELLS_MAX`].
pub fn keys(
    bundles: &[&Snapshot],
    situations: &Situations,
    filters: &Filters,
) -> Result<Vec<Key>, TooManyCells> {
    let mut entities = Names::new();
    for uid in bundles.iter().flat_map(|bundle| bundle.world().uids()) {
        entities.entry(uid.type_text()).or_default().insert(uid.id().to_owned());
    }
    let mut triples: BTreeSet<(Named, ActionNamed, Named)> = BTreeSet::new();
    let mut cells = 0_usize;
    for action in bundles.iter().flat_map(|bundle| bundle.actions()) {
        let named = ActionNamed(Named { type_name: action.uid.type_text(), id: action.uid.id().to_owned() });
        if !named.to_string().contains(&filters.action) {
            continue;
        }
        let principals = named_entities(action.principals(), &entities, true, &filters.principal);
        let resources = named_entities(action.resources(), &entities, false, &filters.resource);
        // Counted before any is made, so that a large bundle costs nothing. An action of two bundles counts twice.
        let own = principals.len().saturating_mul(resources.len()).saturating_mul(situations.list().len());
        cells = cells.saturating_add(own);
        if cells > CELLS_MAX.saturating_mul(bundles.len()) {
            return Err(TooManyCells { cells });
        }
        for principal in &principals {
            triples.extend(
                resources.iter().map(|resource| (principal.clone(), named.clone(), resource.clone())),
            );
        }
    }
    let total = triples.len().saturating_mul(situations.list().len());
    if total > CELLS_MAX {
        return Err(TooManyCells { cells: total });
    }
    let key = |situation: &Situation, (principal, action, resource): &(Named, ActionNamed, Named)| Key {
        situation: situation.name.clone(),
        principal: principal.clone(),
        action: action.clone(),
        resource: resource.clone(),
    };
    let mut keys: Vec<Key> = situations
        .list()
        .iter()
        .flat_map(|situation| triples.iter().map(move |one| key(situation, one)))
        .collect();
    keys.sort();
    Ok(keys)
}

fn named_entities(
    types: &[cardea_policy_store::engine::TypeName],
    entities: &Names,
    stranger_always: bool,
    filter: &str,
) -> BTreeSet<Named> {
    let mut found = BTreeSet::new();
    for type_name in types.iter().map(ToString::to_string) {
        let ids = entities.get(&type_name);
        let named = |id: &String| Named { type_name: type_name.clone(), id: id.clone() };
        found.extend(ids.into_iter().flatten().map(named));
        if stranger_always || ids.is_none() {
            let mut id = STRANGER.to_owned();
            while ids.is_some_and(|ids| ids.contains(&id)) {
                id.push('\'');
            }
            found.insert(named(&id));
        }
    }
    found.retain(|one| one.to_string().contains(filter));
    found
}

/// Judges every key under a bundle.
///
/// # Errors
/// What a situation says and the bundle's services do not take, in words.
pub fn judge(
    snapshot: &Snapshot,
    situations: &Situations,
    keys: &[Key],
) -> Result<BTreeMap<Key, Answer>, String> {
    keys.iter().map(|key| Ok((key.clone(), cell(snapshot, situations, key)?))).collect()
}

fn cell(snapshot: &Snapshot, situations: &Situations, key: &Key) -> Result<Answer, String> {
    let Some(situation) = situations.list().iter().find(|one| one.name == key.situation) else {
        return Err(format!("there is no situation `{}`", key.situation));
    };
    let now = Now { mono_ns: 0, wall_ms: NOW_MS };
    let principal = key.principal.reference();
    let refused = |fault: cardea_core::attempt::NotAnAttempt| Answer::refused(fault.code);
    let ActionNamed(action) = &key.action;
    let fault = |what: String| format!("situation `{}`: {what}", key.situation);
    let message = v1::Attempt {
        principal: Some(principal.clone()),
        action: Some(action.reference()),
        resource: Some(key.resource.reference()),
        context: context(snapshot, situations, action).map_err(fault)?,
        session_id: situation.session.as_ref().map(|_| SESSION.to_owned()).unwrap_or_default(),
        token: situation.token.as_ref().map(|token| token.message(now.wall_ms)),
        ..v1::Attempt::default()
    };
    let attempt = match told::attempt(&message, snapshot) {
        Ok(attempt) => attempt,
        Err(not) => return Ok(refused(not)),
    };
    let state = empty_state();
    if let Some(session) = &situation.session {
        let opened = Now { wall_ms: NOW_MS - 2, ..now };
        let session = session.clone().covering(&action.id);
        let session = told::session(&session.message(SESSION, principal, now.wall_ms), snapshot, opened);
        let session = session.map_err(|status| fault(status.message().to_owned()))?;
        state.open(session, 0, opened).map_err(|open| fault(open.to_string()))?;
    }
    // The situations are those of a node whose sources speak.
    for source in snapshot.settings().signals.source.keys() {
        state.hear(source, snapshot.settings(), Now { wall_ms: NOW_MS - 2, ..now });
    }
    for signal in &situation.signals {
        let reported = Now { wall_ms: NOW_MS - 1, ..now };
        let message = signal.about(&key.principal, SESSION).message(reported.wall_ms).map_err(fault)?;
        let read = told::signal(&message, snapshot, reported);
        let read = read.map_err(|status| fault(status.message().to_owned()))?;
        state.hear(&message.source, snapshot.settings(), reported);
        match state.apply(&read, life_ms(snapshot.settings()), reported) {
            Ok((crate::state::Outcome::Applied, _)) => {}
            _ => {
                return Err(fault("a signal changes nothing; it needs a session, or comes twice".to_owned()));
            }
        }
    }
    let question = Question::new(snapshot, &attempt);
    Ok(Answer::of(Got::of(&weigh(&state, &question, Needs::default(), now).verdict, snapshot)))
}

/// What the enforcement point sends: what the situations say, and neutral values for what must be there.
fn context(
    snapshot: &Snapshot,
    situations: &Situations,
    action: &Named,
) -> Result<BTreeMap<String, v1::Value>, String> {
    let Some(known) = snapshot.action(&action.type_name, &action.id) else { return Ok(BTreeMap::new()) };
    let mut sent = situations.request(&action.id).cloned().unwrap_or_default();
    sent.retain(|name, _| known.request_field(name).is_some());
    let mut context = request::fields(&sent, known, snapshot)?;
    for (name, shape) in known.required_fields() {
        context.entry(name.to_string()).or_insert_with(|| request::neutral(shape));
    }
    Ok(context)
}
