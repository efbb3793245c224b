//! What a bundle says of behaviour: what was approved (`baselines.json`), and how attempts are read and judged (`[behavior]`).
//!
//! Compiled with the bundle, so one snapshot has one of them. Identities are found by entity, never by a bare id: an approval for
//! `Agent::"x"` says nothing of `User::"x"`. Limits: those of [`cardea_behavior::kept`], and of any file of a bundle.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ahash::AHashMap;
use cardea_behavior::burst::Counting;
use cardea_behavior::kept::Identity;
use cardea_behavior::{ActionClass, Baselines, Classes, Kept, Key, Rules};
use cedar_policy::EntityUid;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;
use smol_str::SmolStr;

use crate::engine::Uid;
use crate::fault::Fault;
use crate::lint::rules;
use crate::observing::{ObserveSettings, Observing};
use crate::settings::is_named;

/// `[behavior]`: as in the file that `cardea monitor` reads. Fields are those of an action's `context.request`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BehaviorSettings {
    /// Whom or what an action is done to, by its id or as `Type::"id"`: the fields that say so. An action that is not named
    /// here has the resource.
    pub targets: BTreeMap<SmolStr, Vec<SmolStr>>,
    /// Fields that hold several names, separated by commas or as a JSON list.
    pub lists: Vec<SmolStr>,
    /// Fields that hold external references, texts or sets of texts.
    pub references: Vec<SmolStr>,
    /// Fields in whose texts external references are looked for, at any place and depth; `*`: all of them.
    pub search: Vec<SmolStr>,
    /// The field, a record, in which a tool describes itself (`readOnlyHint`, `destructiveHint` and `openWorldHint`, as in MCP); empty:
    /// none. Nobody vouches for it, so it can only make an action's class stricter.
    pub hints: SmolStr,
    /// The field that says where an attempt comes from; empty: none.
    pub network: SmolStr,
    /// What kind of thing each action does.
    pub classes: Classes,
    /// Classes that stand in the schema, `@class("…")` at an action, by `Type::"id"`. They win over the table.
    #[serde(skip)]
    pub annotated: BTreeMap<String, ActionClass>,
    /// How deviations are judged. What is answered, policy says.
    pub rules: Rules,
    /// How bursts are counted, if `rules.burst_score` looks for them.
    pub burst: Counting,
    /// Identities that are not held to their baselines yet.
    pub observe: Option<ObserveSettings>,
}

/// Where an attempt at one action says what.
#[derive(Clone, Debug, Default)]
pub struct Monitored {
    /// What kind of thing it does.
    pub class: ActionClass,
    /// The fields that name targets; `None`: the resource is the target.
    pub targets: Option<Box<[TargetField]>>,
    /// The fields in whose texts external references are looked for.
    pub search: Box<[SmolStr]>,
}

/// A field that names targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetField {
    /// Its name.
    pub name: SmolStr,
    /// Whether one text in it holds several names.
    pub is_list: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Approvals {
    key: Key,
    identities: AHashMap<Uid, Identity>,
    observing: Observing,
    /// Version of the file, and who approved it.
    version: Option<(u32, SmolStr)>,
}

impl BehaviorSettings {
    pub(crate) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.burst.tick_s == 0 {
            faults.push(("tick_s", "a tick of `[behavior.burst]` is at least one second long".to_owned()));
        }
        if self.targets.values().any(Vec::is_empty) {
            let message =
                "an action in `[behavior.targets]` has no fields; leave it out if its resource is the target";
            faults.push(("targets", message.to_owned()));
        }
        faults.extend(self.observe.iter().flat_map(ObserveSettings::faults));
        faults
    }

    /// How attempts at an action are read.
    pub(crate) fn of_action<'f>(&self, action: &Uid, fields: impl Iterator<Item = &'f SmolStr>) -> Monitored {
        let field = |name: &SmolStr| TargetField { name: name.clone(), is_list: self.lists.contains(name) };
        let named = self.targets.iter().find(|(name, _)| is_named(action, name));
        let is_searched = |name: &&SmolStr| self.search.iter().any(|one| one == *name || one == "*");
        let annotated = self.annotated.get(&action.to_string()).copied();
        Monitored {
            class: annotated.unwrap_or_else(|| self.classes.of(action.id())),
            targets: named.map(|(_, fields)| fields.iter().map(field).collect()),
            search: fields.filter(is_searched).cloned().collect(),
        }
    }
}

impl Approvals {
    /// Compiles what was approved; without a file nothing is.
    ///
    /// # Errors
    /// There is no randomness to draw a key from, or an identity is no entity.
    pub(crate) fn compile(kept: Option<&Kept>, settings: &BehaviorSettings) -> Result<Self, Fault> {
        let key = key()?;
        let compiled =
            kept.map(|kept| kept.compile(&key, &settings.rules).into_identities()).unwrap_or_default();
        let identities: Result<_, Fault> = compiled
            .into_iter()
            .map(|(name, identity)| match identity_uid(&name) {
                Some(uid) => Ok((uid, identity)),
                None => Err(no_entity(&name)),
            })
            .collect();
        let version = kept.map(|kept| (kept.version, SmolStr::from(kept.approved_by.as_str())));
        Ok(Self {
            key,
            identities: identities?,
            observing: Observing::of(settings.observe.as_ref()),
            version,
        })
    }

    /// The key that everything in it is fingerprinted with.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Who is observed.
    #[must_use]
    pub fn observing(&self) -> &Observing {
        &self.observing
    }

    /// Version of what was approved, and who approved it; `None`: the bundle has no baselines.
    #[must_use]
    pub fn version(&self) -> Option<(u32, &SmolStr)> {
        self.version.as_ref().map(|(version, by)| (*version, by))
    }

    /// What was approved for an identity in a task.
    #[must_use]
    pub fn of(&self, identity: &Uid, task: Option<&str>) -> Baselines<'_> {
        self.identities.get(identity).map(|identity| identity.baselines(task)).unwrap_or_default()
    }
}

/// The entity that a file of baselines names, written as `Type::"id"`.
pub(crate) fn identity_uid(name: &str) -> Option<Uid> {
    name.parse::<EntityUid>().ok().map(|uid| Uid::from(&uid))
}

fn no_entity(name: &str) -> Fault {
    let name: String = name.chars().take(64).collect();
    Fault::of(&rules::BASELINES_INVALID, "baselines.json", format!("identity `{name}` is no entity"))
        .help("record principals as `Type::\"id\"`, as policies write them, and learn again")
}

/// One key for all bundles of the process: the fingerprints that sessions remember outlast a bundle, so that a new bundle makes nobody look
/// as if they had just begun.
static KEY: OnceLock<([u8; 16], Key)> = OnceLock::new();

/// Lets fingerprints be made with the key with which a store holds what sessions did. `false` if they are made with another one already:
/// then nobody can tell what the store's fingerprints stand for.
pub fn adopt_key(random: [u8; 16]) -> bool {
    KEY.get_or_init(|| (random, Key::new(random))).0 == random
}

/// The key that [`adopt_key`] gave; without one, one that is drawn at random now.
fn key() -> Result<Key, Fault> {
    if let Some((_, key)) = KEY.get() {
        return Ok(key.clone());
    }
    let mut random = [0; 16];
    let drawn = SystemRandom::new().fill(&mut random);
    drawn.map_err(|_unspecified| Fault::new("baselines.json", "the operating system gives no randomness"))?;
    Ok(KEY.get_or_init(|| (random, Key::new(random))).1.clone())
}
