//! Actions as a decision reads them: what the schema says of each, and what the bundle's settings make of it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use smol_str::SmolStr;

use crate::approvals::Monitored;
use crate::engine::{self, ActionTypes, ContextLayout, Record, TypeName, Uid};
use crate::fault::Fault;
use crate::fragment::{CounterSet, Group, Needs};
use crate::lint::rules;
use crate::settings::{MaxAges, Settings, is_named};
use crate::shape::{Field, Shape};

/// What a schema says of an action.
#[derive(Debug)]
pub struct Action {
    /// Its id.
    pub uid: Uid,
    /// Its place in [`super::Snapshot::actions`]; none if no schema declares it.
    pub number: Option<usize>,
    principals: Vec<TypeName>,
    resources: Vec<TypeName>,
    pub(super) groups: Needs,
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

/// Compiles one; what the schema's context may not have is told.
pub(super) fn compiled(
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
pub(super) fn counters_of_nothing(settings: &Settings, actions: &[Arc<Action>]) -> Vec<Fault> {
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
pub(super) fn classes_of_nothing(settings: &Settings, actions: &[Arc<Action>]) -> Vec<Fault> {
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
    static SHAPES: LazyLock<BTreeMap<SmolStr, Shape>> = LazyLock::new(|| {
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
