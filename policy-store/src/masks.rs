//! What records do not tell: `[audit.mask]` of `bundle.toml`, from a path to what becomes of what stands there.
//!
//! ```toml
//! [audit.mask]
//! "entity.Person" = "hash"            # ids of entities of a type, wherever they stand
//! "request.customer.email" = "hash"   # a field that the enforcement point sent, and all below it
//! "token.issuer" = "remove"           # a fact, or a whole group of facts
//! session_id = "hash"                 # also `attempt_id`, and `asked_by`: who asked for a change, as the connection proves it
//! ```
//!
//! Owns the paths, and which of them mean something: one that the schema does not have would hide nothing, and is a fault.
//! Limits: [`MASKS_MAX`] paths. Never does: hiding anything; the writer of records does.

use std::collections::BTreeMap;

use cedar_policy::Schema;
use serde::Deserialize;
use smol_str::SmolStr;

use crate::engine;
use crate::fault::Fault;
use crate::fragment::{Fact, Group};
use crate::lint::rules;
use crate::shape::Shape;

/// Most paths of a bundle.
pub const MASKS_MAX: usize = 256;

const ENTITY: &str = "entity.";
const REQUEST: &str = "request.";
const SESSION_ID: &str = "session_id";
const ATTEMPT_ID: &str = "attempt_id";
const ASKED_BY: &str = "asked_by";

/// `[audit]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditSettings {
    /// What becomes of what stands at a path.
    pub mask: BTreeMap<SmolStr, Mask>,
}

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// It is not recorded.
    Remove,
    /// A pseudonym stands in its place: the same for the same value, until its salt is erased.
    Hash,
}

/// The paths by what they name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    entities: BTreeMap<SmolStr, Mask>,
    request: Vec<(Box<[SmolStr]>, Mask)>,
    facts: BTreeMap<SmolStr, Mask>,
    /// Session ids.
    pub session_id: Option<Mask>,
    /// Callers' own ids of attempts.
    pub attempt_id: Option<Mask>,
    /// Who asked for a change, as the connection proves it.
    pub asked_by: Option<Mask>,
}

impl Masks {
    /// Those of a bundle; paths that mean nothing are left out.
    #[must_use]
    pub fn of(settings: &AuditSettings) -> Self {
        let mut masks = Self::default();
        for (path, mask) in &settings.mask {
            match Path::parse(path) {
                Some(Path::Entity(name)) => drop(masks.entities.insert(name, *mask)),
                Some(Path::Request(fields)) => masks.request.push((fields, *mask)),
                Some(Path::Fact(path)) => drop(masks.facts.insert(path, *mask)),
                Some(Path::SessionId) => masks.session_id = Some(*mask),
                Some(Path::AttemptId) => masks.attempt_id = Some(*mask),
                Some(Path::AskedBy) => masks.asked_by = Some(*mask),
                None => {}
            }
        }
        masks
    }

    /// Whether nothing is hidden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What becomes of ids of entities of this type.
    #[must_use]
    pub fn entity(&self, type_name: &str) -> Option<Mask> {
        self.entities.get(type_name).copied()
    }

    /// Fields that the enforcement point sends, each by the names on its way.
    #[must_use]
    pub fn request(&self) -> &[(Box<[SmolStr]>, Mask)] {
        &self.request
    }

    /// What becomes of a fact, by its path as policy writes it.
    #[must_use]
    pub fn fact(&self, path: &str) -> Option<Mask> {
        let group = path.split('.').next().unwrap_or(path);
        self.facts.get(path).or_else(|| self.facts.get(group)).copied()
    }
}

enum Path {
    Entity(SmolStr),
    Request(Box<[SmolStr]>),
    Fact(SmolStr),
    SessionId,
    AttemptId,
    AskedBy,
}

impl Path {
    fn parse(path: &str) -> Option<Self> {
        if let Some(name) = path.strip_prefix(ENTITY) {
            return (!name.is_empty()).then(|| Self::Entity(name.into()));
        }
        if let Some(fields) = path.strip_prefix(REQUEST) {
            let fields: Box<[SmolStr]> = fields.split('.').map(SmolStr::from).collect();
            return fields.iter().all(|field| !field.is_empty()).then_some(Self::Request(fields));
        }
        match path {
            SESSION_ID => Some(Self::SessionId),
            ATTEMPT_ID => Some(Self::AttemptId),
            ASKED_BY => Some(Self::AskedBy),
            fact => is_fact(fact).then(|| Self::Fact(fact.into())),
        }
    }
}

/// Whether a path names a fact, or a group that has facts.
fn is_fact(path: &str) -> bool {
    Fact::ALL.iter().any(|fact| fact.path() == path)
        || Group::ALL
            .iter()
            .any(|group| group.name() == path && Fact::ALL.iter().any(|fact| fact.group() == *group))
}

/// What no bundle may say, as (table or key, fault).
pub(crate) fn faults(settings: &AuditSettings) -> Vec<(&'static str, String)> {
    let mut faults = Vec::new();
    if settings.mask.len() > MASKS_MAX {
        faults.push(("audit.mask", format!("at most {MASKS_MAX} paths are hidden")));
    }
    for path in settings.mask.keys().filter(|path| Path::parse(path).is_none()) {
        faults.push((
            "audit.mask",
            format!(
                "`{path}` names nothing that records hold: write `entity.TYPE`, `request.FIELD`, a fact such as `token.issuer` or \
                 its group, `session_id`, `attempt_id` or `asked_by`"
            ),
        ));
    }
    faults
}

/// Paths that the schema does not have: they would hide nothing.
pub(crate) fn unknown(settings: &AuditSettings, schema: &Schema) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut add = |path: &str, what: &str, help: &str| {
        let message = format!("`[audit.mask]` hides `{path}`, and {what}");
        faults.push(Fault::of(&rules::SETTINGS_INVALID, "bundle.toml", message).help(help.to_owned()));
    };
    for path in settings.mask.keys() {
        match Path::parse(path) {
            Some(Path::Entity(name)) => {
                if !schema.entity_types().any(|known| known.to_string() == name) {
                    add(
                        path,
                        "the schema has no such type",
                        "name a type with its namespace: `entity.App::Person`",
                    );
                }
            }
            Some(Path::Request(fields)) => {
                let types = engine::action_types(schema);
                if !types.iter().any(|action| has_field(&action.context, &fields)) {
                    add(
                        path,
                        "no action's `context.request` has it",
                        "name a field that the schema declares",
                    );
                }
            }
            Some(Path::Fact(_) | Path::SessionId | Path::AttemptId | Path::AskedBy) | None => {}
        }
    }
    faults
}

fn has_field(context: &Shape, fields: &[SmolStr]) -> bool {
    let request = inner(context, Group::Request.name());
    fields.iter().try_fold(request, |shape, name| shape.map(|shape| inner(shape, name))).flatten().is_some()
}

/// A field of a record, or of the records in a set.
fn inner<'s>(shape: &'s Shape, name: &str) -> Option<&'s Shape> {
    let record = if let Shape::Set(of) = shape { of.as_ref() } else { shape };
    let Shape::Record(fields) = record else { return None };
    fields.get(name).map(|field| &field.shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(paths: &[&str]) -> AuditSettings {
        AuditSettings { mask: paths.iter().map(|path| ((*path).into(), Mask::Hash)).collect() }
    }

    fn schema() -> Schema {
        let text = "
            namespace App { entity Person, Agent; entity Mail; }
            type Sent = { to: Set<{ address: String }>, customer: { email: String } };
            action send appliesTo { principal: App::Agent, resource: App::Mail, context: { request: Sent } };";
        Schema::from_cedarschema_str(text).unwrap().0
    }

    #[test]
    fn paths_that_name_nothing_are_faults() {
        let bad = [
            "",
            "entity.",
            "request.",
            "request.a..b",
            "principal",
            "session",
            "now",
            "token.issuers",
            "risk.scores",
        ];
        for path in bad {
            let faults = faults(&settings(&[path]));
            let is_group = path == "session";
            assert_eq!(faults.is_empty(), is_group, "{path}: {faults:?}");
        }
        let good = [
            "entity.App::Person",
            "request.customer",
            "token",
            "token.issuer",
            "session_id",
            "attempt_id",
            "asked_by",
        ];
        assert_eq!(faults(&settings(&good)), []);
    }

    #[test]
    fn paths_that_the_schema_does_not_have_would_hide_nothing_and_are_faults() {
        let good = [
            "entity.App::Person",
            "request.customer.email",
            "request.to.address",
            "request.to",
            "token.issuer",
        ];
        assert!(unknown(&settings(&good), &schema()).is_empty());
        for path in ["entity.Person", "request.custommer.email", "request.customer.mail", "request.to.name"] {
            let faults = unknown(&settings(&[path]), &schema());
            assert_eq!(faults.len(), 1, "{path}");
            assert!(faults[0].to_string().contains(path), "{}", faults[0]);
        }
    }

    #[test]
    fn a_group_of_facts_covers_each_of_them() {
        let masks = Masks::of(&settings(&["token", "risk.score"]));
        assert_eq!(masks.fact("token.issuer"), Some(Mask::Hash));
        assert_eq!((masks.fact("risk.score"), masks.fact("risk.level")), (Some(Mask::Hash), None));
    }
}
