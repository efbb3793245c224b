//! The shape that a schema gives to values, in the form that checks them fastest.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use crate::engine::{Extension, TypeName};

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `Bool`
    Bool,
    /// `Long`
    Long,
    /// `String`
    String,
    /// An entity of that type.
    Entity(TypeName),
    /// A set of such values.
    Set(Box<Self>),
    /// A record of such fields and no others.
    Record(BTreeMap<SmolStr, Field>),
    /// An extension type.
    Extension(Extension),
    /// A type that no value from outside can have.
    Never,
}

/// One field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The value's type.
    pub shape: Shape,
    /// Whether the field must be there.
    pub required: bool,
}

impl Shape {
    /// The type as a schema writes it.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Bool => "Bool".into(),
            Self::Long => "Long".into(),
            Self::String => "String".into(),
            Self::Entity(name) => name.to_string(),
            Self::Set(element) => format!("Set<{}>", element.describe()),
            Self::Record(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(name, field)| {
                        format!("{name}{}: {}", if field.required { "" } else { "?" }, field.shape.describe())
                    })
                    .collect();
                format!("{{ {} }}", fields.join(", "))
            }
            Self::Extension(extension) => extension.type_name().into(),
            Self::Never => "nothing".into(),
        }
    }
}
