//! What `decide` costs in process, beside `cedar_policy::Authorizer` on the same work.
//!
//! The question: does the cost depend on how many policies there are? N policies, each scoped to a group and a folder; of
//! these one, and two that hold for everybody, are relevant to any attempt. The three read session, risk and request
//! facts. All sizes are measured in one run, interleaved, after warm-up; medians of rounds, with their spread.
#![expect(clippy::print_stdout, reason = "a bench prints its table")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a bench that cannot set itself up has nothing to say"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use cardea_core::attempt::{Attempt, Parts};
use cardea_core::decide::{Question, decide};
use cardea_core::facts::{Behavior, Facts, HopFacts, SessionFacts};
use cardea_core::risk::{Risk, RiskKind, RiskSignal};
use cardea_core::session::Session;
use cardea_core::time::Now;
use cardea_core::verdict::Decision;
use cardea_policy_store::engine::{Record, Value};
use cardea_policy_store::fragment;
use cardea_policy_store::settings::Settings;
use cardea_policy_store::snapshot::{Parts as SnapshotParts, Snapshot};
use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet, Request, Schema, SchemaFragment};
use clap::Parser;
use hdrhistogram::Histogram;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SCHEMA: &str = "
entity User in Group; entity Group; entity Folder; entity Doc in Folder { owner: String };
action read appliesTo { principal: User, resource: Doc,
  context: { session: Cardea::Session, risk: Cardea::Risk, request: { rows: Long } } };
";

const EVERYBODY: &str = "
@id(\"risky\") forbid(principal, action, resource) when { context.risk.score > 70 };
@id(\"stale\") forbid(principal, action, resource) when { context.session.auth_age_s > 3600 || !context.session.known };
";

const NOW: Now = Now { mono_ns: 0, wall_ms: 1_790_000_000_000 };
const ATTEMPTS: usize = 200;

/// What decide costs, from few policies to many.
#[derive(Parser)]
struct Args {
    /// Sizes, in policies.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 10_000, 100_000])]
    sizes: Vec<usize>,
    /// Rounds; the table shows their median.
    #[arg(long, default_value_t = 31)]
    rounds: usize,
    /// Largest size at which the Authorizer is measured; it needs 20 ms a request at 10,000.
    #[arg(long, default_value_t = 10_000)]
    authorizer_max: usize,
    /// Print one JSON line per size.
    #[arg(long)]
    json: bool,
    /// Only run `decide` this many times at the first size, for callgrind.
    #[arg(long)]
    only: Option<usize>,
}

struct Case {
    size: usize,
    snapshot: Snapshot,
    attempts: Vec<Attempt>,
    facts: Facts,
    policies: PolicySet,
    entities: Entities,
    requests: Vec<Request>,
}

fn main() {
    let args = Args::parse();
    let cases: Vec<Case> = args.sizes.iter().map(|size| Case::new(*size)).collect();
    for case in &cases {
        case.check();
    }
    if let Some(count) = args.only {
        for at in 0..count {
            black_box(cases[0].judge(at % ATTEMPTS));
        }
        return;
    }
    let mut ours: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    let mut theirs: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    let mut single: Vec<Histogram<u64>> = cases.iter().map(|_| Histogram::new(3).unwrap()).collect();
    for _ in 0..args.rounds {
        for (at, case) in cases.iter().enumerate() {
            ours[at].push(case.time_ours(&mut single[at]));
            if case.size <= args.authorizer_max {
                theirs[at].push(case.time_theirs());
            }
        }
    }
    if !args.json {
        println!("policies  decide ns [min..max]        x first   p50 ns  p99 ns   Authorizer ns   ratio");
    }
    let first = median(&mut ours[0].clone());
    for (at, case) in cases.iter().enumerate() {
        let our = median(&mut ours[at]);
        let their = (!theirs[at].is_empty()).then(|| median(&mut theirs[at]));
        let (low, high) = (ours[at][0], ours[at][ours[at].len() - 1]);
        let (p50, p99) = (single[at].value_at_quantile(0.5), single[at].value_at_quantile(0.99));
        if args.json {
            println!(
                "{{\"policies\":{},\"decide_ns\":{our:.0},\"min\":{low:.0},\"max\":{high:.0},\"p50\":{p50},\"p99\":{p99},\"authorizer_ns\":{}}}",
                case.size,
                their.map_or_else(|| "null".to_owned(), |their| format!("{their:.0}"))
            );
        } else {
            let their_text = their.map_or_else(|| "-".to_owned(), |their| format!("{their:.0}"));
            let ratio = their.map_or_else(|| "-".to_owned(), |their| format!("{:.0} x", their / our));
            println!(
                "{:>8}  {our:>9.0} [{low:>5.0}..{high:>5.0}]  {:>9.2}  {p50:>7}  {p99:>6}  {their_text:>14}  {ratio:>6}",
                case.size,
                our / first
            );
        }
    }
}

impl Case {
    fn new(size: usize) -> Self {
        let scoped = (0..size.saturating_sub(2)).map(|at| {
            format!(
                "permit(principal in Group::\"g{at}\", action == Action::\"read\", resource in Folder::\"f{at}\")
                 when {{ context.request.rows < 1000 && resource.owner != \"nobody\" }};\n"
            )
        });
        let text: String = scoped.chain([EVERYBODY.to_owned()]).collect();
        let policies: PolicySet = text.parse().unwrap();
        let mut ordered: Vec<_> = policies.policies().cloned().collect();
        ordered.sort_by_key(|policy| {
            policy.id().to_string().strip_prefix("policy").and_then(|at| at.parse::<u64>().ok())
        });
        let fragments =
            [fragment::SCHEMA, SCHEMA].map(|text| SchemaFragment::from_cedarschema_str(text).unwrap().0);
        let schema = Schema::from_schema_fragments(fragments).unwrap();
        let groups = size.saturating_sub(2).max(1);
        let entities = entities(groups, &schema);
        let settings: Settings = toml::from_str("name = \"bench\"").unwrap();
        let snapshot = Snapshot::gathered(SnapshotParts {
            baselines: None,
            settings,
            digest: "".into(),
            policies: ordered.into_iter().map(|policy| (policy.id().to_string().into(), policy)).collect(),
            schema: Some(schema),
            entities: entities.clone(),
            routes: None,
        })
        .unwrap();
        let request = |rows: i64| Record::from_iter([("rows", Value::from(rows))]);
        let attempts = (0..ATTEMPTS)
            .map(|at| {
                let (user, doc) = (format!("u{}", at % 100), format!("d{}", at % 100));
                let parts = Parts {
                    principal: ("User", &user),
                    action: ("", "read"),
                    resource: ("Doc", &doc),
                    request: request(if at < 100 { 10 } else { 5_000 }),
                    session_id: "s",
                    ..Parts::default()
                };
                Attempt::new(&snapshot, parts).unwrap()
            })
            .collect();
        let requests = (0..ATTEMPTS).map(cedar_request).collect();
        Self { size, snapshot, attempts, facts: Facts::default(), policies, entities, requests }.with_facts()
    }

    fn with_facts(mut self) -> Self {
        let mut risk = Risk::default();
        let kind = RiskKind::VendorScore;
        risk.apply(&RiskSignal {
            kind,
            severity: 40,
            confidence: 50,
            event_ms: NOW.wall_ms - 5_000,
            half_life_s: 600,
        });
        let hop = HopFacts { disabled: false, risk: Some(Arc::new(risk)) };
        self.facts.hops = [hop].into_iter().collect();
        self
    }

    /// The session belongs to whoever acts, so each attempt has its own.
    fn facts(&self, at: usize) -> Facts {
        let mut session =
            Session::open("s".into(), self.attempts[at].principal.clone(), NOW.wall_ms + 60_000, NOW);
        session.authenticate(NOW.wall_ms - 60_000);
        let behavior = Behavior { last_seen_ms: NOW.wall_ms, ..Behavior::default() };
        Facts { session: SessionFacts::Known(Arc::new(session), behavior), ..self.facts.clone() }
    }

    fn judge(&self, at: usize) -> cardea_core::verdict::Verdict {
        decide(&Question::new(&self.snapshot, &self.attempts[at]), &self.facts(at), NOW)
    }

    /// Both engines answer alike, and each attempt has exactly three candidates.
    fn check(&self) {
        for at in 0..ATTEMPTS {
            let ours = self.judge(at);
            assert_eq!(ours.candidates(), 3, "attempt {at} at {} policies", self.size);
            assert_eq!(ours.decision() == Decision::Allow, at < 100);
            if at % 50 == 0 {
                let theirs =
                    Authorizer::new().is_authorized(&self.requests[at], &self.policies, &self.entities);
                assert_eq!(theirs.decision() == cedar_policy::Decision::Allow, at < 100);
            }
        }
    }

    /// Nanoseconds per call, and single calls into `single`.
    fn time_ours(&self, single: &mut Histogram<u64>) -> f64 {
        let facts: Vec<Facts> = (0..ATTEMPTS).map(|at| self.facts(at)).collect();
        let run = |at: usize| {
            black_box(decide(&Question::new(&self.snapshot, &self.attempts[at]), &facts[at], NOW))
        };
        for at in 0..ATTEMPTS {
            run(at);
        }
        let start = Instant::now();
        for _ in 0..5 {
            for at in 0..ATTEMPTS {
                run(at);
            }
        }
        let per_call = start.elapsed().as_nanos() as f64 / (5 * ATTEMPTS) as f64;
        for at in 0..ATTEMPTS {
            let start = Instant::now();
            run(at);
            single.record(start.elapsed().as_nanos() as u64).unwrap();
        }
        per_call
    }

    fn time_theirs(&self) -> f64 {
        let authorizer = Authorizer::new();
        let count = (20_000 / self.size).clamp(2, ATTEMPTS);
        let start = Instant::now();
        for request in self.requests.iter().take(count) {
            black_box(authorizer.is_authorized(request, &self.policies, &self.entities));
        }
        start.elapsed().as_nanos() as f64 / count as f64
    }
}

/// 100 users in three groups each, 100 documents in one folder each, such that user and document meet in one policy.
fn entities(groups: usize, schema: &Schema) -> Entities {
    let reference = |of: &str, id: String| serde_json::json!({ "type": of, "id": id });
    let mut all = Vec::new();
    for at in 0..100 {
        // The three nearest: a user shares exactly one policy with the document of the same number.
        let own = at % groups;
        let mut memberships: Vec<usize> = vec![own];
        memberships.extend([groups + at, groups + at + 1]);
        let parents: Vec<_> =
            memberships.iter().map(|group| reference("Group", format!("g{group}"))).collect();
        all.push(serde_json::json!({ "uid": reference("User", format!("u{at}")), "attrs": {}, "parents": parents }));
        let folder = [reference("Folder", format!("f{own}"))];
        let attrs = serde_json::json!({ "owner": "somebody" });
        all.push(serde_json::json!({ "uid": reference("Doc", format!("d{at}")), "attrs": attrs, "parents": folder }));
    }
    Entities::from_json_value(all.into(), Some(schema)).unwrap()
}

fn cedar_request(at: usize) -> Request {
    let rows = if at < 100 { 10 } else { 5_000 };
    let context = serde_json::json!({
        "session": {
            "known": true, "age_s": 0, "idle_s": 0, "auth_age_s": 60, "acr": "", "aal": 0, "amr": [],
            "credential_changed": false, "device_compliant": false, "networks": [], "labels": []
        },
        "risk": { "score": 20, "level": "low", "reasons": [], "age_s": 5 },
        "request": { "rows": rows }
    });
    let uid = |text: String| text.parse::<EntityUid>().unwrap();
    Request::new(
        uid(format!("User::\"u{}\"", at % 100)),
        uid("Action::\"read\"".to_owned()),
        uid(format!("Doc::\"d{}\"", at % 100)),
        Context::from_json_value(context, None).unwrap(),
        None,
    )
    .unwrap()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
