//! The law: raising risk never opens, whoever asks for whatever in whichever session.

use std::sync::{Arc, LazyLock};

use cardea_core::attempt::{Attempt, Parts};
use cardea_core::decide::{Question, decide};
use cardea_core::facts::{Behavior, Facts, HopFacts, SessionFacts};
use cardea_core::risk::{Risk, RiskKind};
use cardea_core::session::Session;
use cardea_core::task::Task;
use cardea_core::verdict::Decision;
use cardea_policy_store::engine::{Record, Uid, Value};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use smol_str::SmolStr;

use super::{BUNDLE, HOUR_MS, NOW, grant, signal, task, token, uid};

/// Every (principal, action, resource) that goes together, with entities that nobody listed among them.
static TRIPLES: LazyLock<Vec<(Uid, Uid, Uid)>> = LazyLock::new(|| {
    let mut entities: Vec<Uid> = BUNDLE.world().uids().collect();
    for type_name in ["Person", "Agent", "Service", "App", "Table", "Endpoint", "Document", "Tool"] {
        entities.push(uid((type_name, "stranger")));
    }
    entities.sort();
    let mut triples = Vec::new();
    for action in BUNDLE.actions() {
        for principal in &entities {
            let resources = entities.iter().filter(|resource| action.applies(principal, resource));
            triples
                .extend(resources.map(|resource| (principal.clone(), action.uid.clone(), resource.clone())));
        }
    }
    triples
});

#[derive(Clone, Debug)]
struct Case {
    triple: usize,
    /// The person whom an agent at a table acts for.
    for_person: Option<&'static str>,
    session: Option<Known>,
    token_age_s: Option<i64>,
    limit: Option<i64>,
    /// Kind, severity and age in seconds, of each hop, root first.
    risk: [Vec<(RiskKind, u8, i64)>; 2],
}

#[derive(Clone, Debug)]
struct Known {
    /// Seconds until the task's end, and whether it covers everything.
    task: Option<(i64, bool)>,
    auth_age_s: Option<i64>,
    acr: &'static str,
    credential_changed: bool,
    grants: Vec<&'static str>,
    previous_action: &'static str,
    denials: u64,
}

fn any_known() -> impl Strategy<Value = Known> {
    let grants = ["endpoint_review", "reach_review", "order_review", "other"];
    (
        prop::option::weighted(0.8, (prop::sample::select(vec![-10i64, 600, 900]), any::<bool>())),
        prop::option::of(prop::sample::select(vec![10i64, 300, 301, 9000])),
        prop::sample::select(vec!["", "phr", "pwd"]),
        prop::bool::weighted(0.2),
        prop::sample::subsequence(grants.to_vec(), 0..=4),
        prop::sample::select(vec!["", "browse", "summarize", "post_webhook", "read"]),
        0..2u64,
    )
        .prop_map(|(task, auth_age_s, acr, credential_changed, grants, previous_action, denials)| {
            Known { task, auth_age_s, acr, credential_changed, grants, previous_action, denials }
        })
}

fn any_kind() -> impl Strategy<Value = RiskKind> {
    prop::sample::select(RiskKind::ALL.to_vec())
}

fn any_case() -> impl Strategy<Value = Case> {
    let risk = || prop::collection::vec((any_kind(), 0..=100u8, 0..20_000i64), 0..3);
    (
        any::<prop::sample::Index>(),
        prop::option::weighted(0.3, prop::sample::select(vec!["nora", "omar", "stranger"])),
        prop::option::weighted(0.9, any_known()),
        prop::option::weighted(0.8, prop::sample::select(vec![0i64, 299, 300, 4000])),
        prop::option::weighted(0.8, prop::sample::select(vec![10i64, 1000, 1001])),
        [risk(), risk()],
    )
        .prop_map(|(triple, for_person, session, token_age_s, limit, risk)| Case {
            triple: triple.index(TRIPLES.len()),
            for_person,
            session,
            token_age_s,
            limit,
            risk,
        })
}

impl Case {
    fn attempt(&self) -> Attempt {
        let (principal, action, resource) = &TRIPLES[self.triple];
        let (principal_type, resource_type) = (principal.type_text(), resource.type_text());
        let may_act_for = principal_type == "Agent" && resource_type == "Table";
        let chain: Vec<(&str, &str)> =
            self.for_person.filter(|_| may_act_for).map(|id| ("Person", id)).into_iter().collect();
        let request = self.limit.map(|limit| (SmolStr::new_static("limit"), Value::from(limit)));
        let parts = Parts {
            principal: (&principal_type, principal.id()),
            action: ("", action.id()),
            resource: (&resource_type, resource.id()),
            request: request.into_iter().collect::<Record>(),
            session_id: "s",
            delegation: &chain,
            token: self.token_age_s.map(|age_s| token(age_s * 1000)),
            ..Parts::default()
        };
        Attempt::new(&BUNDLE, parts).unwrap()
    }

    fn session(&self, attempt: &Attempt) -> SessionFacts {
        let Some(known) = &self.session else { return SessionFacts::Unknown };
        let owner = attempt.hops().next().unwrap().clone();
        let mut session = Session::open("s".into(), owner, NOW.wall_ms + HOUR_MS, NOW);
        session.task = known.task.map(|(ends_in_s, covers)| {
            let task = if covers {
                task(&["read", "write", "export"], &[])
            } else {
                task(&["read"], &["Table::\"crm/*\""])
            };
            Arc::new(Task { not_after_ms: Some(NOW.wall_ms + ends_in_s * 1000), ..task })
        });
        session.authenticated_ms = known.auth_age_s.map(|age_s| NOW.wall_ms - age_s * 1000);
        session.acr = known.acr.into();
        session.credential_changed = known.credential_changed;
        let behavior = Behavior {
            previous_action: known.previous_action.into(),
            attempts: 5,
            denials: known.denials,
            last_seen_ms: NOW.wall_ms,
        };
        SessionFacts::Known(Arc::new(session), behavior)
    }

    /// `more`: a further signal about one hop, of this kind, heavier by so much than what is known of the kind, and
    /// newer; a lighter one would be good news.
    fn judge(&self, attempt: &Attempt, more: Option<(usize, RiskKind, u8)>) -> Decision {
        let hops = attempt.hops().enumerate().map(|(hop, _)| {
            let mut risk = Risk::default();
            for (kind, severity, age_s) in &self.risk[hop] {
                risk.apply(&signal(*kind, *severity, *age_s));
            }
            if let Some((_, kind, by)) = more.filter(|(at, ..)| *at == hop) {
                let same_kind = self.risk[hop].iter().filter(|(of, ..)| *of == kind);
                let known = same_kind.map(|(_, severity, _)| *severity).max().unwrap_or(0);
                risk.apply(&signal(kind, known.saturating_add(by).min(100), 0));
            }
            HopFacts { disabled: false, risk: Some(Arc::new(risk)) }
        });
        let grants = self.session.iter().flat_map(|known| &known.grants).map(|name| grant(name)).collect();
        let facts =
            Facts { session: self.session(attempt), hops: hops.collect(), grants, ..Facts::default() };
        decide(&Question::new(&BUNDLE, attempt), &facts, NOW).decision()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn more_risk_never_opens(case in any_case(), hop in 0..2usize, kind in any_kind(), by in 1..=100u8) {
        let attempt = case.attempt();
        let hop = hop.min(attempt.hops().count() - 1);
        let before = case.judge(&attempt, None);
        let after = case.judge(&attempt, Some((hop, kind, by)));
        prop_assert!(after >= before, "{before:?} became {after:?}");
    }
}

/// A law about doors that are closed anyway would prove nothing.
#[test]
fn the_law_is_tried_where_it_can_break() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut open, mut closed_by_risk) = (0, 0);
    for _ in 0..4000 {
        let case = any_case().new_tree(&mut runner).unwrap().current();
        let attempt = case.attempt();
        let before = case.judge(&attempt, None);
        open += usize::from(before != Decision::Deny);
        closed_by_risk += usize::from(case.judge(&attempt, Some((0, RiskKind::Operator, 90))) > before);
    }
    assert!(open > 300, "{open} of 4000 cases were not denied before");
    assert!(closed_by_risk > 300, "{closed_by_risk} of 4000 cases were closed by risk");
}
