//! What a bundle's schema says of its routes.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::Schema;
use smol_str::SmolStr;

use crate::engine::{self, ActionTypes};
use crate::routes::{ContextField, FieldType, Route, SchemaCheck};
use crate::shape::{Field, Shape};

pub(super) struct RouteSchema {
    types: BTreeSet<String>,
    actions: Vec<ActionTypes>,
    /// Types that callers can have.
    callers: BTreeSet<String>,
}

impl RouteSchema {
    pub(super) fn new(schema: &Schema) -> Self {
        Self {
            types: schema.entity_types().map(ToString::to_string).collect(),
            actions: engine::action_types(schema),
            callers: BTreeSet::new(),
        }
    }

    fn action(&self, route: &Route) -> Option<&ActionTypes> {
        let named = route.action();
        self.actions.iter().find(|types| {
            types.action.id() == named.id && types.action.type_text() == named.action_type.as_str()
        })
    }
}

fn record(shape: &Shape) -> Option<&BTreeMap<SmolStr, Field>> {
    if let Shape::Record(fields) = shape { Some(fields) } else { None }
}

/// Fields that an attempt at the action must carry.
fn required(types: &ActionTypes) -> impl Iterator<Item = &SmolStr> {
    let request = record(&types.context).and_then(|context| context.get("request"));
    let fields = request.and_then(|request| record(&request.shape));
    fields.into_iter().flatten().filter(|(_, field)| field.required).map(|(name, _)| name)
}

impl SchemaCheck for RouteSchema {
    fn principal_type(&mut self, entity_type: &str) -> Result<(), String> {
        match self.types.contains(entity_type) {
            true => {
                self.callers.insert(entity_type.to_owned());
                Ok(())
            }
            false => Err(format!("`{entity_type}` is not an entity type of the schema")),
        }
    }

    fn route(&mut self, route: &Route) -> Result<(), String> {
        let Some(types) = self.action(route) else {
            return Err(format!("action `{}` is not in the schema", route.action().id));
        };
        let resource = route.resource_type();
        let action = &route.action().id;
        if !self.callers.is_empty()
            && !types.principals.iter().any(|name| self.callers.contains(&name.to_string()))
        {
            return Err(format!("action `{action}` applies to no type that `[identity]` gives to callers"));
        }
        let unfilled = required(types).find(|name| !route.context().iter().any(|field| field.name == **name));
        if let Some(name) = unfilled {
            return Err(format!(
                "action `{action}` needs `{name}`, which the route's `context` does not fill"
            ));
        }
        match types.resources.iter().any(|name| name.to_string() == resource.as_str()) {
            true => Ok(()),
            false => Err(format!(
                "action `{}` does not apply to resources of type `{resource}`",
                route.action().id
            )),
        }
    }

    fn field(&mut self, route: &Route, field: &ContextField) -> Result<FieldType, String> {
        let name = &field.name;
        let context = self.action(route).and_then(|types| record(&types.context));
        let request = context.and_then(|context| context.get("request"));
        let declared = request.and_then(|request| record(&request.shape)?.get(name));
        let Some(declared) = declared else {
            return Err(format!("`{name}` is not in the action's `context.request`"));
        };
        if declared.required && !field.source.always_present() {
            return Err(format!(
                "a request may lack `{name}`: declare it optional, `{name}?`, and guard it with `has`"
            ));
        }
        match &declared.shape {
            Shape::String => Ok(FieldType::String),
            Shape::Long => Ok(FieldType::Long),
            Shape::Bool => Ok(FieldType::Bool),
            other @ (Shape::Entity(_)
            | Shape::Set(_)
            | Shape::Record(_)
            | Shape::Extension(_)
            | Shape::Never) => {
                Err(format!("`{name}` is {}; text gives String, Long or Bool", other.describe()))
            }
        }
    }
}
