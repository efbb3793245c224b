//! What a schema says of its actions.

use std::collections::BTreeMap;
use std::sync::Arc;

use cedar_policy::Schema;
use cedar_policy_core::ast;
use cedar_policy_core::validator::types::{EntityKind, Type};

use super::{Extension, TypeName, Uid};
use crate::shape::Shape;

/// What a schema says of one action: to whom and what it applies, and its context's attributes.
#[derive(Clone, Debug)]
pub struct ActionTypes {
    /// The action.
    pub action: Uid,
    /// Types of principals that it applies to.
    pub principals: Vec<TypeName>,
    /// Types of resources that it applies to.
    pub resources: Vec<TypeName>,
    /// The context, a record.
    pub context: Shape,
}

/// Every action of a schema, ordered by id.
#[must_use]
pub fn action_types(schema: &Schema) -> Vec<ActionTypes> {
    let core: &cedar_policy_core::validator::ValidatorSchema = schema.as_ref();
    let mut actions: Vec<ActionTypes> = core
        .action_ids()
        .map(|action| ActionTypes {
            action: Uid(Arc::new(ast::EntityUID::from_components(
                action.name().entity_type().clone(),
                action.name().eid().clone(),
                None,
            ))),
            principals: action.applies_to_principals().cloned().map(TypeName).collect(),
            resources: action.applies_to_resources().cloned().map(TypeName).collect(),
            context: action.context_type().map_or(Shape::Record(BTreeMap::new()), shape),
        })
        .collect();
    actions.sort_by(|a, b| a.action.cmp(&b.action));
    actions
}

pub(super) fn shape(of: &Type) -> Shape {
    use crate::shape::Field;
    match of {
        Type::Bool(_) => Shape::Bool,
        Type::Long => Shape::Long,
        Type::String => Shape::String,
        Type::Entity(EntityKind::Entity(bound)) => {
            bound.get_single_entity().map_or(Shape::Never, |name| Shape::Entity(TypeName(name.clone())))
        }
        Type::Set { element_type: Some(element) } => Shape::Set(Box::new(shape(element))),
        Type::Record { attrs, .. } => Shape::Record(
            attrs
                .iter()
                .map(|(name, attr)| {
                    let field = Field { shape: shape(&attr.attr_type), required: attr.is_required };
                    (name.clone(), field)
                })
                .collect(),
        ),
        Type::ExtensionType { name } => match name.to_string().as_str() {
            "decimal" => Shape::Extension(Extension::Decimal),
            "ipaddr" => Shape::Extension(Extension::Ip),
            "datetime" => Shape::Extension(Extension::Datetime),
            "duration" => Shape::Extension(Extension::Duration),
            _ => Shape::Never,
        },
        Type::Never | Type::Set { element_type: None } | Type::Entity(EntityKind::AnyEntity) => Shape::Never,
    }
}
