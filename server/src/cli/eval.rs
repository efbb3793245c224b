//! `cardea eval`: requests against plain Cedar policies, through the same index and the same `decide` as the server.
#![expect(clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use cardea_core::attempt::Attempt;
use cardea_core::decide::{Question, decide};
use cardea_core::facts::Facts;
use cardea_core::time::Now;
use cardea_core::verdict::Verdict;
use cardea_policy_store::engine::{Record, Uid};
use cardea_policy_store::load::{self, CedarLoaded, CedarSources, chain};
use cardea_policy_store::settings;
use cardea_policy_store::snapshot::Snapshot;
use cedar_policy::{Context, EntityUid, Request, Schema};
use serde::{Deserialize, Serialize};

use super::{EvalArgs, OnPolicyError, drawn::drawn, exit};
use crate::pipeline::reason_text;

/// Longest request, in bytes.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// `{"type":"T","id":"x"}` or `T::"x"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Reference {
    Parts {
        #[serde(rename = "type")]
        type_name: String,
        id: String,
    },
    Text(String),
}

#[derive(Deserialize)]
struct Asked {
    principal: Reference,
    action: Reference,
    resource: Reference,
    #[serde(default)]
    context: Option<serde_json::Value>,
}

#[derive(Serialize)]
struct Answer<'a> {
    decision: &'a str,
    determining: Vec<&'a str>,
    errors: Vec<&'a str>,
    reasons: Vec<Reason<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Reason<'a> {
    code: &'a str,
    message: &'a str,
}

pub(super) fn run(args: &EvalArgs) -> ExitCode {
    let sources = CedarSources {
        policies: &args.policies,
        schema: args.schema.as_deref(),
        entities: args.entities.as_deref(),
        on_policy_error: match args.on_policy_error {
            OnPolicyError::Deny => settings::OnPolicyError::Deny,
            OnPolicyError::Skip => settings::OnPolicyError::Skip,
        },
    };
    let loaded = match load::cedar(&sources) {
        Ok(loaded) => loaded,
        Err(faults) => {
            for fault in faults.list() {
                eprint!("{}", drawn(fault));
            }
            return ExitCode::from(exit::COULD_NOT_RUN);
        }
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let requests: Box<dyn BufRead> = if args.requests == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        match File::open(&args.requests) {
            Ok(file) => Box::new(BufReader::new(file)),
            Err(error) => {
                eprintln!("{}: cannot be read: {error}", args.requests.display());
                return ExitCode::from(exit::COULD_NOT_RUN);
            }
        }
    };
    match answer_all(&loaded, requests, BufWriter::new(io::stdout().lock())) {
        Ok(()) => ExitCode::from(exit::FINE),
        // Whoever read the answers has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(exit::FINE),
        Err(error) => {
            eprintln!("requests or answers broke off: {error}");
            ExitCode::from(exit::COULD_NOT_RUN)
        }
    }
}

fn answer_all(loaded: &CedarLoaded, mut requests: impl BufRead, mut out: impl Write) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = io::Read::take(&mut requests, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return out.flush();
        }
        let is_cut =
            !line.ends_with(b"\n") && u64::try_from(line.len()).is_ok_and(|len| len >= LINE_BYTES_MAX);
        if is_cut {
            skip_line(&mut requests)?;
        }
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let asked = match is_cut {
            true => Err(format!("a request has at most {LINE_BYTES_MAX} bytes")),
            false => attempt(text, loaded.schema.as_ref()),
        };
        match asked {
            Ok(attempt) => {
                let verdict = judge(&loaded.snapshot, &attempt);
                serde_json::to_writer(&mut out, &answer(&loaded.snapshot, &verdict))?;
            }
            Err(error) => {
                let unread = Answer {
                    decision: "deny",
                    determining: Vec::new(),
                    errors: Vec::new(),
                    reasons: vec![Reason { code: "malformed", message: "the request cannot be read" }],
                    error: Some(error),
                };
                serde_json::to_writer(&mut out, &unread)?;
            }
        }
        out.write_all(b"\n")?;
    }
}

fn skip_line(requests: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = requests.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                requests.consume(at + 1);
                return Ok(());
            }
            None => {
                let length = buffer.len();
                requests.consume(length);
            }
        }
    }
}

fn judge(snapshot: &Snapshot, attempt: &Attempt) -> Verdict {
    // Nothing is gathered and no time passes where the caller gives the whole context.
    decide(&Question::new(snapshot, attempt), &Facts::default(), Now { mono_ns: 0, wall_ms: 0 })
}

fn attempt(line: &[u8], schema: Option<&Schema>) -> Result<Attempt, String> {
    let asked: Asked = serde_json::from_slice(line).map_err(|error| {
        format!("not a request, {{\"principal\":P,\"action\":A,\"resource\":R,\"context\":{{}}}}: {error}")
    })?;
    let principal = uid("principal", &asked.principal)?;
    let action = uid("action", &asked.action)?;
    let resource = uid("resource", &asked.resource)?;
    let context = match asked.context {
        Some(context) => Context::from_json_value(context, schema.map(|schema| (schema, &action)))
            .map_err(|error| format!("context: {}", chain(&error)))?,
        None => Context::empty(),
    };
    if let Some(schema) = schema {
        let (principal, action, resource) = (principal.clone(), action.clone(), resource.clone());
        Request::new(principal, action, resource, context.clone(), Some(schema))
            .map_err(|error| format!("the request does not fit the schema: {}", chain(&error)))?;
    }
    let context = Record::from_context(&context).ok_or("context: holds unknowns")?;
    Ok(Attempt::given(Uid::from(&principal), Uid::from(&action), Uid::from(&resource), context))
}

fn uid(role: &str, reference: &Reference) -> Result<EntityUid, String> {
    match reference {
        Reference::Parts { type_name, id } => {
            let json = serde_json::json!({ "type": type_name, "id": id });
            EntityUid::from_json(json).map_err(|error| format!("{role}: {}", chain(&error)))
        }
        Reference::Text(text) => text.parse().map_err(|error| format!("{role}: {}", chain(&error))),
    }
}

fn answer<'a>(snapshot: &'a Snapshot, verdict: &'a Verdict) -> Answer<'a> {
    let name = |at: &u32| snapshot.policy(*at).map(|policy| policy.id.as_str());
    let reasons = verdict.reasons().iter().map(|reason| Reason {
        code: reason.code.name(),
        message: reason_text(*reason, verdict, Some(snapshot)),
    });
    Answer {
        decision: verdict.decision().name(),
        determining: verdict.determining().iter().filter_map(name).collect(),
        errors: verdict.errors().iter().filter_map(|(at, _)| name(at)).collect(),
        reasons: reasons.collect(),
        error: None,
    }
}
