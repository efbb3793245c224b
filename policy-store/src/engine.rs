//! Cedar, below its public API: the only module that names `cedar-policy-core`.
//!
//! Owns what a decision needs on the hot path and Cedar's public API makes dear: entity ids whose type names
//! are interned, contexts built as values, and conditions without the scope (the index has proven it), most of which
//! are evaluated directly. A policy that cannot match costs nothing.
//!
//! INVARIANT (same answer): for a policy whose scope holds, [`Scene::holds`] gives what Cedar's own evaluator
//! gives for the whole policy. The differential tests of `cardea-core` and of `engine/direct.rs` hold both against each other.
//! Never does: parsing on the hot path, partial evaluation, validation.

mod actions;
mod classes;
mod direct;
mod hierarchy;
mod rewrite;
pub(crate) mod syntax;
mod time;
mod values;

pub use actions::{ActionTypes, action_types};
pub(crate) use classes::annotated_classes;
use direct::Direct;
pub(crate) use hierarchy::entities_from_json;
use rewrite::{Rewrite, bare_context};
pub use values::{BadValue, Extension, Plain, Record, TypeName, Uid, Value};

use std::cell::OnceCell;
use std::sync::{Arc, LazyLock};

use cedar_policy_core::ast::{self, Context, EntityUIDEntry, Expr, Literal, Request};
use cedar_policy_core::entities::{Dereference, Entities};
use cedar_policy_core::evaluator::{EvaluationError, Evaluator};
use cedar_policy_core::extensions::Extensions;

use crate::fragment::{CounterField, CounterSet, Fact, FactValue, Needs};
use crate::settings::RiskSettings;
use crate::times::Times;

/// A policy's annotation. Cedar's own look-up parses the key as a text of Cedar each time.
pub(crate) fn annotation<'p>(policy: &'p cedar_policy::Policy, key: &str) -> Option<&'p str> {
    policy.annotations().find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// What conditions read, asked for only as far as they do.
pub trait Reads {
    /// A fact.
    fn fact(&self, fact: Fact) -> FactValue;
    /// A counter, by its number; `None`: there is none.
    fn counter(&self, number: u8, field: CounterField) -> Option<FactValue>;
    /// What the enforcement point sent; where the caller gives the whole context, all of it.
    fn sent(&self) -> &Record;
    /// All that the candidates read, in the layout of the bundle: for conditions that Cedar's own evaluator must see.
    fn context(&self) -> Record;
}

/// One question put to many conditions: who, what, on what, in which context, in which world of entities.
pub struct Scene<'w> {
    principal: &'w Uid,
    action: &'w Uid,
    resource: &'w Uid,
    reads: &'w dyn Reads,
    world: &'w World,
    /// Made for the first condition that needs it.
    cedar: OnceCell<Evaluator<'w>>,
}

impl<'w> Scene<'w> {
    /// Sets the scene.
    #[must_use]
    pub fn new(
        principal: &'w Uid,
        action: &'w Uid,
        resource: &'w Uid,
        reads: &'w dyn Reads,
        world: &'w World,
    ) -> Self {
        Self { principal, action, resource, reads, world, cedar: OnceCell::new() }
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// When the condition cannot be evaluated: a missing attribute, a type error, an overflow.
    pub fn holds(&self, condition: &Condition) -> Result<bool, Unevaluable> {
        let Some(expression) = &condition.expression else { return Ok(true) };
        match condition.direct.as_ref().and_then(|direct| direct.holds(self)) {
            Some(holds) => Ok(holds),
            None => self.holds_by_cedar(expression),
        }
    }

    fn holds_by_cedar(&self, expression: &Expr) -> Result<bool, Unevaluable> {
        static NO_SLOTS: LazyLock<ast::SlotEnv> = LazyLock::new(ast::SlotEnv::default);
        let evaluator = self.cedar.get_or_init(|| self.evaluator());
        let value = evaluator.interpret(expression, &NO_SLOTS).map_err(|error| unevaluable(&error))?;
        match value.value_kind() {
            ast::ValueKind::Lit(Literal::Bool(holds)) => Ok(*holds),
            ast::ValueKind::Lit(_)
            | ast::ValueKind::Set(_)
            | ast::ValueKind::Record(_)
            | ast::ValueKind::ExtensionValue(_) => Err(Unevaluable("the condition is not a Bool".into())),
        }
    }

    fn evaluator(&self) -> Evaluator<'w> {
        let entry = |uid: &Uid| EntityUIDEntry::Known { euid: Arc::clone(&uid.0), loc: None };
        let request = Request::new_unchecked(
            entry(self.principal),
            entry(self.action),
            entry(self.resource),
            Some(Context::Value(self.reads.context().0)),
        );
        Evaluator::new(request, self.world.core(), Extensions::all_available())
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
    /// The same without Cedar's evaluator, if it can be.
    direct: Option<Arc<Direct>>,
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
        let direct = expression.as_deref().and_then(|expression| Direct::of(expression, layout));
        Self { expression, direct: direct.map(Arc::new), needs, times: None }
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
        let direct = &self.direct;
        let (shared, shared_direct, read) = expressions.entry(Arc::clone(expression)).or_insert_with(|| {
            let read = risk.and_then(|risk| time::times(expression, risk)).map(Arc::new);
            let read = read.map(|read| Arc::clone(times.entry(Arc::clone(&read)).or_insert(read)));
            (Arc::clone(expression), direct.clone(), read)
        });
        *expression = Arc::clone(shared);
        self.direct.clone_from(shared_direct);
        self.times.clone_from(read);
    }
}

/// What a policy whose facts are gathered reads of time; `None`: nothing.
pub(crate) fn times(policy: &cedar_policy::Policy, risk: &RiskSettings) -> Option<Times> {
    time::times(Condition::of(policy, ContextLayout::Gathered, &[]).expression.as_deref()?, risk)
}

/// A condition as it is shared, in both forms, and what it reads of time.
type Shared = (Arc<Expr>, Option<Arc<Direct>>, Option<Arc<Times>>);

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
