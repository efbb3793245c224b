//! What behaviour costs in a whole decision: the same attempts judged by policies that read all of it, by policies that read as many
//! fields of the request instead, and by those without the one policy that differs.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use cardea_core::attempt::{Attempt, Parts};
use cardea_core::behavior::{Observed, SessionBehavior};
use cardea_core::decide::{Question, decide};
use cardea_core::facts::{Behavior, Facts, HopFacts, SessionFacts};
use cardea_core::session::Session;
use cardea_core::task::Task;
use cardea_core::time::Now;
use cardea_core::verdict::{Decision, Verdict};
use cardea_policy_store::approvals::BehaviorSettings;
use cardea_policy_store::engine::{Record, Value};
use cardea_policy_store::fragment;
use cardea_policy_store::settings::Settings;
use cardea_policy_store::snapshot::{Parts as SnapshotParts, Snapshot};
use cardea_server::monitor::config::Config;
use cardea_server::monitor::prepared::Prepared;
use cedar_policy::{Entities, PolicySet, Schema, SchemaFragment};

use super::cost::{at, nanoseconds};
use super::data::{Labelled, learned};
use super::table::{Bar, Row};
use crate::mono;

/// How often each attempt is judged by each bundle.
const PASSES: usize = 11;
const NOW: Now = Now { mono_ns: 0, wall_ms: 1_790_000_000_000 };

/// What any decision has: a permit and two forbids, which read session, risk and request.
const COMMON: &str = "permit(principal is Agent, action, resource) when { context.request.f0 < 1000 };
forbid(principal, action, resource) when { context.risk.score > 70 };
forbid(principal, action, resource) when { !context.session.known };\n";

/// Every fact of the group, so that an attempt which deviates in nothing has all of them evaluated.
const BEHAVIOR: [&str; 19] = [
    "!context.behavior.known",
    "context.behavior.previous_action == \"?\"",
    "context.behavior.attempts > 1000000000",
    "context.behavior.denials > 1000000000",
    "!context.behavior.baseline",
    "!context.behavior.mature",
    "context.behavior.new_action",
    "context.behavior.new_target",
    "context.behavior.new_reference",
    "context.behavior.unexpected",
    "context.behavior.second_network",
    "context.behavior.out_of_scope",
    "context.behavior.fresh_token",
    "context.behavior.burst",
    "context.behavior.assessment == \"abuse\"",
    "context.behavior.confidence > 100",
    "context.behavior.deviations > 1000000000",
    "context.behavior.risk > 1000",
    "context.behavior.new_transition",
];

/// The bundles that are compared.
struct Bundles {
    bare: Snapshot,
    request: Snapshot,
    behavior: Snapshot,
}

/// Times each attempt of a recording under each bundle, interleaved. Of each attempt the median pass counts.
///
/// # Errors
///
/// A bundle or an attempt cannot be made.
pub fn added(config: &Config, approved: &[Labelled]) -> Result<Vec<Row>, String> {
    let own: Vec<Labelled> = approved.iter().map(named_by_entity).collect();
    let bundles = Bundles::new(config, &own)?;
    let judged = |snapshot| {
        let mut judged: Vec<_> =
            own.iter().map(|one| Judged::new(config, snapshot, one)).collect::<Result<_, String>>()?;
        in_order(&own, &mut judged);
        Ok::<_, String>(judged)
    };
    let mut passes = [judged(&bundles.bare)?, judged(&bundles.request)?, judged(&bundles.behavior)?];
    for _ in 0..PASSES {
        passes.iter_mut().flatten().for_each(Judged::judge);
    }
    let allowed = passes.iter().flatten().filter(|one| one.is_allowed).count() / passes.len();
    let medians = |judged: Vec<Judged<'_>>| judged.into_iter().map(Judged::median).collect::<Vec<_>>();
    let [bare, request, behavior] = passes.map(medians);
    let quantile = |of: &[Duration], percent| nanoseconds(at(&mut of.to_vec(), percent));
    let over = |base: &[Duration], percent| quantile(&behavior, percent) - quantile(base, percent);
    let told = |of: &[Duration]| format!("{:.0} / {:.0}", quantile(of, 50), quantile(of, 99));
    let detail = format!(
        "{} approved attempts, {allowed} allowed; whole decisions, p50 / p99: without the policy {}, on the request {}, \
         on behaviour {} ns",
        own.len(),
        told(&bare),
        told(&request),
        told(&behavior)
    );
    Ok(vec![
        Row::new(
            "added to a decision, beside a policy on as many fields of the request: p50",
            over(&request, 50),
            "ns",
            Bar::Most(100.0),
        )
        .with(detail),
        Row::new(
            "added to a decision, beside a policy on as many fields of the request: p99",
            over(&request, 99),
            "ns",
            Bar::Most(300.0),
        ),
        Row::new(
            "added to a decision, with the policy that reads it all: p50",
            over(&bare, 50),
            "ns",
            Bar::None,
        ),
        Row::new(
            "added to a decision, with the policy that reads it all: p99",
            over(&bare, 99),
            "ns",
            Bar::None,
        ),
    ])
}

/// Gives each attempt what its session had done before it.
fn in_order(attempts: &[Labelled], judged: &mut [Judged<'_>]) {
    let mut sessions = std::collections::BTreeMap::new();
    for (one, judged) in attempts.iter().zip(judged) {
        let session: &mut SessionBehavior = sessions.entry(one.recorded.session.as_str()).or_default();
        judged.facts.monitored = Some(*session);
        let verdict = judged.verdict();
        if let Some(deviated) = verdict.deviated() {
            session.note(&deviated.deviation, true, NOW.wall_ms);
        }
    }
}

/// One attempt under one bundle.
struct Judged<'s> {
    snapshot: &'s Snapshot,
    attempt: Attempt,
    facts: Facts,
    spans: Vec<Duration>,
    is_allowed: bool,
}

impl<'s> Judged<'s> {
    fn new(config: &Config, snapshot: &'s Snapshot, one: &Labelled) -> Result<Self, String> {
        let prepared = Prepared::new(config, &one.recorded);
        let observed = prepared.observed(config);
        let parts = Parts {
            principal: (
                "Agent",
                one.recorded.principal.trim_start_matches("Agent::\"").trim_end_matches('"'),
            ),
            action: ("", &one.recorded.action),
            resource: ("Thing", "t"),
            request: request(&observed),
            session_id: "s",
            ..Parts::default()
        };
        let attempt = Attempt::new(snapshot, parts).map_err(|fault| fault.message)?;
        let mut session = Session::open("s".into(), attempt.principal.clone(), NOW.wall_ms + 60_000, NOW);
        session.task = (!one.task().is_empty()).then(|| Arc::new(task(one)));
        let behavior = Behavior { last_seen_ms: NOW.wall_ms, ..Behavior::default() };
        let facts = Facts {
            session: SessionFacts::Known(Arc::new(session), behavior),
            hops: [HopFacts::default()].into_iter().collect(),
            ..Facts::default()
        };
        Ok(Self { snapshot, attempt, facts, spans: Vec::with_capacity(PASSES), is_allowed: false })
    }

    fn judge(&mut self) {
        let start = mono::now();
        let verdict = black_box(self.verdict());
        self.spans.push(start.elapsed());
        self.is_allowed = verdict.decision() == Decision::Allow;
    }

    fn verdict(&self) -> Verdict {
        decide(&Question::new(self.snapshot, &self.attempt), &self.facts, NOW)
    }

    fn median(mut self) -> Duration {
        at(&mut self.spans, 50)
    }
}

impl Bundles {
    fn new(config: &Config, approved: &[Labelled]) -> Result<Self, String> {
        let fields: Vec<String> =
            (0..BEHAVIOR.len()).map(|at| format!("context.request.f{at} > 1000000000")).collect();
        let forbid = |conditions: &[&str]| {
            format!("forbid(principal, action, resource) when {{ {} }};", conditions.join(" || "))
        };
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let build = |text: &str| snapshot(config, approved, text);
        Ok(Self {
            bare: build(COMMON)?,
            request: build(&format!("{COMMON}{}", forbid(&fields)))?,
            behavior: build(&format!("{COMMON}{}", forbid(&BEHAVIOR)))?,
        })
    }
}

fn snapshot(config: &Config, approved: &[Labelled], policies: &str) -> Result<Snapshot, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let policies: PolicySet = policies.parse().map_err(|error| text(&error))?;
    let fragments = [fragment::SCHEMA, &schema(approved)]
        .into_iter()
        .map(|source| SchemaFragment::from_cedarschema_str(source).map(|(fragment, _)| fragment))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| text(&error))?;
    let mut settings: Settings = toml::from_str("name = \"bench\"").map_err(|error| text(&error))?;
    let tools = approved.iter().map(|one| one.recorded.action.as_str());
    settings.behavior = BehaviorSettings {
        targets: tools.map(|tool| (tool.into(), vec!["targets".into()])).collect(),
        references: vec!["references".into()],
        classes: config.classes.clone(),
        rules: config.rules.clone(),
        ..BehaviorSettings::default()
    };
    let mut policies: Vec<_> = policies.policies().map(|one| (one.id().to_string(), one.clone())).collect();
    policies.sort_by(|(one, _), (other, _)| one.cmp(other));
    Snapshot::gathered(SnapshotParts {
        settings,
        digest: "".into(),
        policies: policies.into_iter().map(|(id, policy)| (id.into(), policy)).collect(),
        schema: Some(Schema::from_schema_fragments(fragments).map_err(|error| text(&error))?),
        entities: Entities::empty(),
        routes: None,
        baselines: Some(learned(config, approved)),
    })
    .map_err(|fault| format!("{fault:?}"))
}

fn schema(approved: &[Labelled]) -> String {
    let tools: std::collections::BTreeSet<&str> =
        approved.iter().map(|one| one.recorded.action.as_str()).collect();
    let mut schema =
        "entity Agent; entity Thing; type Asked = { targets: Set<String>, references: Set<String>".to_owned();
    for field in 0..BEHAVIOR.len() {
        let _infallible = write!(schema, ", f{field}: Long");
    }
    schema.push_str(" };\n");
    for tool in tools {
        let _infallible = writeln!(
            schema,
            "action {tool:?} appliesTo {{ principal: Agent, resource: Thing, context: {{ session: Cardea::Session, \
             risk: Cardea::Risk, behavior: Cardea::Behavior, request: Asked }} }};"
        );
    }
    schema
}

fn request(observed: &Observed<'_>) -> Record {
    let set = |names: &[&str]| Value::set(names.iter().map(|name| Value::from(*name)));
    let fields = (0..BEHAVIOR.len()).map(|at| (format!("f{at}"), Value::from(1_i64)));
    let named = [("targets", observed.targets), ("references", observed.references)];
    let named = named.into_iter().map(|(field, names)| (field.to_owned(), set(names)));
    fields.chain(named).collect()
}

/// The task as its session has it: with a purpose, and a scope that covers the attempt.
fn task(one: &Labelled) -> Task {
    Task {
        id: one.task().into(),
        purpose: "".into(),
        not_before_ms: None,
        not_after_ms: None,
        actions: vec![one.recorded.action.as_str().into()],
        resources: Vec::new(),
    }
}

fn named_by_entity(one: &Labelled) -> Labelled {
    let mut own = one.clone();
    own.recorded.principal = format!("Agent::\"{}\"", one.recorded.principal);
    own
}
