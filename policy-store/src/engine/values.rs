//! Ids, values and records of Cedar's data model, cheap to clone and to make.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use cedar_policy::{EntityTypeName, EntityUid};
use cedar_policy_core::ast::{self, BorrowedRestrictedExpr, Context, Eid, EntityType, ExprKind, Literal};
use cedar_policy_core::evaluator::RestrictedEvaluator;
use cedar_policy_core::extensions::Extensions;
use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::fragment::FactValue;
use crate::shape::Shape;

/// An entity id, `Type::"id"`. Cloning is one reference count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uid(pub(super) Arc<ast::EntityUID>);

impl Uid {
    /// Builds an id from an interned type name: no parsing.
    #[must_use]
    pub fn new(type_name: &TypeName, id: &str) -> Self {
        Self(Arc::new(ast::EntityUID::from_components(type_name.0.clone(), Eid::new(id), None)))
    }

    /// The type's full name, as text. Allocates; not for the hot path.
    #[must_use]
    pub fn type_text(&self) -> String {
        self.with_type_text(str::to_owned)
    }

    /// Shows the type's full name. Allocates only where it has a namespace.
    pub fn with_type_text<T>(&self, show: impl FnOnce(&str) -> T) -> T {
        let name: &ast::InternalName = self.0.entity_type().name().as_ref();
        if name.namespace_components().next().is_none() {
            return show(name.basename().as_ref());
        }
        show(&name.to_string())
    }

    /// The type.
    #[must_use]
    pub fn type_name(&self) -> TypeName {
        TypeName(self.0.entity_type().clone())
    }

    /// Whether the entity is of this type.
    #[must_use]
    pub fn is(&self, type_name: &TypeName) -> bool {
        *self.0.entity_type() == type_name.0
    }

    /// The id without its type, unescaped.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.eid().as_ref()
    }
}

impl Hash for Uid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&EntityUid> for Uid {
    fn from(uid: &EntityUid) -> Self {
        // Without the place in the source, which every value read from it would carry along.
        let core: &ast::EntityUID = uid.as_ref();
        Self(Arc::new(ast::EntityUID::from_components(core.entity_type().clone(), core.eid().clone(), None)))
    }
}

impl From<&Uid> for EntityUid {
    fn from(uid: &Uid) -> Self {
        Self::from((*uid.0).clone())
    }
}

/// The name of an entity type. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeName(pub(super) EntityType);

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&EntityTypeName> for TypeName {
    fn from(name: &EntityTypeName) -> Self {
        let core: &EntityType = name.as_ref();
        Self(core.clone())
    }
}

/// One value of Cedar's data model. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(pub(super) ast::Value);

impl Value {
    /// A set; order and repetition do not matter.
    pub fn set(values: impl IntoIterator<Item = Self>) -> Self {
        Self(ast::Value::set(values.into_iter().map(|value| value.0), None))
    }

    /// A set of strings.
    pub fn strings<S: Into<SmolStr>>(values: impl IntoIterator<Item = S>) -> Self {
        Self(ast::Value::set_of_lits(values.into_iter().map(|text| Literal::String(text.into())), None))
    }

    /// An extension value from its constructor (`decimal`, `ip`, `datetime`, `duration`) and its text.
    ///
    /// # Errors
    /// When the constructor does not take the text.
    pub fn extension(constructor: Extension, text: &str) -> Result<Self, BadValue> {
        let expression = match constructor {
            Extension::Decimal => cedar_policy::RestrictedExpression::new_decimal(text),
            Extension::Ip => cedar_policy::RestrictedExpression::new_ip(text),
            Extension::Datetime => cedar_policy::RestrictedExpression::new_datetime(text),
            Extension::Duration => cedar_policy::RestrictedExpression::new_duration(text),
        };
        let core: &ast::RestrictedExpr = expression.as_ref();
        let borrowed: BorrowedRestrictedExpr<'_> = core.as_borrowed();
        RestrictedEvaluator::new(Extensions::all_available())
            .interpret(borrowed)
            .map(Self)
            .map_err(|error| BadValue(error.to_string()))
    }

    /// A `datetime` from milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn datetime(unix_ms: i64) -> Self {
        static EPOCH: LazyLock<Option<Value>> =
            LazyLock::new(|| Value::extension(Extension::Datetime, "1970-01-01").ok());
        let offset = Self::extension(Extension::Duration, &format!("{unix_ms}ms")).ok();
        let shifted = EPOCH.clone().zip(offset).and_then(|(epoch, offset)| {
            let name = ast::Name::parse_unqualified_name("offset").ok()?;
            let function = Extensions::all_available().func(&name).ok()?;
            match function.call(&[epoch.0, offset.0]).ok()? {
                ast::PartialValue::Value(value) => Some(Self(value)),
                ast::PartialValue::Residual(_) => None,
            }
        });
        // Only a time outside Cedar's range gets here; a value of another type makes the policy error.
        shifted.unwrap_or_else(|| Self::from(false))
    }

    /// The value taken apart, for whoever writes it down. Not for the hot path.
    #[must_use]
    pub fn plain(&self) -> Plain {
        match self.0.value_kind() {
            ast::ValueKind::Lit(Literal::Bool(value)) => Plain::Bool(*value),
            ast::ValueKind::Lit(Literal::Long(value)) => Plain::Long(*value),
            ast::ValueKind::Lit(Literal::String(text)) => Plain::String(text.clone()),
            ast::ValueKind::Lit(Literal::EntityUID(uid)) => Plain::Entity(Uid(Arc::clone(uid))),
            ast::ValueKind::Set(set) => Plain::Set(set.iter().cloned().map(Self).collect()),
            ast::ValueKind::Record(fields) => Plain::Record(Record(Arc::clone(fields))),
            ast::ValueKind::ExtensionValue(value) => match value.typename().to_string().as_str() {
                "datetime" => Plain::Datetime(self.milliseconds().unwrap_or_default()),
                "duration" => Plain::Duration(self.milliseconds().unwrap_or_default()),
                "decimal" => Plain::Decimal(self.constructed_from().unwrap_or_default()),
                _ => Plain::Ip(self.constructed_from().unwrap_or_default()),
            },
        }
    }

    /// Of a `datetime` since 1970, of a `duration` its length.
    pub(super) fn milliseconds(&self) -> Option<i64> {
        let call = |name: &str, of: &[ast::Value]| {
            let name = ast::Name::parse_unqualified_name(name).ok()?;
            match Extensions::all_available().func(&name).ok()?.call(of).ok()? {
                ast::PartialValue::Value(value) => Some(value),
                ast::PartialValue::Residual(_) => None,
            }
        };
        let is_datetime = matches!(self.0.value_kind(), ast::ValueKind::ExtensionValue(value)
            if value.typename().to_string() == "datetime");
        let duration = match is_datetime {
            true => call("durationSince", &[self.0.clone(), Self::datetime(0).0])?,
            false => self.0.clone(),
        };
        match call("toMilliseconds", &[duration])?.value_kind() {
            ast::ValueKind::Lit(Literal::Long(ms)) => Some(*ms),
            ast::ValueKind::Lit(_)
            | ast::ValueKind::Set(_)
            | ast::ValueKind::Record(_)
            | ast::ValueKind::ExtensionValue(_) => None,
        }
    }

    /// The text that an extension value's constructor takes to make it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a constructor's call is the only kind that is looked for"
    )]
    fn constructed_from(&self) -> Option<SmolStr> {
        let expression = ast::RestrictedExpr::from(self.0.clone());
        match expression.expr_kind() {
            ExprKind::ExtensionFunctionApp { args, .. } => match args.first()?.expr_kind() {
                ExprKind::Lit(Literal::String(text)) => Some(text.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the value has the shape that a schema asks for.
    #[must_use]
    pub(crate) fn fits(&self, shape: &Shape) -> bool {
        fits(&self.0, shape)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self(value.into())
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self(value.into())
    }
}

impl From<SmolStr> for Value {
    fn from(value: SmolStr) -> Self {
        Self(ast::Value::new(Literal::String(value), None))
    }
}

impl From<FactValue> for Value {
    fn from(value: FactValue) -> Self {
        match value {
            FactValue::Bool(value) => value.into(),
            FactValue::Long(value) => value.into(),
            FactValue::Text(value) => value.into(),
            FactValue::Texts(values) => Self::strings(values),
        }
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::from(SmolStr::new(value))
    }
}

impl From<&Uid> for Value {
    fn from(uid: &Uid) -> Self {
        Self(ast::Value::new(Literal::EntityUID(Arc::clone(&uid.0)), None))
    }
}

impl From<Record> for Value {
    fn from(record: Record) -> Self {
        Self(ast::Value::record_arc(record.0, None))
    }
}

/// A value of Cedar's data model, taken apart by [`Value::plain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    /// `Bool`
    Bool(bool),
    /// `Long`
    Long(i64),
    /// `String`
    String(SmolStr),
    /// An entity.
    Entity(Uid),
    /// A set.
    Set(Vec<Value>),
    /// A record.
    Record(Record),
    /// `decimal`, as its constructor takes it.
    Decimal(SmolStr),
    /// `ipaddr`, as its constructor takes it.
    Ip(SmolStr),
    /// `datetime`, milliseconds since 1970-01-01T00:00:00Z.
    Datetime(i64),
    /// `duration`, milliseconds.
    Duration(i64),
}

/// Cedar's extension types, by their constructors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// `decimal`
    Decimal,
    /// `ipaddr`
    Ip,
    /// `datetime`
    Datetime,
    /// `duration`
    Duration,
}

impl Extension {
    /// The type's name in a schema.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Decimal => "decimal",
            Self::Ip => "ipaddr",
            Self::Datetime => "datetime",
            Self::Duration => "duration",
        }
    }
}

/// A text that an extension constructor does not take.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(String);

/// Named values. Cloning is one reference count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record(pub(super) Arc<BTreeMap<SmolStr, ast::Value>>);

impl Record {
    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One field's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        self.0.get(name).cloned().map(Value)
    }

    /// The texts of a field: itself if it is one, those in it if it is a set. Borrowed: for the hot path.
    pub fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let (one, several) = match self.0.get(name).map(ast::Value::value_kind) {
            Some(ast::ValueKind::Lit(Literal::String(text))) => (Some(text.as_str()), None),
            Some(ast::ValueKind::Set(set)) => (None, Some(set.iter().filter_map(text))),
            None
            | Some(ast::ValueKind::Lit(_) | ast::ValueKind::Record(_) | ast::ValueKind::ExtensionValue(_)) => {
                (None, None)
            }
        };
        one.into_iter().chain(several.into_iter().flatten())
    }

    /// The texts of a field however deep they lie in it, in no order that means anything. Borrowed: for the hot path.
    pub fn texts_within(&self, name: &str) -> impl Iterator<Item = &str> {
        let mut left: SmallVec<[&ast::Value; 4]> = self.0.get(name).into_iter().collect();
        std::iter::from_fn(move || {
            loop {
                match left.pop()?.value_kind() {
                    ast::ValueKind::Lit(Literal::String(text)) => return Some(text.as_str()),
                    ast::ValueKind::Set(set) => left.extend(set.iter()),
                    ast::ValueKind::Record(record) => left.extend(record.values()),
                    ast::ValueKind::Lit(_) | ast::ValueKind::ExtensionValue(_) => {}
                }
            }
        })
    }

    /// Whether the field is a record with an attribute of that name that is true.
    #[must_use]
    pub fn flag(&self, field: &str, name: &str) -> bool {
        let is_true =
            |value: &ast::Value| matches!(value.value_kind(), ast::ValueKind::Lit(Literal::Bool(true)));
        match self.0.get(field).map(ast::Value::value_kind) {
            Some(ast::ValueKind::Record(record)) => record.get(name).is_some_and(is_true),
            None
            | Some(ast::ValueKind::Lit(_) | ast::ValueKind::Set(_) | ast::ValueKind::ExtensionValue(_)) => {
                false
            }
        }
    }

    /// The fields, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&SmolStr, Value)> {
        self.0.iter().map(|(name, value)| (name, Value(value.clone())))
    }

    /// Takes over a context that Cedar's public API has read.
    #[must_use]
    pub fn from_context(context: &cedar_policy::Context) -> Option<Self> {
        let core: &Context = context.as_ref();
        match core {
            Context::Value(fields) => Some(Self(Arc::clone(fields))),
            Context::RestrictedResidual(_) => None,
        }
    }
}

impl<N: Into<SmolStr>> FromIterator<(N, Value)> for Record {
    fn from_iter<I: IntoIterator<Item = (N, Value)>>(fields: I) -> Self {
        Self(Arc::new(fields.into_iter().map(|(name, value)| (name.into(), value.0)).collect()))
    }
}

fn text(value: &ast::Value) -> Option<&str> {
    match value.value_kind() {
        ast::ValueKind::Lit(Literal::String(text)) => Some(text),
        ast::ValueKind::Lit(_)
        | ast::ValueKind::Set(_)
        | ast::ValueKind::Record(_)
        | ast::ValueKind::ExtensionValue(_) => None,
    }
}

fn fits(value: &ast::Value, shape: &Shape) -> bool {
    match (value.value_kind(), shape) {
        (ast::ValueKind::Lit(Literal::Bool(_)), Shape::Bool)
        | (ast::ValueKind::Lit(Literal::Long(_)), Shape::Long)
        | (ast::ValueKind::Lit(Literal::String(_)), Shape::String) => true,
        (ast::ValueKind::Lit(Literal::EntityUID(uid)), Shape::Entity(name)) => *uid.entity_type() == name.0,
        (ast::ValueKind::Set(set), Shape::Set(element)) => set.iter().all(|value| fits(value, element)),
        (ast::ValueKind::Record(fields), Shape::Record(shapes)) => {
            fields.iter().all(|(name, value)| shapes.get(name).is_some_and(|field| fits(value, &field.shape)))
                && shapes.iter().all(|(name, field)| !field.required || fields.contains_key(name))
        }
        (ast::ValueKind::ExtensionValue(value), Shape::Extension(extension)) => {
            value.typename().to_string() == extension.type_name()
        }
        _ => false,
    }
}
