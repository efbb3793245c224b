//! What changes between two bundles, as it is written: policies, schema, settings, entities, routes, links.
//!
//! Limits: [`NAMES_MAX`] names of a list; the rest is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cardea_policy_store::load::Files;
use cardea_policy_store::snapshot::Snapshot;
use cedar_policy_formatter::{Config, policies_str_to_pretty};
use serde::Serialize;
use serde_json::Value;
use smol_str::SmolStr;

use super::lines;
use crate::proving::policies::{self, Body, Written};

/// Most names that a list shows.
pub const NAMES_MAX: usize = 20;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Words {
    /// Policies, by id.
    pub policies: Policies,
    /// Templates, by id.
    pub templates: Policies,
    /// `bundle.toml`, key by key.
    pub settings: Vec<Key>,
    /// Entities, by uid.
    pub entities: Names,
    /// Links of templates, by their ids.
    pub links: Names,
    /// Changed lines of the schema.
    pub schema: Vec<String>,
    /// Changed lines of the routes.
    pub routes: Vec<String>,
}

/// Policies that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Policies {
    /// Only the new bundle has them.
    pub added: Vec<String>,
    /// Only the old one has.
    pub removed: Vec<String>,
    /// Both have them, differently.
    pub changed: Vec<Changed>,
}

/// One policy that both bundles have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its id.
    pub id: String,
    /// What differs: `effect`, `scope`, `condition`, `annotations`.
    pub parts: Vec<&'static str>,
    /// The changed lines, in Cedar's own layout.
    pub lines: Vec<String>,
}

/// One setting that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Key {
    /// Its path, `sessions.max_age_s`.
    pub key: String,
    /// Its value in the old bundle; none if it is not written there.
    pub old: Option<String>,
    /// Its value in the new one.
    pub new: Option<String>,
}

/// Named things that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// How many only the new bundle has, how many only the old one, and how many both have differently.
    pub counts: Counts,
    /// Names of the first of them: `+ name`, `- name`, `~ name`.
    pub names: Vec<String>,
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Only the new bundle has them.
    pub added: usize,
    /// Only the old one has.
    pub removed: usize,
    /// Both have them, differently.
    pub changed: usize,
}

impl Words {
    /// Compares two bundles that load.
    #[must_use]
    pub fn of(old: (&Files, &Snapshot), new: (&Files, &Snapshot)) -> Self {
        let text = |files: &Files, name: &str| {
            files
                .get(Path::new(name))
                .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
                .unwrap_or_default()
        };
        let lines = |name: &str| lines::diff(&text(old.0, name), &text(new.0, name));
        let named = |files: &Files, name: &str, key: fn(&Value) -> Option<String>| {
            let list: Vec<Value> = serde_json::from_str(&text(files, name)).unwrap_or_default();
            list.into_iter().filter_map(|item| Some((key(&item)?, item))).collect::<BTreeMap<_, _>>()
        };
        let names = |name: &str, key| Names::of(&named(old.0, name, key), &named(new.0, name, key));
        Self {
            policies: Policies::of(&policies::written(old.0, old.1), &policies::written(new.0, new.1)),
            templates: Policies::of(&policies::templates(old.0), &policies::templates(new.0)),
            settings: settings(&text(old.0, "bundle.toml"), &text(new.0, "bundle.toml")),
            entities: names("entities.json", uid),
            links: names("links.json", link),
            schema: lines("schema.cedarschema"),
            routes: lines("routes.toml"),
        }
    }

    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Policies {
    fn of(old: &BTreeMap<SmolStr, Written>, new: &BTreeMap<SmolStr, Written>) -> Self {
        let only = |one: &BTreeMap<SmolStr, Written>, other: &BTreeMap<SmolStr, Written>| {
            one.keys().filter(|id| !other.contains_key(*id)).map(ToString::to_string).collect()
        };
        let both = old
            .iter()
            .filter_map(|(id, before)| changed(id, before.body.as_ref()?, new.get(id)?.body.as_ref()?));
        Self { added: only(new, old), removed: only(old, new), changed: both.collect() }
    }
}

fn changed(id: &str, old: &Body, new: &Body) -> Option<Changed> {
    let differs = |keys: &[&str]| keys.iter().any(|key| old.parts.get(key) != new.parts.get(key));
    let parts = [
        ("effect", differs(&["effect"])),
        ("scope", differs(&["principal", "action", "resource"])),
        ("condition", differs(&["conditions"])),
        ("annotations", differs(&["annotations"])),
    ];
    let parts: Vec<&'static str> =
        parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part).collect();
    if parts.is_empty() {
        return None;
    }
    Some(Changed { id: id.to_owned(), parts, lines: lines::diff(&pretty(old), &pretty(new)) })
}

fn pretty(policy: &Body) -> String {
    let config = Config { line_width: 100, indent_width: 2 };
    policies_str_to_pretty(&policy.text, &config).unwrap_or_else(|_| policy.text.clone())
}

fn uid(entity: &Value) -> Option<String> {
    let uid = entity.get("uid")?;
    let uid = uid.get("__entity").unwrap_or(uid);
    Some(format!("{}::\"{}\"", uid.get("type")?.as_str()?, uid.get("id")?.as_str()?.escape_debug()))
}

fn link(link: &Value) -> Option<String> {
    Some(link.get("link_id")?.as_str()?.to_owned())
}

impl Names {
    fn of(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Self {
        let mut counts = Counts::default();
        let mut names = Vec::new();
        let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in all {
            let (sign, count) = match (old.get(name), new.get(name)) {
                (None, _) => ('+', &mut counts.added),
                (_, None) => ('-', &mut counts.removed),
                (before, after) if before == after => continue,
                _ => ('~', &mut counts.changed),
            };
            *count += 1;
            if names.len() < NAMES_MAX {
                names.push(format!("{sign} {name}"));
            }
        }
        Self { counts, names }
    }
}

/// The leaves of both files whose values differ; comments and order do not count.
fn settings(old: &str, new: &str) -> Vec<Key> {
    let leaves = |text: &str| {
        let mut leaves = BTreeMap::new();
        if let Ok(table) = text.parse::<toml::Table>() {
            flatten("", &toml::Value::Table(table), &mut leaves);
        }
        leaves
    };
    let (old, new) = (leaves(old), leaves(new));
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| Key { key: key.clone(), old: old.get(key).cloned(), new: new.get(key).cloned() })
        .collect()
}

fn flatten(path: &str, value: &toml::Value, leaves: &mut BTreeMap<String, String>) {
    let toml::Value::Table(table) = value else {
        leaves.insert(path.to_owned(), value.to_string());
        return;
    };
    for (key, value) in table {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        flatten(&path, value, leaves);
    }
}
