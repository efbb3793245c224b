//! A bundle as the lints see it: its policies with their scopes and conditions, and what the schema says of them.
//!
//! Worked out once, so that no lint walks entities or actions for each policy.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use cedar_policy::{ActionConstraint, Effect};
use smol_str::SmolStr;

use super::rules::Rule;
use super::scan::{self, Declaration};
use crate::engine::syntax::{self, EntityTypes, Term};
use crate::engine::{self, ActionTypes, TypeName, Uid, World};
use crate::fault::{Fault, SourceText};
use crate::index::{self, Named};
use crate::load::{Files, Parsed, Source};
use crate::settings::Settings;

/// One policy.
pub(super) struct Subject<'p> {
    pub(super) id: &'p SmolStr,
    pub(super) policy: &'p cedar_policy::Policy,
    pub(super) forbids: bool,
    pub(super) principal: Named,
    pub(super) actions: Arc<ActionSet>,
    /// Whether its scope names no action.
    pub(super) any_action: bool,
    pub(super) resource: Named,
    pub(super) condition: Option<Term>,
}

/// The actions that a scope covers.
#[derive(Debug, Default)]
pub(super) struct ActionSet {
    /// Of those in [`Bundle::actions`] that apply to something, in rising order.
    pub(super) numbers: Vec<usize>,
    /// Types of the principals and resources that they apply to.
    pub(super) principals: BTreeSet<TypeName>,
    pub(super) resources: BTreeSet<TypeName>,
}

/// See the module.
pub(super) struct Bundle<'b> {
    pub(super) parsed: &'b Parsed<'b>,
    pub(super) settings: &'b Settings,
    pub(super) settings_text: &'b str,
    pub(super) schema: &'b cedar_policy::Schema,
    pub(super) schema_source: SourceText,
    pub(super) declarations: Vec<Declaration>,
    pub(super) world: World,
    /// What entities.json lists, and the actions.
    pub(super) listed: AHashSet<Uid>,
    pub(super) entity_types: BTreeMap<TypeName, EntityTypes>,
    /// By id, as [`engine::action_types`] orders them.
    pub(super) actions: Vec<ActionTypes>,
    /// Every action with those that are in it.
    pub(super) members: Vec<(Uid, Vec<Uid>)>,
    pub(super) policies: Vec<Subject<'b>>,
}

/// Which part of a policy a finding is about.
pub(super) enum Part<'a> {
    /// Its effect and scope.
    Head,
    /// Principal, action or resource of the scope: 0, 1 or 2.
    Scope(usize),
    /// The annotation of that name.
    Annotation(&'a str),
    /// Bytes of the file, if they are known.
    Bytes(&'a Option<Range<usize>>),
}

impl<'b> Bundle<'b> {
    /// `None` if too little of the bundle could be read to say anything beyond that.
    pub(super) fn of(parsed: &'b Parsed<'b>, files: &'b Files) -> Option<Self> {
        if !super::whole(parsed) {
            return None;
        }
        let settings = parsed.settings.as_ref()?;
        let schema = parsed.schema.as_ref()?;
        let world = World::new(parsed.entities.clone()?);
        let text = |name: &str| std::str::from_utf8(files.get(Path::new(name))?).ok();
        let schema_text = text("schema.cedarschema")?;
        let actions = engine::action_types(schema);
        let members = syntax::action_members(schema);
        let policies = subjects(parsed, &actions, &members);
        Some(Self {
            parsed,
            settings,
            settings_text: text("bundle.toml")?,
            schema,
            schema_source: SourceText::new(schema_text),
            declarations: scan::declarations(schema_text),
            listed: world.uids().collect(),
            world,
            entity_types: syntax::entity_types(schema).into_iter().map(|of| (of.name.clone(), of)).collect(),
            actions,
            members,
            policies,
        })
    }

    fn source(&self, policy: usize) -> Option<(&Source<'b>, &Range<usize>)> {
        let place = self.parsed.places.of(policy)?;
        Some((self.parsed.sources.get(place.source)?, &place.span))
    }

    /// A finding about a policy.
    pub(super) fn in_policy(
        &self,
        rule: &'static Rule,
        policy: usize,
        part: &Part<'_>,
        message: impl Into<String>,
    ) -> Fault {
        let Some((source, whole)) = self.source(policy) else { return Fault::of(rule, "policies", message) };
        let head = || scan::head(source.text, whole);
        let span = match part {
            Part::Head => head().map(|head| head.span),
            Part::Scope(number) => head().and_then(|head| head.scope.get(*number).cloned()),
            Part::Annotation(name) => head().and_then(|head| {
                let found = head.annotations.into_iter().find(|found| found.name == *name);
                Some(found?.span)
            }),
            Part::Bytes(span) => (*span).clone(),
        };
        let span = span.unwrap_or_else(|| whole.clone());
        Fault::of(rule, source.path, message).within(source.shared(), span.start, span.len())
    }

    /// A finding about something that bundle.toml declares in a table.
    pub(super) fn in_settings(&self, rule: &'static Rule, table: &str, name: &str, message: String) -> Fault {
        let fault = Fault::of(rule, "bundle.toml", message);
        let spellings =
            [format!("[{table}.{name}]"), format!("[{table}.\"{name}\"]"), format!("{table}.{name}")];
        let found = spellings.iter().find_map(|text| Some((self.settings_text.find(text)?, text.len())));
        match found {
            Some((offset, length)) => fault.at(self.settings_text, offset, length),
            None => fault,
        }
    }

    /// A finding about something that the schema declares, by its number in [`Self::declarations`].
    pub(super) fn in_schema(
        &self,
        rule: &'static Rule,
        declaration: Option<usize>,
        message: String,
    ) -> Fault {
        let fault = Fault::of(rule, "schema.cedarschema", message);
        match declaration.and_then(|number| self.declarations.get(number)) {
            Some(found) => fault.within(&self.schema_source, found.span.start, found.span.len()),
            None => fault,
        }
    }
}

fn subjects<'b>(
    parsed: &'b Parsed<'b>,
    actions: &[ActionTypes],
    members: &[(Uid, Vec<Uid>)],
) -> Vec<Subject<'b>> {
    let mut sets = ActionSets::new(actions, members);
    let subject = |(id, policy): &'b (SmolStr, cedar_policy::Policy)| {
        let constraint = policy.action_constraint();
        Subject {
            id,
            policy,
            forbids: policy.effect() == Effect::Forbid,
            principal: index::principal(&policy.principal_constraint()),
            any_action: matches!(constraint, ActionConstraint::Any),
            actions: sets.of(&constraint),
            resource: index::resource(&policy.resource_constraint()),
            condition: Term::of(policy),
        }
    };
    parsed.policies.iter().map(subject).collect()
}

/// Finds the actions of each scope; equal scopes share the answer.
struct ActionSets<'a> {
    actions: &'a [ActionTypes],
    /// Numbers of the actions that apply to something, below each action or group.
    below: AHashMap<&'a Uid, Vec<usize>>,
    known: AHashMap<Option<Vec<Uid>>, Arc<ActionSet>>,
}

impl<'a> ActionSets<'a> {
    fn new(actions: &'a [ActionTypes], members: &'a [(Uid, Vec<Uid>)]) -> Self {
        let numbers: AHashMap<&Uid, usize> =
            actions.iter().enumerate().map(|(number, types)| (&types.action, number)).collect();
        let below = members
            .iter()
            .map(|(action, members)| {
                let all = std::iter::once(action).chain(members);
                (action, all.filter_map(|uid| numbers.get(uid).copied()).collect())
            })
            .collect();
        Self { actions, below, known: AHashMap::new() }
    }

    fn of(&mut self, constraint: &ActionConstraint) -> Arc<ActionSet> {
        let named = match constraint {
            ActionConstraint::Any => None,
            ActionConstraint::Eq(uid) => Some(vec![Uid::from(uid)]),
            ActionConstraint::In(uids) => {
                let mut uids: Vec<Uid> = uids.iter().map(Uid::from).collect();
                uids.sort();
                Some(uids)
            }
        };
        if let Some(known) = self.known.get(&named) {
            return Arc::clone(known);
        }
        let mut numbers: Vec<usize> = match (&named, constraint) {
            (None, _) => (0..self.actions.len()).collect(),
            (Some(uids), ActionConstraint::Eq(_)) => {
                let is = |types: &ActionTypes| uids.contains(&types.action);
                (0..self.actions.len()).filter(|number| self.actions.get(*number).is_some_and(is)).collect()
            }
            (Some(uids), _) => uids.iter().filter_map(|uid| self.below.get(uid)).flatten().copied().collect(),
        };
        numbers.sort_unstable();
        numbers.dedup();
        let mut set = ActionSet::default();
        for number in numbers {
            let Some(types) = self.actions.get(number) else { continue };
            if !types.principals.is_empty() && !types.resources.is_empty() {
                set.numbers.push(number);
                set.principals.extend(types.principals.iter().cloned());
                set.resources.extend(types.resources.iter().cloned());
            }
        }
        let set = Arc::new(set);
        self.known.insert(named, Arc::clone(&set));
        set
    }
}

/// Whether a scope lets entities of that type through, by their type alone.
pub(super) fn admits(named: &Named, of_type: &TypeName, types: &BTreeMap<TypeName, EntityTypes>) -> bool {
    let can_be_in = |group: &Uid| {
        let group = group.type_name();
        group == *of_type || types.get(&group).is_some_and(|found| found.descendants.contains(of_type))
    };
    match named {
        Named::Anything => true,
        Named::Type(name) => name == of_type,
        Named::Itself(uid) => uid.is(of_type),
        Named::Within(group) => can_be_in(group),
        Named::TypeWithin(name, group) => name == of_type && can_be_in(group),
    }
}
