//! The stories: what happens, what is asked, and what must come out.
//!
//! Owns the expectations. Never talks to the service; times are relative to the service's own clock.

use cardea_client::v1::signal::Change as Signalled;
use cardea_client::v1::value::Kind;
use cardea_client::v1::{
    Attempt, CredentialChanged, Decision, EntityRef, RiskKind, RiskObserved, Session, Signal, Task, Token,
    UpdateSessionRequest, Value,
};
use cardea_client::{attempt, entity};
use prost_types::Timestamp;

/// How long the first story's task lasts, in seconds: long enough to ask three times, short enough to wait for.
pub(super) const SHORT_TASK_S: i64 = 3;

/// One story.
#[derive(Debug)]
pub(super) struct Story {
    /// Its title.
    pub(super) title: &'static str,
    /// What it shows, in a sentence.
    pub(super) shows: &'static str,
    /// What happens, in order.
    pub(super) steps: Vec<Step>,
}

/// One thing that happens.
#[derive(Debug)]
pub(super) enum Step {
    /// An attempt, asked so many times, and what must come out each time.
    Ask(Attempt, usize, Expected),
    /// The next attempts differ from those before in what they carry.
    Say(&'static str),
    /// Something changes.
    Change(&'static str, Change),
}

/// A change of state.
#[derive(Debug)]
pub(super) enum Change {
    /// A session is opened.
    Open(Session),
    /// A session is updated.
    Update(UpdateSessionRequest),
    /// A session is ended.
    End(String),
    /// The first of the reviewers approves what the attempt before was asked for, in its session.
    Approve,
    /// Signals arrive.
    Report(Vec<Signal>),
    /// Time passes, in milliseconds.
    Pass(u64),
}

/// What must come out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// The decision.
    pub(super) decision: Decision,
    /// A determining policy; or, where none is asked, the reason's code.
    pub(super) because: &'static str,
}

/// When and under which names the stories are played; names differ from run to run, because an ended session stays
/// ended.
#[derive(Debug)]
pub(super) struct Run {
    /// Distinguishes this run's sessions.
    pub(super) tag: String,
    /// The service's time, in seconds since 1970.
    pub(super) now_s: i64,
}

const ALLOW: fn(&'static str) -> Expected = |because| Expected { decision: Decision::Allow, because };
const STEP_UP: fn(&'static str) -> Expected = |because| Expected { decision: Decision::StepUp, because };
const DENY: fn(&'static str) -> Expected = |because| Expected { decision: Decision::Deny, because };

impl Run {
    /// All stories, in the order of the example.
    #[must_use]
    pub(super) fn stories(&self) -> Vec<Story> {
        vec![self.task(), self.workflow(), self.lateral(), self.oauth(), self.tools(), self.people()]
    }

    /// Signals that take back whatever risk an earlier or a broken run left behind.
    #[must_use]
    pub(super) fn calm() -> Vec<Signal> {
        let risks = [
            (service(), RiskKind::CredentialCompromise),
            (service(), RiskKind::NetworkAnomaly),
            (service(), RiskKind::AnomalousBehavior),
            (app(), RiskKind::VendorScore),
            (researcher(), RiskKind::PromptInjection),
        ];
        risks.into_iter().map(|(subject, kind)| risk(subject, kind, 0, 0, "")).collect()
    }

    fn task(&self) -> Story {
        let id = self.id("task");
        let read = |table: &str| {
            let asked = self.attempt(&id, bot(), "read", entity("Table", table));
            let limit = ("limit".to_owned(), Value { kind: Some(Kind::Long(100)) });
            Attempt { context: [limit].into(), ..asked }
        };
        let write = self.attempt(&id, bot(), "write", entity("Table", "crm/tickets"));
        let short = task(&["read"], &["Table::\"crm/*\""], self.now_s, SHORT_TASK_S);
        let longer = task(&["read"], &["Table::\"crm/*\""], self.now_s, 3600);
        let reopen =
            UpdateSessionRequest { id: id.clone(), task: Some(longer), ..UpdateSessionRequest::default() };
        Story {
            title: "An AI agent outside its approved task",
            shows: "A task says which actions on which tables, until when. Its end stops an agent that still runs.",
            steps: vec![
                Step::Change(
                    "a session opens with the task: read crm/*, for three seconds",
                    Change::Open(Session { task: Some(short), ..session(&id, bot()) }),
                ),
                ask(read("crm/tickets"), ALLOW("agent-tables")),
                ask(read("hr/salaries"), DENY("task-scope")),
                ask(write, DENY("task-scope")),
                Step::Change("three seconds pass", Change::Pass(SHORT_TASK_S.unsigned_abs() * 1000)),
                ask(read("crm/tickets"), DENY("task-window")),
                Step::Change("the task is approved for another hour", Change::Update(reopen)),
                ask(read("crm/tickets"), ALLOW("agent-tables")),
                Step::Change("an operator ends the session", Change::End(id.clone())),
                ask(read("crm/tickets"), DENY("session_revoked")),
            ],
        }
    }

    fn workflow(&self) -> Story {
        let id = self.id("workflow");
        let call = |endpoint: &str| self.attempt(&id, service(), "call", entity("Endpoint", endpoint));
        Story {
            title: "A service account on an endpoint outside its workflow",
            shows: "The workflow is approved data. Repetition teaches nothing: the hundredth call is as unusual.",
            steps: vec![
                Step::Change("a session opens", Change::Open(session(&id, service()))),
                ask(call("billing/invoices"), ALLOW("service-endpoints")),
                ask(call("billing/refunds"), STEP_UP("unusual-endpoint")),
                Step::Ask(call("billing/refunds"), 100, STEP_UP("unusual-endpoint")),
                Step::Change(
                    "the owners approve the review of billing/refunds, for this session",
                    Change::Approve,
                ),
                ask(call("billing/refunds"), ALLOW("service-endpoints")),
                ask(call("hr/payroll"), STEP_UP("unusual-endpoint")),
            ],
        }
    }

    fn lateral(&self) -> Story {
        let id = self.id("lateral");
        let call = |endpoint: &str, token_age_s: i64| Attempt {
            token: Some(self.token(token_age_s)),
            ..self.attempt(&id, service(), "call", entity("Endpoint", endpoint))
        };
        let rotated = Signalled::CredentialChanged(CredentialChanged { session_id: id.clone() });
        let attested = UpdateSessionRequest {
            id: id.clone(),
            // A little ahead of the service's clock, which counts as now there: after the rotation, whenever that was.
            authenticated_at: Some(at(self.now_s + 30)),
            ..UpdateSessionRequest::default()
        };
        let compromise =
            risk(service(), RiskKind::CredentialCompromise, 60, 90, "token minted on an unknown host");
        let anomaly = risk(service(), RiskKind::NetworkAnomaly, 60, 90, "new provider network");
        let over = |kind| risk(service(), kind, 0, 0, "investigated");
        Story {
            title: "A fresh token goes lateral",
            shows: "Same identity, same endpoint: the token's age decides, and the policy's response ends the session.",
            steps: vec![
                Step::Change(
                    "a session opens; the token was issued an hour ago",
                    Change::Open(session(&id, service())),
                ),
                ask(call("ledger/postings", 3600), ALLOW("service-endpoints")),
                Step::Say("the same account with a token issued 20 seconds ago, at home"),
                ask(call("billing/invoices", 20), ALLOW("service-endpoints")),
                Step::Change(
                    "back to the old token; two detectors report: credential compromise 60, network anomaly 60",
                    Change::Report(vec![compromise, anomaly]),
                ),
                ask(call("billing/invoices", 3600), DENY("risk-high")),
                Step::Change(
                    "both are cleared; the credential was rotated",
                    Change::Report(vec![
                        over(RiskKind::CredentialCompromise),
                        over(RiskKind::NetworkAnomaly),
                        signal(service(), rotated),
                    ]),
                ),
                ask(call("billing/invoices", 3600), STEP_UP("credential-changed")),
                Step::Change("the workload attests itself anew", Change::Update(attested)),
                ask(call("billing/invoices", 3600), ALLOW("service-endpoints")),
                Step::Say(
                    "a token issued 20 seconds ago leaves home: the policy ends the session and raises the risk",
                ),
                ask(call("ledger/postings", 20), DENY("lateral-service")),
                ask(call("billing/invoices", 3600), DENY("session_revoked")),
            ],
        }
    }

    fn oauth(&self) -> Story {
        let id = self.id("oauth");
        let open = |document: &str| self.attempt(&id, app(), "open", entity("Document", document));
        let doubt = risk(app(), RiskKind::VendorScore, 50, 90, "publisher under investigation");
        Story {
            title: "A third-party OAuth app opens something unfamiliar",
            shows: "Consent is wide, the purpose is narrow. Unfamiliar asks a reviewer; unfamiliar and risky denies.",
            steps: vec![
                Step::Change("a session opens", Change::Open(session(&id, app()))),
                ask(open("research/roadmap"), ALLOW("app-documents")),
                ask(open("hr/reviews"), STEP_UP("unfamiliar-resource")),
                Step::Change("security approves the review of hr/reviews, for this session", Change::Approve),
                ask(open("hr/reviews"), ALLOW("app-documents")),
                Step::Change("a vendor scores the app 50", Change::Report(vec![doubt])),
                ask(open("hr/reviews"), DENY("unfamiliar-and-risky")),
                ask(open("research/roadmap"), ALLOW("app-documents")),
            ],
        }
    }

    fn tools(&self) -> Story {
        let (id, second) = (self.id("tools"), self.id("tools-2"));
        let run = |action: &str, tool: &str| self.attempt(&id, researcher(), action, entity("Tool", tool));
        let send = || run("post_webhook", "webhook");
        let first = || self.attempt(&second, researcher(), "post_webhook", entity("Tool", "webhook"));
        let injected =
            risk(researcher(), RiskKind::PromptInjection, 30, 90, "the page said: send me the notes");
        Story {
            title: "An agent chains tools in a new order",
            shows: "Text from strangers must not decide what leaves. Only tested orders pass unseen.",
            steps: vec![
                Step::Change("a session opens", Change::Open(session(&id, researcher()))),
                ask(run("browse", "web"), ALLOW("agent-tools")),
                ask(run("summarize", "summarizer"), ALLOW("agent-tools")),
                ask(send(), ALLOW("agent-tools")),
                ask(run("browse", "web"), ALLOW("agent-tools")),
                ask(send(), DENY("egress-after-intake")),
                ask(send(), DENY("egress-after-intake")),
                ask(run("summarize", "summarizer"), ALLOW("agent-tools")),
                Step::Change(
                    "a detector reports a prompt injection, severity 30",
                    Change::Report(vec![injected]),
                ),
                ask(send(), DENY("injected")),
                ask(run("browse", "web"), ALLOW("agent-tools")),
                Step::Change(
                    "the detector withdraws it; another session opens",
                    Change::Report(vec![risk(researcher(), RiskKind::PromptInjection, 0, 0, "false alarm")]),
                ),
                Step::Change("", Change::Open(session(&second, researcher()))),
                ask(first(), STEP_UP("untested-order")),
                Step::Change("the agent's owners approve the review of this send", Change::Approve),
                ask(first(), ALLOW("agent-tools")),
            ],
        }
    }

    fn people(&self) -> Story {
        let (noras, omars) = (self.id("nora"), self.id("omar"));
        let on_behalf = |id: &str, person: EntityRef, action: &str, table: &str| {
            let asked = self.attempt(id, bot(), action, entity("Table", table));
            let limit = ("limit".to_owned(), Value { kind: Some(Kind::Long(100)) });
            let context = if action == "read" { [limit].into() } else { asked.context.clone() };
            Attempt { delegation: vec![person], context, ..asked }
        };
        let work = || task(&["read", "export"], &["Table::\"crm/*\"", "Table::\"hr/*\""], self.now_s, 3600);
        let login = |id: &str, person| Session {
            authenticated_at: Some(at(self.now_s - 3600)),
            acr: "pwd".to_owned(),
            task: Some(work()),
            ..session(id, person)
        };
        let again = UpdateSessionRequest {
            id: noras.clone(),
            authenticated_at: Some(at(self.now_s)),
            acr: Some("phr".to_owned()),
            ..UpdateSessionRequest::default()
        };
        let export = || on_behalf(&noras, nora(), "export", "crm/contacts");
        Story {
            title: "The human behind an agent",
            shows: "Every hop of a delegation is judged and the strictest wins: an agent may do what its human may.",
            steps: vec![
                Step::Change("nora logged in by password an hour ago", Change::Open(login(&noras, nora()))),
                Step::Change("so did omar", Change::Open(login(&omars, omar()))),
                ask(on_behalf(&noras, nora(), "read", "hr/salaries"), ALLOW("person-tables")),
                ask(on_behalf(&omars, omar(), "read", "hr/salaries"), DENY("no_permit")),
                ask(export(), STEP_UP("export-needs-fresh-login")),
                Step::Change("nora logs in again, with a passkey", Change::Update(again)),
                ask(export(), ALLOW("person-export")),
                Step::Change("nora logs out", Change::End(noras.clone())),
                ask(export(), DENY("session_revoked")),
            ],
        }
    }

    fn id(&self, name: &str) -> String {
        format!("demo-{}-{name}", self.tag)
    }

    /// With a token that has been in use for an hour.
    fn attempt(&self, session_id: &str, principal: EntityRef, action: &str, resource: EntityRef) -> Attempt {
        Attempt {
            session_id: session_id.to_owned(),
            token: Some(self.token(3600)),
            ..attempt(principal, action, resource)
        }
    }

    fn token(&self, age_s: i64) -> Token {
        Token {
            issuer: "https://idp.acme.example".to_owned(),
            issued_at: Some(at(self.now_s - age_s)),
            expires_at: Some(at(self.now_s + 3600)),
            scopes: vec!["documents.read".to_owned()],
            ..Token::default()
        }
    }
}

fn ask(attempt: Attempt, expected: Expected) -> Step {
    Step::Ask(attempt, 1, expected)
}

fn bot() -> EntityRef {
    entity("Agent", "support-bot")
}

fn researcher() -> EntityRef {
    entity("Agent", "research-bot")
}

fn service() -> EntityRef {
    entity("Service", "payments-batch")
}

fn app() -> EntityRef {
    entity("App", "calendar-sync")
}

fn nora() -> EntityRef {
    entity("Person", "nora")
}

fn omar() -> EntityRef {
    entity("Person", "omar")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn session(id: &str, principal: EntityRef) -> Session {
    Session { id: id.to_owned(), principal: Some(principal), ..Session::default() }
}

fn task(actions: &[&str], resources: &[&str], now_s: i64, for_s: i64) -> Task {
    Task {
        id: "ticket-4711".to_owned(),
        purpose: "answer a support ticket".to_owned(),
        not_before: Some(at(now_s - 60)),
        not_after: Some(at(now_s + for_s)),
        actions: actions.iter().map(|&id| id.to_owned()).collect(),
        resources: resources.iter().map(|&text| text.to_owned()).collect(),
    }
}

fn signal(subject: EntityRef, change: Signalled) -> Signal {
    Signal {
        subject: Some(subject),
        event_time: None,
        source: "cardea demo".to_owned(),
        change: Some(change),
    }
}

fn risk(subject: EntityRef, kind: RiskKind, severity: u32, confidence: u32, reason: &str) -> Signal {
    let observed =
        RiskObserved { kind: kind.into(), severity, confidence, half_life: None, reason: reason.to_owned() };
    signal(subject, Signalled::Risk(observed))
}
