//! A bundle compiled for reading: immutable, swapped whole.
//!
//! Owns everything that one decision needs from policy, so that it can use a single revision throughout.
//! Never does: I/O, change.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;
use cardea_behavior::Kept;
use cedar_policy::Effect;
use smol_str::SmolStr;

use crate::approvals::{Approvals, Monitored};
use crate::counters::Counter;
use crate::digest::Digest;
use crate::engine::{self, ActionTypes, Condition, ContextLayout, Interned, Record, TypeName, Uid, World};
use crate::fault::Fault;
use crate::fragment::{CounterSet, Group, Needs};
use crate::index::{Candidates, PolicyIndex, ScopeIndex};
use crate::lint::rules;
use crate::manifest::Manifest;
use crate::responses::{DRY_RUNS_MAX, Declared, Effects};
use crate::settings::{MaxAges, OnPolicyError, Requirement, Settings, is_named};
use crate::shape::{Field, Shape};
use crate::stamp::Stamp;

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

/// What a schema says of an action.
#[derive(Debug)]
pub struct Action {
    /// Its id.
    pub uid: Uid,
    /// Its place in [`Snapshot::actions`]; none if no schema declares it.
    pub number: Option<usize>,
    principals: Vec<TypeName>,
    resources: Vec<TypeName>,
    groups: Needs,
    request: BTreeMap<SmolStr, Field>,
    max_ages: MaxAges,
    monitored: Monitored,
    counted: CounterSet,
}

impl Action {
    /// An action that no schema describes, where the caller gives the whole context.
    #[must_use]
    pub fn undeclared(uid: Uid) -> Self {
        Self {
            uid,
            number: None,
            principals: Vec::new(),
            resources: Vec::new(),
            groups: Needs::default(),
            request: BTreeMap::new(),
            max_ages: MaxAges::default(),
            monitored: Monitored::default(),
            counted: CounterSet::default(),
        }
    }

    /// Where an attempt at it says whom or what it is done to.
    #[must_use]
    pub fn monitored(&self) -> &Monitored {
        &self.monitored
    }

    /// The counters that attempts at it are counted by.
    #[must_use]
    pub fn counted(&self) -> CounterSet {
        self.counted
    }

    /// How old facts may be for it: its class's maxima over the bundle's.
    #[must_use]
    pub fn max_ages(&self) -> MaxAges {
        self.max_ages
    }

    /// Whether it applies to principals and resources of these types.
    #[must_use]
    pub fn applies(&self, principal: &Uid, resource: &Uid) -> bool {
        self.principals.iter().any(|name| principal.is(name))
            && self.resources.iter().any(|name| resource.is(name))
    }

    /// The shape of one field of `context.request`.
    #[must_use]
    pub fn request_field(&self, name: &str) -> Option<&Shape> {
        self.request.get(name).map(|field| &field.shape)
    }

    /// The names of the fields of `context.request`.
    pub fn request_fields(&self) -> impl Iterator<Item = &SmolStr> {
        self.request.keys()
    }

    /// The fields of `context.request` that must be there.
    pub fn required_fields(&self) -> impl Iterator<Item = (&SmolStr, &Shape)> {
        self.request.iter().filter(|(_, field)| field.required).map(|(name, field)| (name, &field.shape))
    }

    /// Types of the principals that it applies to.
    #[must_use]
    pub fn principals(&self) -> &[TypeName] {
        &self.principals
    }

    /// Types of the resources that it applies to.
    #[must_use]
    pub fn resources(&self) -> &[TypeName] {
        &self.resources
    }

    /// The request without the fields that the schema does not know, the caller's surplus; `None` if there are none.
    #[must_use]
    pub fn without_surplus(&self, request: &Record) -> Option<Record> {
        if request.iter().all(|(name, _)| self.request.contains_key(name)) {
            return None;
        }
        let known = request.iter().filter(|(name, _)| self.request.contains_key(*name));
        Some(known.map(|(name, value)| (name.clone(), value)).collect())
    }

    /// The first field that does not fit the schema, as (name, type that the schema asks for).
    pub fn misfit<'a>(&'a self, request: &Record) -> Option<(&'a str, String)> {
        self.request.iter().find_map(|(name, field)| {
            let fits = match request.get(name) {
                Some(value) => value.fits(&field.shape),
                None => !field.required,
            };
            (!fits).then(|| (name.as_str(), field.shape.describe()))
        })
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
                actions.push(Arc::new(self::action(number, action, layout, &parts.settings, &mut faults)));
            }
        }
        faults.extend(classes_of_nothing(&parts.settings, &actions));
        let behavior = &parts.settings.behavior;
        faults.extend(counters_of_nothing(&parts.settings, &actions));
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
    Policy {
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

fn action(
    number: usize,
    types: ActionTypes,
    layout: ContextLayout,
    settings: &Settings,
    faults: &mut Vec<Fault>,
) -> Action {
    let mut groups = Needs::default();
    let mut request = BTreeMap::new();
    if let (Shape::Record(attributes), ContextLayout::Gathered) = (types.context, layout) {
        for (name, field) in attributes {
            match (Group::named(&name), field.shape) {
                (None, _) => faults.push(
                    Fault::of(
                        &rules::CONTEXT_ATTRIBUTE,
                        "schema.cedarschema",
                        format!("context attribute `{name}` of {} is nobody's", types.action),
                    )
                    .help("what the enforcement point sends belongs under `request: { … }`"),
                ),
                (Some(Group::Request), Shape::Record(fields)) => {
                    request = fields;
                    groups.add_whole(Group::Request);
                }
                (Some(Group::Counters), Shape::Record(fields)) => {
                    groups.add_whole(Group::Counters);
                    groups = groups.counting(counters_of(&fields, &types.action, settings, faults));
                }
                (Some(group), shape) if shape == *group_shape(group) => groups.add_whole(group),
                (Some(group), _) => faults.push(
                    Fault::of(
                        &rules::CONTEXT_ATTRIBUTE,
                        "schema.cedarschema",
                        format!("context attribute `{name}` of {} has another type", types.action),
                    )
                    .help(format!(
                        "declare `{name}: {}`",
                        group.type_name().unwrap_or(match group {
                            Group::Now => "datetime",
                            Group::Counters => "{ NAME: Cardea::Counter }",
                            Group::Session
                            | Group::Risk
                            | Group::Behavior
                            | Group::Task
                            | Group::Token
                            | Group::Actor
                            | Group::Request
                            | Group::Signals => "{ … }",
                        })
                    )),
                ),
            }
        }
    }
    Action {
        max_ages: settings.facts.max_ages(&types.action),
        monitored: settings.behavior.of_action(&types.action, request.keys()),
        counted: counted(&types.action, settings),
        uid: types.action,
        number: Some(number),
        principals: types.principals,
        resources: types.resources,
        groups,
        request,
    }
}

fn too_many_dry_runs(policies: &[Policy]) -> Option<Fault> {
    let count = policies.iter().filter(|policy| policy.is_dry_run()).count();
    (count > DRY_RUNS_MAX).then(|| {
        let message = format!("{count} policies are in dry run, and at most {DRY_RUNS_MAX} can be");
        Fault::of(&rules::TOO_MANY_DRY_RUNS, "policies", message)
    })
}

/// The counters that an action's context declares.
fn counters_of(
    fields: &BTreeMap<SmolStr, Field>,
    action: &Uid,
    settings: &Settings,
    faults: &mut Vec<Fault>,
) -> CounterSet {
    let mut set = CounterSet::default();
    for (name, field) in fields {
        let fault = |message: String, help: String| {
            Fault::of(&rules::CONTEXT_ATTRIBUTE, "schema.cedarschema", message).help(help)
        };
        if field.shape != *group_shape(Group::Counters) {
            faults.push(fault(
                format!("`context.counters.{name}` of {action} has another type"),
                format!("declare `{name}: Cardea::Counter`"),
            ));
        }
        match settings.counters.keys().position(|declared| declared == name).map(u8::try_from) {
            Some(Ok(number)) => set.add(number),
            Some(Err(_)) | None => faults.push(fault(
                format!("context of {action} has counter `{name}`, which bundle.toml does not declare"),
                format!("add `[counters.{name}]` to bundle.toml"),
            )),
        }
    }
    set
}

/// The counters that attempts at an action are counted by.
fn counted(action: &Uid, settings: &Settings) -> CounterSet {
    let mut set = CounterSet::default();
    let counting = settings.counters.values().enumerate().filter(|(_, counter)| counter.counts(action));
    counting.filter_map(|(number, _)| u8::try_from(number).ok()).for_each(|number| set.add(number));
    set
}

/// Patterns of `[counters.NAME]` that fit no action of the schema.
fn counters_of_nothing(settings: &Settings, actions: &[Arc<Action>]) -> Vec<Fault> {
    let uids: Vec<&Uid> = actions.iter().map(|action| &action.uid).collect();
    let idle = settings.counters.iter().flat_map(|(name, counter)| {
        counter.idle_patterns(&uids).into_iter().map(move |pattern| (name, pattern))
    });
    let fault = |(name, pattern): (&SmolStr, &SmolStr)| {
        let message = format!("counter `{name}` counts `{pattern}`, and the schema has no such action");
        Fault::of(&rules::SETTINGS_INVALID, "bundle.toml", message)
            .help("name actions by their ids, as `Type::\"id\"`, or with `*` for anything")
    };
    idle.map(fault).collect()
}

/// Classes of `[[facts.class]]` that name an action which the schema does not have.
fn classes_of_nothing(settings: &Settings, actions: &[Arc<Action>]) -> Vec<Fault> {
    let named = settings.facts.class.iter().flat_map(|class| &class.actions);
    let unknown = named.filter(|name| !actions.iter().any(|action| is_named(&action.uid, name)));
    let fault = |name: &SmolStr| {
        let message = format!("`[[facts.class]]` names action `{name}`, which the schema does not have");
        Fault::of(&rules::SETTINGS_INVALID, "bundle.toml", message)
            .help("name actions by their ids, or as `Type::\"id\"`")
    };
    unknown.map(fault).collect()
}

/// The shape that the fragment gives to a group, to each of the counters in theirs.
fn group_shape(group: Group) -> &'static Shape {
    static SHAPES: std::sync::LazyLock<BTreeMap<SmolStr, Shape>> = std::sync::LazyLock::new(|| {
        let typed = Group::ALL.into_iter().filter_map(|group| Some((group.name(), group.type_name()?)));
        let attributes: Vec<String> = typed.map(|(name, of)| format!("{name}: {of}")).collect();
        let context = format!("{}, now: datetime, counters: Cardea::Counter", attributes.join(", "));
        let text = format!(
            "{}\nentity E; action a appliesTo {{ principal: E, resource: E, context: {{ {context} }} }};",
            crate::fragment::SCHEMA
        );
        let Ok((schema, _)) = cedar_policy::Schema::from_cedarschema_str(&text) else {
            return BTreeMap::new();
        };
        let context = engine::action_types(&schema).into_iter().next().map(|action| action.context);
        match context {
            Some(Shape::Record(fields)) => {
                fields.into_iter().map(|(name, field)| (name, field.shape)).collect()
            }
            _ => BTreeMap::new(),
        }
    });
    SHAPES.get(group.name()).unwrap_or(&Shape::Never)
}
