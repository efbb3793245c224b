//! A bundle compiled for reading: immutable, swapped whole.
//!
//! Owns everything that one decision needs from policy, so that it can use a single revision throughout.
//! Never does: I/O, change.

mod action;

use std::sync::Arc;

use ahash::AHashMap;
use cardea_behavior::Kept;
use cedar_policy::Effect;
use smol_str::SmolStr;

use crate::approvals::Approvals;
use crate::counters::Counter;
use crate::digest::Digest;
use crate::engine::{self, Condition, ContextLayout, Interned, TypeName, Uid, World};
use crate::fault::Fault;
use crate::fragment::{Group, Needs};
use crate::index::{Candidates, PolicyIndex, ScopeIndex};
use crate::lint::rules;
use crate::manifest::Manifest;
use crate::responses::{DRY_RUNS_MAX, Declared, Effects};
use crate::settings::{OnPolicyError, Requirement, Settings};
use crate::stamp::Stamp;
pub use action::Action;

/// One policy, as a decision reads it.
#[derive(Debug)]
pub struct Policy {
    /// `@id`, or Cedar's own name.
    pub id: SmolStr,
    /// Whether it forbids; otherwise it permits.
    pub forbids: bool,
    /// What remains beside its scope.
    pub condition: Condition,
    /// `@reason`: for the caller.
    pub reason: Option<SmolStr>,
    /// `@step_up`: the requirement that lifts this forbid, as a place in [`Snapshot::requirement`].
    pub step_up: Option<u16>,
    /// `@obligation`: what the enforcement point must do along with an allow.
    pub obligation: Option<SmolStr>,
    /// `@severity`: for records.
    pub severity: Option<SmolStr>,
    /// `@audit("durable")`: an answer that it settles leaves only once its record is on the disk.
    pub is_durable: bool,
    /// `@label`, `@respond` and `@dry_run`: what it does beside its answer.
    pub effects: Option<Box<Effects>>,
}

impl Policy {
    /// Whether it is evaluated and told, and settles nothing.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.effects.as_ref().is_some_and(|effects| effects.dry_run)
    }
}

/// What a snapshot is made of.
pub struct Parts {
    /// `bundle.toml`.
    pub settings: Settings,
    /// SHA-256 of the bundle, lower-case hexadecimal.
    pub digest: SmolStr,
    /// Static policies in the order of the bundle, each with the id to show.
    pub policies: Vec<(SmolStr, cedar_policy::Policy)>,
    /// The schema, actions in it; absent only where the caller gives the whole context.
    pub schema: Option<cedar_policy::Schema>,
    /// Entities, with the schema's actions among them.
    pub entities: cedar_policy::Entities,
    /// HTTP routes.
    pub routes: Option<crate::routes::RouteTable>,
    /// What was approved, if anything.
    pub baselines: Option<Kept>,
}

/// See the module.
#[derive(Debug)]
pub struct Snapshot {
    settings: Settings,
    digest: SmolStr,
    expires_ms: Option<i64>,
    policies: Box<[Policy]>,
    requirements: Box<[(SmolStr, Requirement)]>,
    declared: Declared,
    index: ScopeIndex,
    world: World,
    layout: ContextLayout,
    reads_behavior: bool,
    approvals: Approvals,
    /// By name; the place is the counter's number.
    counters: Box<[Counter]>,
    types: AHashMap<SmolStr, TypeName>,
    /// By id.
    actions: Box<[Arc<Action>]>,
    /// Places in `actions`, by type name and id.
    named_actions: AHashMap<SmolStr, AHashMap<SmolStr, usize>>,
    routes: Option<crate::routes::RouteTable>,
}

impl Snapshot {
    /// Compiles a bundle whose context Cardea gathers.
    ///
    /// # Errors
    /// Annotations and context attributes that Cardea cannot honour.
    pub fn gathered(parts: Parts) -> Result<Self, Vec<Fault>> {
        let whole = parts.policies.iter().find(|(_, policy)| Condition::reads_whole_context(policy));
        if let Some((id, _)) = whole {
            return Err(vec![
                Fault::of(
                    &rules::WHOLE_CONTEXT,
                    "policies",
                    format!("policy `{id}` reads `context` as a whole"),
                )
                .of_policy(id),
            ]);
        }
        Self::compile(parts, ContextLayout::Gathered)
    }

    /// Compiles policies whose whole context the caller gives, as in Cedar itself.
    ///
    /// # Errors
    /// Annotations that Cardea cannot honour.
    pub fn given(parts: Parts) -> Result<Self, Vec<Fault>> {
        Self::compile(parts, ContextLayout::Given)
    }

    fn compile(parts: Parts, layout: ContextLayout) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let world = World::new(parts.entities);
        let index = ScopeIndex::new(parts.policies.iter().map(|(_, policy)| policy), &world);
        let requirements: Box<[(SmolStr, Requirement)]> =
            parts.settings.step_up.clone().into_iter().collect();
        let mut declared = Declared::of(&parts.settings);
        let mut interned = Interned::default();
        let counters = &parts.settings.counters;
        let counted_by: Vec<&str> = counters.keys().map(SmolStr::as_str).collect();
        let levels = (layout == ContextLayout::Gathered).then_some(&parts.settings.risk);
        let policies: Box<[Policy]> = parts
            .policies
            .iter()
            .map(|(id, policy)| {
                let mut condition = Condition::of(policy, layout, &counted_by);
                condition.intern(&mut interned, levels);
                let effects = declared.effects(id, policy, policy.effect() == Effect::Forbid, &mut faults);
                Policy { effects, ..annotated(id.clone(), policy, condition, &requirements, &mut faults) }
            })
            .collect();
        faults.extend(too_many_dry_runs(&policies));
        let mut types = AHashMap::new();
        let mut actions = Vec::new();
        let mut named_actions: AHashMap<SmolStr, AHashMap<SmolStr, usize>> = AHashMap::new();
        if let Some(schema) = &parts.schema {
            types.extend(schema.entity_types().map(|name| (name.to_string().into(), TypeName::from(name))));
            for (number, action) in engine::action_types(schema).into_iter().enumerate() {
                let type_text = SmolStr::from(action.action.type_text());
                types.insert(type_text.clone(), action.action.type_name());
                named_actions.entry(type_text).or_default().insert(action.action.id().into(), number);
                actions.push(Arc::new(action::compiled(
                    number,
                    action,
                    layout,
                    &parts.settings,
                    &mut faults,
                )));
            }
        }
        faults.extend(action::classes_of_nothing(&parts.settings, &actions));
        let behavior = &parts.settings.behavior;
        faults.extend(action::counters_of_nothing(&parts.settings, &actions));
        let counters = counters.iter().map(|(name, counter)| counter.compile(name)).collect();
        let approvals =
            Approvals::compile(parts.baselines.as_ref(), behavior).map_err(|fault| faults.push(fault)).ok();
        let Some(approvals) = approvals.filter(|_| faults.is_empty()) else { return Err(faults) };
        let reads_behavior = policies.iter().any(|policy| policy.condition.needs.reads_any(Group::Behavior));
        let Parts { settings, digest, routes, .. } = parts;
        let actions = actions.into_boxed_slice();
        Ok(Self {
            settings,
            digest,
            expires_ms: None,
            policies,
            requirements,
            declared,
            index,
            world,
            layout,
            reads_behavior,
            approvals,
            counters,
            types,
            actions,
            named_actions,
            routes,
        })
    }

    /// The same snapshot as the bundle that its manifest says it is.
    #[must_use]
    pub fn identified(mut self, manifest: &Manifest, digest: Digest) -> Self {
        self.settings.revision = manifest.revision;
        self.digest = digest.to_string().into();
        self.expires_ms = manifest.expires.map(Stamp::unix_ms);
        self
    }

    /// First instant at which the bundle is stale, Unix milliseconds.
    #[must_use]
    pub fn expires_ms(&self) -> Option<i64> {
        self.expires_ms
    }

    /// Looks up what a first decision would, so that it finds its memory near: every action for some of the entities.
    pub fn warm(&self) {
        const ENTITIES_MAX: usize = 256;
        let entities: Vec<Uid> = self.world.uids().take(ENTITIES_MAX).collect();
        for action in &self.actions {
            for (principal, resource) in entities.iter().zip(entities.iter().rev()) {
                std::hint::black_box(self.candidates(principal, &action.uid, resource));
            }
        }
    }

    /// Whether the bundle is past its end.
    #[must_use]
    pub fn is_stale(&self, wall_ms: i64) -> bool {
        self.expires_ms.is_some_and(|end| end <= wall_ms)
    }

    /// `bundle.toml`.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether an erroring policy is skipped, as Cedar does.
    #[must_use]
    pub fn skips_errors(&self) -> bool {
        self.settings.on_policy_error == OnPolicyError::Skip
    }

    /// SHA-256 of the bundle, lower-case hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &SmolStr {
        &self.digest
    }

    /// All policies, in the order of the bundle.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// One policy.
    #[must_use]
    pub fn policy(&self, index: PolicyIndex) -> Option<&Policy> {
        self.policies.get(usize::try_from(index).ok()?)
    }

    /// One step-up requirement and its name.
    #[must_use]
    pub fn requirement(&self, index: u16) -> Option<&(SmolStr, Requirement)> {
        self.requirements.get(usize::from(index))
    }

    /// Labels and responses.
    #[must_use]
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// The policies in dry run, in the order of the bundle.
    pub fn dry_runs(&self) -> impl Iterator<Item = (PolicyIndex, &Policy)> {
        (0..).zip(&self.policies).filter(|(_, policy)| policy.is_dry_run())
    }

    /// The policies that can matter to a question.
    #[must_use]
    pub fn candidates(&self, principal: &Uid, action: &Uid, resource: &Uid) -> Candidates {
        self.index.candidates(principal, action, resource)
    }

    /// The facts that these policies read of an attempt at this action.
    #[must_use]
    pub fn needs(&self, candidates: &[PolicyIndex], action: &Action) -> Needs {
        let all = candidates.iter().filter_map(|index| self.policy(*index));
        all.fold(Needs::default(), |needs, policy| needs.with(policy.condition.needs)).within(action.groups)
    }

    /// The entities.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Who makes the context.
    #[must_use]
    pub fn layout(&self) -> ContextLayout {
        self.layout
    }

    /// Whether any policy reads what sessions did so far, so that no attempt in a session may pass unseen.
    #[must_use]
    pub fn reads_behavior(&self) -> bool {
        self.reads_behavior
    }

    /// What was approved.
    #[must_use]
    pub fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// What is counted, in the order of the counters' numbers.
    #[must_use]
    pub fn counters(&self) -> &[Counter] {
        &self.counters
    }

    /// One counter.
    #[must_use]
    pub fn counter(&self, number: u8) -> Option<&Counter> {
        self.counters.get(usize::from(number))
    }

    /// The entity type of that name, if the schema has it.
    #[must_use]
    pub fn type_name(&self, name: &str) -> Option<&TypeName> {
        self.types.get(name)
    }

    /// The action `Type::"id"`, if the schema has it.
    #[must_use]
    pub fn action(&self, type_name: &str, id: &str) -> Option<&Arc<Action>> {
        let type_name = if type_name.is_empty() { "Action" } else { type_name };
        self.actions.get(*self.named_actions.get(type_name)?.get(id)?)
    }

    /// Every action, by id.
    #[must_use]
    pub fn actions(&self) -> &[Arc<Action>] {
        &self.actions
    }

    /// HTTP routes.
    #[must_use]
    pub fn routes(&self) -> Option<&crate::routes::RouteTable> {
        self.routes.as_ref()
    }
}

fn annotated(
    id: SmolStr,
    policy: &cedar_policy::Policy,
    condition: Condition,
    requirements: &[(SmolStr, Requirement)],
    faults: &mut Vec<Fault>,
) -> Policy {
    let forbids = policy.effect() == Effect::Forbid;
    let text = |key: &str| engine::annotation(policy, key).filter(|text| !text.is_empty()).map(SmolStr::new);
    let step_up = engine::annotation(policy, "step_up").and_then(|name| {
        if !forbids {
            faults.push(
                Fault::of(&rules::STEP_UP_ON_PERMIT, "policies", format!("permit `{id}` carries `@step_up`"))
                    .of_policy(&id),
            );
        }
        let place = requirements.iter().position(|(declared, _)| declared == name);
        if place.is_none() {
            faults.push(
                Fault::of(
                    &rules::STEP_UP_UNDECLARED,
                    "policies",
                    format!("policy `{id}` asks for step-up `{name}`, which is not declared"),
                )
                .of_policy(&id)
                .help(format!("add `[step_up.{name}]` to bundle.toml")),
            );
        }
        place.and_then(|place| u16::try_from(place).ok())
    });
    let is_durable = match engine::annotation(policy, "audit") {
        None => false,
        Some("durable") => true,
        Some(other) => {
            let message =
                format!("policy `{id}` carries `@audit({other:?})`, and only \"durable\" means something");
            faults.push(Fault::of(&rules::AUDIT_UNKNOWN, "policies", message).of_policy(&id));
            true
        }
    };
    Policy {
        is_durable,
        forbids,
        condition,
        reason: text("reason"),
        step_up,
        obligation: text("obligation"),
        severity: text("severity"),
        effects: None,
        id,
    }
}

fn too_many_dry_runs(policies: &[Policy]) -> Option<Fault> {
    let count = policies.iter().filter(|policy| policy.is_dry_run()).count();
    (count > DRY_RUNS_MAX).then(|| {
        let message = format!("{count} policies are in dry run, and at most {DRY_RUNS_MAX} can be");
        Fault::of(&rules::TOO_MANY_DRY_RUNS, "policies", message)
    })
}
