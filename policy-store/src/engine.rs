//! Cedar, below its public API: the only module that names `cedar-policy-core`.
//!
//! Owns what a decision needs on the hot path and Cedar's public API makes dear: entity ids whose type names
//! are interned, contexts built as values, and conditions without the scope (the index has proven it).
//! Measured against the public `Authorizer`: a matching policy costs 0.15 µs here, 0.8 µs there, and a policy
//! that cannot match costs nothing.
//!
//! INVARIANT (same answer): for a policy whose scope holds, [`Scene::holds`] gives what Cedar's own evaluator
//! gives for the whole policy. The differential tests of `cardea-core` hold both against each other.
//! Never does: parsing on the hot path, partial evaluation, validation.

mod hierarchy;
pub(crate) mod syntax;
mod time;

pub(crate) use hierarchy::entities_from_json;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use cedar_policy::{EntityTypeName, EntityUid, Schema};
use cedar_policy_core::ast::{
    self, BorrowedRestrictedExpr, Context, Eid, EntityType, EntityUIDEntry, Expr, ExprKind, Literal, Request,
    Var,
};
use cedar_policy_core::entities::{Dereference, Entities};
use cedar_policy_core::evaluator::{EvaluationError, Evaluator, RestrictedEvaluator};
use cedar_policy_core::extensions::Extensions;
use cedar_policy_core::validator::types::{EntityKind, Type};
use smallvec::{SmallVec, smallvec};
use smol_str::SmolStr;

use crate::fragment::{CounterField, CounterSet, Group, Needs};
use crate::settings::RiskSettings;
use crate::shape::Shape;
use crate::times::Times;

/// An entity id, `Type::"id"`. Cloning is one reference count.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uid(Arc<ast::EntityUID>);

impl Uid {
    /// Builds an id from an interned type name: no parsing.
    #[must_use]
    pub fn new(type_name: &TypeName, id: &str) -> Self {
        Self(Arc::new(ast::EntityUID::from_components(type_name.0.clone(), Eid::new(id), None)))
    }

    /// The type's full name, as text. Allocates; not for the hot path.
    #[must_use]
    pub fn type_text(&self) -> String {
        self.0.entity_type().to_string()
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
pub struct TypeName(EntityType);

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
pub struct Value(ast::Value);

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
    fn milliseconds(&self) -> Option<i64> {
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

/// A policy's annotation. Cedar's own look-up parses the key as a text of Cedar each time.
pub(crate) fn annotation<'p>(policy: &'p cedar_policy::Policy, key: &str) -> Option<&'p str> {
    policy.annotations().find(|(name, _)| *name == key).map(|(_, value)| value)
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
pub struct Record(Arc<BTreeMap<SmolStr, ast::Value>>);

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

/// One question put to many conditions: who, what, on what, in which context, in which world of entities.
pub struct Scene<'w>(Evaluator<'w>);

impl<'w> Scene<'w> {
    /// Sets the scene.
    #[must_use]
    pub fn new(principal: &Uid, action: &Uid, resource: &Uid, context: Record, world: &'w World) -> Self {
        let entry = |uid: &Uid| EntityUIDEntry::Known { euid: Arc::clone(&uid.0), loc: None };
        let request = Request::new_unchecked(
            entry(principal),
            entry(action),
            entry(resource),
            Some(Context::Value(context.0)),
        );
        Self(Evaluator::new(request, world.core(), Extensions::all_available()))
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// When the condition cannot be evaluated: a missing attribute, a type error, an overflow.
    pub fn holds(&self, condition: &Condition) -> Result<bool, Unevaluable> {
        let Some(expression) = &condition.expression else { return Ok(true) };
        static NO_SLOTS: LazyLock<ast::SlotEnv> = LazyLock::new(ast::SlotEnv::default);
        let value = self.0.interpret(expression, &NO_SLOTS).map_err(|error| unevaluable(&error))?;
        match value.value_kind() {
            ast::ValueKind::Lit(Literal::Bool(holds)) => Ok(*holds),
            ast::ValueKind::Lit(_)
            | ast::ValueKind::Set(_)
            | ast::ValueKind::Record(_)
            | ast::ValueKind::ExtensionValue(_) => Err(Unevaluable("the condition is not a Bool".into())),
        }
    }
}

/// Why a condition could not be evaluated. For records; never for callers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unevaluable(Box<str>);

#[cold]
fn unevaluable(error: &EvaluationError) -> Unevaluable {
    Unevaluable(error.to_string().into_boxed_str())
}

/// The entities of a bundle, with the schema's actions, closed under ancestry.
#[derive(Debug, Default)]
pub struct World(cedar_policy::Entities);

impl World {
    /// Takes over entities that Cedar's public API has loaded.
    #[must_use]
    pub fn new(entities: cedar_policy::Entities) -> Self {
        Self(entities)
    }

    fn core(&self) -> &Entities {
        self.0.as_ref()
    }

    /// The same entities for Cedar's public API.
    #[must_use]
    pub fn public(&self) -> &cedar_policy::Entities {
        &self.0
    }

    /// How many entities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.core().len()
    }

    /// Whether there is no entity.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.core().is_empty()
    }

    /// Every entity's id.
    pub fn uids(&self) -> impl Iterator<Item = Uid> {
        self.0.iter().map(|entity| Uid::from(&entity.uid()))
    }

    /// All ancestors of an entity; none if it is unknown.
    #[must_use]
    pub fn ancestors(&self, uid: &Uid) -> Vec<Uid> {
        match self.core().entity(&uid.0) {
            Dereference::Data(entity) => {
                entity.ancestors().map(|ancestor| Uid(Arc::new(ancestor.clone()))).collect()
            }
            Dereference::NoSuchEntity | Dereference::Residual(_) => Vec::new(),
        }
    }
}

/// What remains of a policy once its scope is known to hold, rewritten for speed.
#[derive(Clone, Debug)]
pub struct Condition {
    /// `None`: nothing remains; the policy is satisfied.
    expression: Option<Arc<Expr>>,
    /// The facts that it reads.
    pub(crate) needs: Needs,
    /// What it reads of time; `None`: nothing.
    times: Option<Arc<Times>>,
}

impl Condition {
    /// Takes a static policy's condition. With `layout` `Gathered`, reads of facts become reads of one flat
    /// record ([`crate::fragment::Fact::key`]), because every level of nesting costs an allocation and a search per attempt.
    ///
    /// `counters`: the names of the bundle's, in the order of their numbers.
    #[must_use]
    pub fn of(policy: &cedar_policy::Policy, layout: ContextLayout, counters: &[&str]) -> Self {
        let core: &ast::Policy = policy.as_ref();
        let mut needs = Needs::default();
        let expression = core.non_scope_constraints().map(|expression| {
            Arc::new(Rewrite { layout, counters, needs: &mut needs }.expression(expression))
        });
        Self { expression, needs, times: None }
    }

    /// What it reads of time; `None`: nothing.
    #[must_use]
    pub fn times(&self) -> Option<&Times> {
        self.times.as_deref()
    }

    /// The counters that it reads.
    #[must_use]
    pub fn counters(&self) -> CounterSet {
        self.needs.counters()
    }

    /// Whether nothing remains beside the scope, so that a policy in scope is satisfied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expression.is_none()
    }

    /// Whether a policy reads `context` other than by its attributes, so that nothing may be added to it.
    #[must_use]
    pub fn reads_whole_context(policy: &cedar_policy::Policy) -> bool {
        let core: &ast::Policy = policy.as_ref();
        core.non_scope_constraints().is_some_and(bare_context)
    }

    /// Shares equal conditions: generated policy sets repeat a few conditions thousands of times, and a shared
    /// one stays in the processor's cache. Finds what each reads of time on the way.
    ///
    /// `risk`: whose levels to go by, where facts are gathered.
    pub(crate) fn intern(&mut self, seen: &mut Interned, risk: Option<&RiskSettings>) {
        let Some(expression) = &mut self.expression else { return };
        let Interned { expressions, times } = seen;
        let (shared, read) = expressions.entry(Arc::clone(expression)).or_insert_with(|| {
            let read = risk.and_then(|risk| time::times(expression, risk)).map(Arc::new);
            let read = read.map(|read| Arc::clone(times.entry(Arc::clone(&read)).or_insert(read)));
            (Arc::clone(expression), read)
        });
        *expression = Arc::clone(shared);
        self.times.clone_from(read);
    }
}

/// What a policy whose facts are gathered reads of time; `None`: nothing.
pub(crate) fn times(policy: &cedar_policy::Policy, risk: &RiskSettings) -> Option<Times> {
    time::times(Condition::of(policy, ContextLayout::Gathered, &[]).expression.as_deref()?, risk)
}

/// A condition as it is shared, and what it reads of time.
type Shared = (Arc<Expr>, Option<Arc<Times>>);

/// Tables for [`Condition::intern`].
#[derive(Default)]
pub(crate) struct Interned {
    expressions: ahash::AHashMap<Arc<Expr>, Shared>,
    times: ahash::AHashMap<Arc<Times>, Arc<Times>>,
}

/// Where a policy is written, in bytes of the text that it was parsed from.
#[must_use]
pub fn span_of(policy: &cedar_policy::Policy) -> Option<std::ops::Range<usize>> {
    let core: &ast::Policy = policy.as_ref();
    core.loc().map(|place| place.start()..place.end())
}

/// Who makes the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextLayout {
    /// Cardea: facts it gathered, flat, and the enforcement point's part under `request`.
    Gathered,
    /// The caller: the whole context, as Cedar knows it.
    Given,
}

/// Copies an expression without places in the source, and notes which facts it reads.
struct Rewrite<'n> {
    layout: ContextLayout,
    counters: &'n [&'n str],
    needs: &'n mut Needs,
}

impl Rewrite<'_> {
    fn expression(&mut self, expression: &Expr) -> Expr {
        if self.layout == ContextLayout::Gathered
            && let Some(read) = self.fact(expression)
        {
            return read;
        }
        match expression.expr_kind() {
            ExprKind::Lit(literal) => Expr::val(self.literal(literal)),
            ExprKind::Var(variable) => Expr::var(*variable),
            ExprKind::Slot(slot) => Expr::slot(*slot),
            ExprKind::Unknown(unknown) => Expr::unknown(unknown.clone()),
            ExprKind::If { test_expr, then_expr, else_expr } => {
                Expr::ite(self.expression(test_expr), self.expression(then_expr), self.expression(else_expr))
            }
            ExprKind::And { left, right } => Expr::and(self.expression(left), self.expression(right)),
            ExprKind::Or { left, right } => Expr::or(self.expression(left), self.expression(right)),
            ExprKind::UnaryApp { op, arg } => Expr::unary_app(*op, self.expression(arg)),
            ExprKind::BinaryApp { op, arg1, arg2 } => {
                Expr::binary_app(*op, self.expression(arg1), self.expression(arg2))
            }
            ExprKind::ExtensionFunctionApp { fn_name, args } => Expr::call_extension_fn(
                fn_name.clone(),
                args.iter().map(|arg| self.expression(arg)).collect(),
            ),
            ExprKind::GetAttr { expr, attr } => Expr::get_attr(self.expression(expr), attr.clone()),
            ExprKind::HasAttr { expr, attr } => Expr::has_attr(self.expression(expr), attr.clone()),
            ExprKind::ExtHasAttr { expr, attrs } => {
                Expr::extended_has_attr(self.expression(expr), attrs.clone())
            }
            ExprKind::Like { expr, pattern } => Expr::like(self.expression(expr), pattern.clone()),
            ExprKind::Is { expr, entity_type } => {
                Expr::is_entity_type(self.expression(expr), entity_type.clone())
            }
            ExprKind::Set(items) => Expr::set(items.iter().map(|item| self.expression(item))),
            ExprKind::Record(fields) => Expr::record_arc(Arc::new(
                fields.iter().map(|(name, value)| (name.clone(), self.expression(value))).collect(),
            )),
        }
    }

    fn literal(&self, literal: &Literal) -> Literal {
        match literal {
            Literal::EntityUID(uid) => Literal::EntityUID(Arc::new(ast::EntityUID::from_components(
                uid.entity_type().clone(),
                uid.eid().clone(),
                None,
            ))),
            Literal::Bool(_) | Literal::Long(_) | Literal::String(_) => literal.clone(),
        }
    }

    /// The counter and its field, if this is `context.counters.NAME` and the name of a field.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only one kind of expression reads an attribute")]
    fn counter(&self, of: &Expr, field: &str) -> Option<(u8, CounterField)> {
        let name = match of.expr_kind() {
            ExprKind::GetAttr { expr, attr } if context_attr(expr) == Some(Group::Counters.name()) => attr,
            _ => return None,
        };
        let number = self.counters.iter().position(|counter| *counter == name.as_str())?;
        let field = CounterField::ALL.into_iter().find(|known| known.name() == field)?;
        Some((u8::try_from(number).ok()?, field))
    }

    /// `context.group.field` and `context.group has field` become reads of the flat record; any other use of
    /// `context.group` asks for the whole group, nested as the schema says.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the three ways to read an attribute; all others are not reads"
    )]
    fn fact(&mut self, expression: &Expr) -> Option<Expr> {
        match expression.expr_kind() {
            ExprKind::GetAttr { expr, attr } => {
                if let Some((number, field)) = self.counter(expr, attr) {
                    self.needs.add_counter(number);
                    return Some(Expr::get_attr(Expr::var(Var::Context), field.key(number)));
                }
                if let Some(fact) = context_attr(expr).and_then(Group::named).and_then(|g| g.fact(attr)) {
                    self.needs.add(fact);
                    return Some(Expr::get_attr(Expr::var(Var::Context), fact.key()));
                }
                let group = context_attr(expression).and_then(Group::named)?;
                self.needs.add_whole(group);
                None
            }
            ExprKind::HasAttr { expr, attr } => {
                if let Some(fact) = context_attr(expr).and_then(Group::named).and_then(|g| g.fact(attr)) {
                    self.needs.add(fact);
                    return Some(Expr::has_attr(Expr::var(Var::Context), fact.key()));
                }
                if matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
                    && let Some(group) = Group::named(attr)
                {
                    self.needs.add_whole(group);
                }
                None
            }
            ExprKind::ExtHasAttr { expr, attrs } => {
                if matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
                    && let Some(group) = Group::named(attrs.first())
                {
                    self.needs.add_whole(group);
                }
                None
            }
            _ => None,
        }
    }
}

/// The attribute's name, if the expression is `context.attribute`.
#[expect(clippy::wildcard_enum_match_arm, reason = "only one kind of expression reads an attribute")]
fn context_attr(expression: &Expr) -> Option<&str> {
    match expression.expr_kind() {
        ExprKind::GetAttr { expr, attr } if matches!(expr.expr_kind(), ExprKind::Var(Var::Context)) => {
            Some(attr)
        }
        _ => None,
    }
}

fn bare_context(expression: &Expr) -> bool {
    let attribute_of_context = matches!(
        expression.expr_kind(),
        ExprKind::GetAttr { expr, .. } | ExprKind::HasAttr { expr, .. } | ExprKind::ExtHasAttr { expr, .. }
            if matches!(expr.expr_kind(), ExprKind::Var(Var::Context))
    );
    if attribute_of_context {
        return false;
    }
    matches!(expression.expr_kind(), ExprKind::Var(Var::Context))
        || parts(expression).into_iter().any(bare_context)
}

/// The expressions that an expression is directly made of.
fn parts(expression: &Expr) -> SmallVec<[&Expr; 4]> {
    match expression.expr_kind() {
        ExprKind::Var(_) | ExprKind::Lit(_) | ExprKind::Slot(_) | ExprKind::Unknown(_) => SmallVec::new(),
        ExprKind::If { test_expr, then_expr, else_expr } => {
            [test_expr, then_expr, else_expr].map(|part| &**part).into_iter().collect()
        }
        ExprKind::And { left, right } | ExprKind::Or { left, right } => smallvec![&**left, &**right],
        ExprKind::BinaryApp { arg1, arg2, .. } => smallvec![&**arg1, &**arg2],
        ExprKind::UnaryApp { arg, .. } => smallvec![&**arg],
        ExprKind::GetAttr { expr, .. }
        | ExprKind::HasAttr { expr, .. }
        | ExprKind::ExtHasAttr { expr, .. }
        | ExprKind::Like { expr, .. }
        | ExprKind::Is { expr, .. } => smallvec![&**expr],
        ExprKind::ExtensionFunctionApp { args: items, .. } | ExprKind::Set(items) => items.iter().collect(),
        ExprKind::Record(fields) => fields.values().collect(),
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

fn shape(of: &Type) -> Shape {
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
