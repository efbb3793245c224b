//! What an enforcement point sends, written in YAML and read by the schema: `Type::"id"` is an entity where the
//! schema has one, and a text where it has a text.

use std::collections::BTreeMap;

use cardea_policy_store::engine::Extension;
use cardea_policy_store::shape::Shape;
use cardea_policy_store::snapshot::{Action, Snapshot};
use cardea_proto::v1;
use cardea_proto::v1::value::Kind;
use serde_json::Value;

use super::words::{Named, Span};
use crate::doors::told::timestamp;

/// The fields of a request as the wire says them.
///
/// # Errors
/// A field that the schema does not have, or that is written as another type.
pub(super) fn fields(
    written: &BTreeMap<String, Value>,
    action: &Action,
    snapshot: &Snapshot,
) -> Result<BTreeMap<String, v1::Value>, String> {
    let read = |(name, value): (&String, &Value)| {
        let Some(shape) = action.request_field(name) else {
            let known: Vec<String> = action.request_fields().map(|name| format!("`{name}`")).collect();
            let known = if known.is_empty() { "it has none".to_owned() } else { known.join(", ") };
            let id = action.uid.id();
            return Err(format!("the request of action `{id}` has no field `{name}` in the schema; {known}"));
        };
        match value_of(value, shape, snapshot) {
            Some(value) => Ok((name.clone(), value)),
            None => Err(format!("request field `{name}` must be written as {}", shape.describe())),
        }
    };
    written.iter().map(read).collect()
}

/// A value that says nothing in particular: for required fields that nobody filled.
pub(super) fn neutral(shape: &Shape) -> v1::Value {
    let kind = match shape {
        Shape::Bool => Kind::Bool(false),
        Shape::Long => Kind::Long(0),
        Shape::String | Shape::Never => Kind::String(String::new()),
        Shape::Entity(name) => {
            Kind::Entity(v1::EntityRef { r#type: name.to_string(), id: super::matrix::STRANGER.to_owned() })
        }
        Shape::Set(_) => Kind::Set(v1::ValueSet::default()),
        Shape::Record(fields) => Kind::Record(v1::ValueRecord {
            fields: fields
                .iter()
                .filter(|(_, field)| field.required)
                .map(|(name, field)| (name.to_string(), neutral(&field.shape)))
                .collect(),
        }),
        Shape::Extension(Extension::Decimal) => Kind::Decimal("0.0".to_owned()),
        Shape::Extension(Extension::Ip) => Kind::Ip("0.0.0.0".to_owned()),
        Shape::Extension(Extension::Datetime) => Kind::Datetime(timestamp(0)),
        Shape::Extension(Extension::Duration) => Kind::Duration(prost_types::Duration::default()),
    };
    v1::Value { kind: Some(kind) }
}

/// `None` where the value is not written as the shape asks.
fn value_of(written: &Value, shape: &Shape, snapshot: &Snapshot) -> Option<v1::Value> {
    let kind = match (shape, written) {
        (Shape::Bool, Value::Bool(value)) => Kind::Bool(*value),
        (Shape::Long, Value::Number(number)) => Kind::Long(number.as_i64()?),
        (Shape::String, Value::String(text)) => Kind::String(text.clone()),
        (Shape::Entity(wanted), Value::String(text)) => {
            let named: Named = text.parse().ok()?;
            (snapshot.type_name(&named.type_name)? == wanted).then(|| Kind::Entity(named.reference()))?
        }
        (Shape::Set(element), Value::Array(values)) => {
            let values: Option<_> = values.iter().map(|value| value_of(value, element, snapshot)).collect();
            Kind::Set(v1::ValueSet { values: values? })
        }
        (Shape::Record(shapes), Value::Object(fields)) => {
            let field = |(name, value): (&String, &Value)| {
                Some((name.clone(), value_of(value, &shapes.get(name.as_str())?.shape, snapshot)?))
            };
            Kind::Record(v1::ValueRecord { fields: fields.iter().map(field).collect::<Option<_>>()? })
        }
        (Shape::Extension(extension), Value::String(text)) => match extension {
            Extension::Decimal => Kind::Decimal(text.clone()),
            Extension::Ip => Kind::Ip(text.clone()),
            Extension::Datetime => {
                Kind::Datetime(timestamp(text.parse::<jiff::Timestamp>().ok()?.as_millisecond()))
            }
            Extension::Duration => {
                let ms = text.parse::<Span>().ok()?.ms;
                let nanos = i32::try_from(ms % 1000).ok()? * 1_000_000;
                Kind::Duration(prost_types::Duration { seconds: ms / 1000, nanos })
            }
        },
        _ => return None,
    };
    Some(v1::Value { kind: Some(kind) })
}
