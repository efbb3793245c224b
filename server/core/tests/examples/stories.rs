//! The stories as a table: attempt and facts on the left, decision and determining policies on the right.

use std::collections::BTreeSet;
use std::sync::Arc;

use cardea_core::attempt::{Attempt, Parts, Token};
use cardea_core::decide::{Question, decide};
use cardea_core::facts::{Behavior, Facts, HopFacts, SessionFacts};
use cardea_core::risk::{Risk, RiskKind};
use cardea_core::session::Session;
use cardea_core::task::Task;
use cardea_core::verdict::Decision::{self, Allow, Deny, StepUp};
use cardea_core::verdict::Verdict;
use cardea_policy_store::engine::{Record, Value};
use smol_str::SmolStr;

use super::{BUNDLE, HOUR_MS, NOW, grant, signal, task, token, uid};

type Name = (&'static str, &'static str);
type Expected = (Decision, &'static [&'static str]);

/// One row of the table.
struct Story {
    told: &'static str,
    principal: Name,
    action: &'static str,
    resource: Name,
    on_behalf_of: Vec<Name>,
    limit: Option<i64>,
    session: Option<Session>,
    /// Requirements that somebody approved for the attempt.
    grants: Vec<&'static str>,
    behavior: Behavior,
    token: Option<Token>,
    /// Of everyone in the chain.
    risk: Vec<(RiskKind, u8)>,
    expected: Expected,
}

/// A well-behaved attempt: in a session with a wide task, with a seasoned token, without risk.
fn story(
    told: &'static str,
    principal: Name,
    action: &'static str,
    resource: Name,
    expected: Expected,
) -> Story {
    Story {
        told,
        principal,
        action,
        resource,
        on_behalf_of: Vec::new(),
        limit: Some(100),
        session: Some(session(principal)),
        grants: Vec::new(),
        behavior: Behavior::default(),
        token: Some(token(HOUR_MS)),
        risk: Vec::new(),
        expected,
    }
}

fn session(principal: Name) -> Session {
    let mut session = Session::open("s".into(), uid(principal), NOW.wall_ms + 8 * HOUR_MS, NOW);
    session.task =
        Some(Arc::new(task(&["read", "write", "export"], &["Table::\"crm/*\"", "Table::\"hr/*\""])));
    session
}

impl Story {
    fn in_session(mut self, change: impl FnOnce(&mut Session)) -> Self {
        change(self.session.as_mut().unwrap());
        self
    }

    fn granted(mut self, requirement: &'static str) -> Self {
        self.grants.push(requirement);
        self
    }

    fn after(mut self, previous_action: &str) -> Self {
        self.behavior.previous_action = previous_action.into();
        self
    }

    fn at_risk(mut self, kind: RiskKind, severity: u8) -> Self {
        self.risk.push((kind, severity));
        self
    }

    fn with_token(mut self, age_ms: i64) -> Self {
        self.token = Some(token(age_ms));
        self
    }

    fn judge(&self) -> Verdict {
        let request = self.limit.map(|limit| (SmolStr::new_static("limit"), Value::from(limit)));
        let parts = Parts {
            principal: self.principal,
            action: ("", self.action),
            resource: self.resource,
            request: request.into_iter().collect::<Record>(),
            session_id: "s",
            delegation: &self.on_behalf_of,
            token: self.token.clone(),
            ..Parts::default()
        };
        let attempt = Attempt::new(&BUNDLE, parts).unwrap();
        let mut risk = Risk::default();
        for (kind, severity) in &self.risk {
            risk.apply(&signal(*kind, *severity, 0));
        }
        let hop = HopFacts { disabled: false, risk: Some(Arc::new(risk)) };
        let behavior = Behavior { last_seen_ms: NOW.wall_ms, ..self.behavior.clone() };
        let session = match &self.session {
            Some(session) => SessionFacts::Known(Arc::new(session.clone()), behavior),
            None => SessionFacts::Unknown,
        };
        let hops = attempt.hops().map(|_| hop.clone()).collect();
        let grants = self.grants.iter().map(|name| grant(name)).collect();
        let facts = Facts { session, hops, grants, ..Facts::default() };
        decide(&Question::new(&BUNDLE, &attempt), &facts, NOW)
    }
}

const BOT: Name = ("Agent", "support-bot");
const BATCH: Name = ("Service", "payments-batch");
const APP: Name = ("App", "calendar-sync");
const NORA: Name = ("Person", "nora");
const OMAR: Name = ("Person", "omar");
const TICKETS: Name = ("Table", "crm/tickets");
const CONTACTS: Name = ("Table", "crm/contacts");
const SALARIES: Name = ("Table", "hr/salaries");
const INVOICES: Name = ("Endpoint", "billing/invoices");
const REFUNDS: Name = ("Endpoint", "billing/refunds");
const POSTINGS: Name = ("Endpoint", "ledger/postings");
const ROADMAP: Name = ("Document", "research/roadmap");
const REVIEWS: Name = ("Document", "hr/reviews");

fn tasks() -> Vec<Story> {
    let read = |told, expected| story(told, BOT, "read", TICKETS, expected);
    let narrow = |session: &mut Session| {
        session.task = Some(Arc::new(task(&["read"], &["Table::\"crm/tickets\""])));
    };
    let over = |session: &mut Session| {
        let task = task(&["read"], &[]);
        session.task = Some(Arc::new(Task { not_after_ms: Some(NOW.wall_ms), ..task }));
    };
    let stranger = ("Agent", "stranger");
    vec![
        read("inside the task", (Allow, &["agent-tables"])),
        Story { limit: Some(1001), ..read("too many rows", (Deny, &["bulk-read"])) },
        Story { limit: None, ..read("no limit at all", (Deny, &["bulk-read"])) },
        read("no task", (Deny, &["task-missing"])).in_session(|session| session.task = None),
        Story { session: None, ..read("no session", (Deny, &["task-missing"])) },
        read("after the window", (Deny, &["task-window"])).in_session(over),
        story("out of scope", BOT, "read", CONTACTS, (Deny, &["task-scope"])).in_session(narrow),
        story("another action", BOT, "write", TICKETS, (Deny, &["task-scope"])).in_session(narrow),
        story("nobody listed it", stranger, "write", TICKETS, (Deny, &[])),
        story("nobody listed it, fresh", stranger, "read", TICKETS, (Deny, &["lateral-agent"])).with_token(0),
        read("high risk", (Deny, &["risk-high"])).at_risk(RiskKind::CredentialCompromise, 80),
        read("two hints make it high", (Deny, &["risk-high"]))
            .at_risk(RiskKind::NetworkAnomaly, 50)
            .at_risk(RiskKind::VendorScore, 50),
        read("raised risk", (Allow, &["agent-tables"])).at_risk(RiskKind::CredentialCompromise, 60),
        read("a credential changed", (StepUp, &["credential-changed"]))
            .in_session(|session| session.credential_changed = true),
    ]
}

fn workflows_and_tokens() -> Vec<Story> {
    let call = |told, resource, expected| story(told, BATCH, "call", resource, expected);
    let unusual: Expected = (StepUp, &["unusual-endpoint"]);
    let used_to_it = Behavior { attempts: 100, previous_action: "call".into(), ..Behavior::default() };
    vec![
        call("in the workflow", INVOICES, (Allow, &["service-endpoints"])),
        call("not in the workflow", REFUNDS, unusual),
        Story { behavior: used_to_it, ..call("again and again", REFUNDS, unusual) },
        call("approved", REFUNDS, (Allow, &["service-endpoints"])).granted("endpoint_review"),
        call("something else is approved", ("Endpoint", "hr/payroll"), unusual).granted("reach_review"),
        call("an endpoint nobody listed", ("Endpoint", "x"), unusual),
        story("a service nobody listed", ("Service", "x"), "call", INVOICES, (Deny, &["unusual-endpoint"])),
        call("elsewhere, seasoned token", POSTINGS, (Allow, &["service-endpoints"])),
        call("elsewhere, fresh token", POSTINGS, (Deny, &["lateral-service"])).with_token(299_000),
        Story { token: None, ..call("elsewhere, no token", POSTINGS, (Deny, &["lateral-service"])) },
        call("at home, fresh token", INVOICES, (Allow, &["service-endpoints"])).with_token(0),
        call("at home, high risk", INVOICES, (Deny, &["risk-high"])).at_risk(RiskKind::AnomalousBehavior, 75),
    ]
}

fn apps_and_tools() -> Vec<Story> {
    let open = |told, resource, expected| story(told, APP, "open", resource, expected);
    let send = |told, expected| story(told, BOT, "post_webhook", ("Tool", "webhook"), expected);
    let (vendor, injection) = (RiskKind::VendorScore, RiskKind::PromptInjection);
    vec![
        open("familiar", ROADMAP, (Allow, &["app-documents"])),
        Story { token: None, ..open("without the scope", ROADMAP, (Deny, &[])) },
        open("unfamiliar", REVIEWS, (StepUp, &["unfamiliar-resource"])),
        open("approved", REVIEWS, (Allow, &["app-documents"])).granted("reach_review"),
        open("approved, then doubtful", REVIEWS, (Deny, &["unfamiliar-and-risky"]))
            .granted("reach_review")
            .at_risk(vendor, 40),
        open("familiar and doubtful", ROADMAP, (Allow, &["app-documents"])).at_risk(vendor, 40),
        story("browse", BOT, "browse", ("Tool", "web"), (Allow, &["agent-tools"])),
        send("a tested order", (Allow, &["agent-tools"])).after("summarize"),
        send("right after intake", (Deny, &["egress-after-intake", "untested-order"])).after("browse"),
        send("an untested order", (StepUp, &["untested-order"])).after("post_webhook"),
        send("the first step of all", (StepUp, &["untested-order"])),
        send("a reviewed order", (Allow, &["agent-tools"])).after("read").granted("order_review"),
        send("after an injection", (Deny, &["injected"])).after("summarize").at_risk(injection, 30),
        story("work goes on after it", BOT, "summarize", ("Tool", "summarizer"), (Allow, &["agent-tools"]))
            .at_risk(injection, 30),
        Story { session: None, ..send("no session", (Deny, &["untested-order"])) },
    ]
}

fn people() -> Vec<Story> {
    let chain = |told, person, action, resource, expected| Story {
        on_behalf_of: vec![person],
        session: Some(session(person)),
        ..story(told, BOT, action, resource, expected)
    };
    let login = |age_s: i64, acr: &'static str| {
        move |session: &mut Session| {
            session.authenticated_ms = Some(NOW.wall_ms - age_s * 1000);
            session.acr = acr.into();
        }
    };
    let wanted: Expected = (StepUp, &["export-needs-fresh-login"]);
    let exported: Expected = (Allow, &["agent-export", "person-export"]);
    let both: Expected = (Allow, &["agent-tables", "person-tables"]);
    vec![
        story("a person in the own domain", NORA, "read", SALARIES, (Allow, &["person-tables"])),
        story("a person elsewhere", OMAR, "read", SALARIES, (Deny, &[])),
        chain("an agent for one who may", NORA, "read", SALARIES, both),
        chain("an agent for one who may not", OMAR, "read", SALARIES, (Deny, &[])),
        chain("export without a login", NORA, "export", CONTACTS, wanted),
        chain("export on an old login", NORA, "export", CONTACTS, wanted).in_session(login(301, "phr")),
        chain("export on a fresh login", NORA, "export", CONTACTS, exported).in_session(login(60, "phr")),
        chain("export on a weak login", NORA, "export", CONTACTS, wanted).in_session(login(60, "pwd")),
        chain("not sensitive", NORA, "export", TICKETS, exported).in_session(login(301, "pwd")),
        chain(
            "a table nobody listed",
            NORA,
            "export",
            ("Table", "crm/new"),
            (Deny, &["export-needs-fresh-login"]),
        ),
        story("an agent exports by itself", BOT, "export", TICKETS, (Deny, &[])),
        chain("risk in the chain", NORA, "read", TICKETS, (Deny, &["risk-high"]))
            .at_risk(RiskKind::Operator, 70),
        story("the password changed", NORA, "read", TICKETS, (StepUp, &["credential-changed-person"]))
            .in_session(|session| session.credential_changed = true),
    ]
}

fn stories() -> Vec<Story> {
    [tasks(), workflows_and_tokens(), apps_and_tools(), people()].into_iter().flatten().collect()
}

fn determining(verdict: &Verdict) -> BTreeSet<&str> {
    verdict.determining().iter().map(|index| BUNDLE.policy(*index).unwrap().id.as_str()).collect()
}

#[test]
fn the_stories_come_out_as_told() {
    let mut wrong = Vec::new();
    for story in stories() {
        let verdict = story.judge();
        let found = (verdict.decision(), determining(&verdict));
        let expected = (story.expected.0, story.expected.1.iter().copied().collect());
        if found != expected {
            wrong.push(format!("{}: expected {expected:?}, found {found:?}", story.told));
        }
        assert!(verdict.errors().is_empty(), "{}: {:?}", story.told, verdict.errors());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_policy_settles_some_story_and_tells_the_caller_why() {
    let verdicts: Vec<Verdict> = stories().iter().map(Story::judge).collect();
    let used: BTreeSet<&str> = verdicts.iter().flat_map(determining).collect();
    for policy in BUNDLE.policies() {
        assert!(used.contains(policy.id.as_str()), "no story is settled by `{}`", policy.id);
        let told = policy.reason.is_some() && policy.severity.is_some();
        assert!(!policy.forbids || told, "`{}` has no @reason or no @severity", policy.id);
    }
}

#[test]
fn every_requirement_is_asked_for_by_some_story() {
    let verdicts: Vec<Verdict> = stories().iter().map(Story::judge).collect();
    let asked: BTreeSet<&str> = verdicts
        .iter()
        .flat_map(Verdict::requirements)
        .map(|index| BUNDLE.requirement(*index).unwrap().0.as_str())
        .collect();
    let declared: BTreeSet<&str> = BUNDLE.settings().step_up.keys().map(SmolStr::as_str).collect();
    assert_eq!(asked, declared);
}
