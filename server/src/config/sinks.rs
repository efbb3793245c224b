//! `[audit.sink.NAME]`: what the audit is sent to.
//!
//! Limits: [`limits::SINKS_MAX`] sinks. What goes to another machine goes over TLS.

use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;

use cardea_proto::v1;
use reqwest::Url;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Fault;
use super::section::Section;
use crate::audit::Filter;
use crate::audit::sinks::format::Format;
use crate::audit::sinks::options::{FileTo, From, HttpTo, KafkaTo, NatsTo, SinkOptions, To};
use crate::limits;
use crate::proving::words::Named;
use crate::remote::is_loopback;

const OF_ALL: [&str; 10] =
    ["type", "format", "from", "decisions", "kinds", "principal", "action", "door", "severities", "changes"];
const OF_FILE: &[&str] = &["path", "rotate_mb", "keep"];
const OF_STDOUT: &[&str] = &[];
const OF_HTTP: &[&str] = &["url", "authorization_file", "ca", "gzip"];
const OF_NATS: &[&str] = &["url", "subject", "credentials_file", "ca"];
const OF_KAFKA: &[&str] = &["brokers", "topic", "partition", "tls", "ca", "username", "password_file"];

/// Size of a file after which the next one begins, in MiB, unless configured.
const ROTATE_MB: u64 = 128;
const SUBJECT: &str = "cardea.audit";
/// Stands for: picked by the log's id.
const ANY_PARTITION: u64 = 1 << 31;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Stdout,
    Http,
    Nats,
    Kafka,
    Otlp,
}

const KINDS: &[(&str, Kind)] = &[
    ("file", Kind::File),
    ("stdout", Kind::Stdout),
    ("http", Kind::Http),
    ("nats", Kind::Nats),
    ("kafka", Kind::Kafka),
    ("otlp", Kind::Otlp),
];
const FROMS: &[(&str, From)] = &[("start", From::Start), ("now", From::Now)];

/// Reads the sections.
pub(super) fn sinks(root: &DeTable<'_>, faults: &mut Vec<Fault>, base: &Path) -> Vec<SinkOptions> {
    let found = root.get("audit").and_then(|audit| audit.get_ref().as_table()?.get("sink"));
    let Some(found) = found else { return Vec::new() };
    let Some(table) = found.get_ref().as_table() else {
        let fault =
            Fault::new("`audit.sink` is a section and not a value", "write a section `[audit.sink.NAME]`");
        faults.push(fault.at(Some(found.span()), "a table belongs here"));
        return Vec::new();
    };
    if table.len() > limits::SINKS_MAX {
        let fault = Fault::new(
            format!("there are {} sinks", table.len()),
            format!(
                "keep at most {}; a collector such as Vector or the OpenTelemetry Collector sends records on",
                limits::SINKS_MAX
            ),
        );
        faults.push(fault.at(Some(found.span()), "too many"));
    }
    let read =
        table.iter().filter_map(|(name, value)| sink(faults, base, name.get_ref(), name.span(), value));
    let sinks: Vec<SinkOptions> = read.collect();
    if sinks.iter().filter(|sink| sink.to == To::Stdout).count() > 1 {
        let fault = Fault::new("more than one sink writes on standard output", "keep one of them");
        faults.push(fault.at(Some(found.span()), "their lines could not be told apart"));
    }
    sinks
}

fn sink(
    faults: &mut Vec<Fault>,
    base: &Path,
    name: &str,
    span: Range<usize>,
    value: &Spanned<DeValue<'_>>,
) -> Option<SinkOptions> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > limits::SINK_NAME_BYTES_MAX || !name.bytes().all(is_name) {
        let fault = Fault::new(
            format!("`{name}` is no name for a sink"),
            format!(
                "use at most {} lower-case letters, digits, `-` and `_`: it stands in metrics and in names of files",
                limits::SINK_NAME_BYTES_MAX
            ),
        );
        faults.push(fault.at(Some(span), "not a name"));
        return None;
    }
    let mut section = Section::new(faults, format!("audit.sink.{name}"), span, value)?;
    let before = section.faults.len();
    section.required("type")?;
    let kind = section.word("type", Kind::File, KINDS);
    let own = match kind {
        Kind::File => OF_FILE,
        Kind::Stdout => OF_STDOUT,
        Kind::Http | Kind::Otlp => OF_HTTP,
        Kind::Nats => OF_NATS,
        Kind::Kafka => OF_KAFKA,
    };
    if section.faults.len() == before {
        let known: Vec<&str> = OF_ALL.iter().chain(own).copied().collect();
        section.known(&known);
    }
    let to = match kind {
        Kind::File => file(&mut section, base).map(To::File),
        Kind::Stdout => Some(To::Stdout),
        Kind::Http => http(&mut section, base).map(To::Http),
        Kind::Nats => nats(&mut section, base).map(To::Nats),
        Kind::Kafka => kafka(&mut section, base).map(To::Kafka),
        Kind::Otlp => http(&mut section, base).map(To::Otlp),
    };
    let options = SinkOptions {
        name: name.into(),
        format: section.word("format", Format::Json, &Format::ALL),
        filter: filter(&mut section),
        from: section.word("from", From::Start, FROMS),
        to: to?,
    };
    (section.faults.len() == before).then_some(options)
}

fn filter(section: &mut Section<'_, '_>) -> Filter {
    let mut filter = Filter { changes: section.flag("changes", false), ..Filter::default() };
    for text in section.texts("decisions") {
        match v1::Decision::from_str_name(&format!("DECISION_{}", text.to_ascii_uppercase())) {
            Some(v1::Decision::Unspecified) | None => section.fault(
                "decisions",
                &format!("has `{text}`, which is no answer"),
                "list some of \"allow\", \"step_up\" and \"deny\"",
            ),
            Some(decision) => filter.decisions.push(decision),
        }
    }
    for text in section.texts("kinds") {
        match v1::RecordKind::from_str_name(&format!("RECORD_KIND_{}", text.to_ascii_uppercase())) {
            Some(v1::RecordKind::Unspecified) | None => section.fault(
                "kinds",
                &format!("has `{text}`, which is no kind of record"),
                "list some of \"decision\", \"session\", \"signal\", \"task\", \"review\", \"bundle\", \"shadow\", \"stream\", \
                 \"withheld\", \"gap\" and \"retention\"",
            ),
            Some(kind) => filter.kinds.push(kind),
        }
    }
    if let Some(text) = section.text("principal") {
        match text.value.parse::<Named>() {
            Ok(named) => filter.principal = Some(v1::EntityRef { r#type: named.type_name, id: named.id }),
            Err(_) => section.fault("principal", "is no entity", "write it as 'Type::\"id\"'"),
        }
    }
    filter.action = section.text("action").map(|text| text.value.into());
    filter.door = section.text("door").map(|text| text.value.into());
    filter.severities = section.texts("severities");
    filter
}

fn file(section: &mut Section<'_, '_>, base: &Path) -> Option<FileTo> {
    section.required("path")?;
    Some(FileTo {
        path: section.path(base, "path")?,
        rotate_bytes: section.number("rotate_mb", ROTATE_MB, limits::SINK_ROTATE_MB_RANGE) << 20,
        keep: usize::try_from(section.number("keep", 0, limits::SINK_KEEP_RANGE)).unwrap_or(0),
    })
}

fn http(section: &mut Section<'_, '_>, base: &Path) -> Option<HttpTo> {
    let url = section.required("url")?;
    Some(HttpTo {
        url: section.address("url", &url.value)?,
        authorization_file: section.path(base, "authorization_file"),
        ca: section.path(base, "ca"),
        gzip: section.flag("gzip", true),
    })
}

fn nats(section: &mut Section<'_, '_>, base: &Path) -> Option<NatsTo> {
    let url = section.required("url")?.value;
    let parsed = Url::parse(&url).ok().filter(|url| url.host_str().is_some());
    let is_fine = parsed.as_ref().is_some_and(|url| match url.scheme() {
        "tls" => true,
        "nats" => is_loopback(url),
        _ => false,
    });
    if !is_fine {
        section.fault(
            "url",
            "cannot be used",
            "give an address such as \"tls://nats.example:4222\"; nats:// is for loopback only",
        );
    } else if parsed.is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        section.fault(
            "url",
            "has a user or a password",
            "put credentials into a file, and name it with credentials_file",
        );
    }
    let subject = section.text("subject").map_or_else(|| SUBJECT.to_owned(), |text| text.value);
    if subject.is_empty()
        || subject.contains(|one: char| one.is_whitespace() || one.is_control() || "*>".contains(one))
    {
        section.fault("subject", "is none that can be published to", "give one without wildcards and spaces");
    }
    Some(NatsTo {
        url,
        subject,
        credentials_file: section.path(base, "credentials_file"),
        ca: section.path(base, "ca"),
    })
}

fn kafka(section: &mut Section<'_, '_>, base: &Path) -> Option<KafkaTo> {
    let topic = section.required("topic")?.value;
    let brokers: Vec<String> = section.texts("brokers").iter().map(ToString::to_string).collect();
    let tls = section.flag("tls", true);
    if brokers.is_empty() {
        section.fault("brokers", "is missing", "list some brokers, such as [\"kafka.example:9093\"]");
    }
    for broker in &brokers {
        let host =
            broker.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        match host {
            None => section.fault(
                "brokers",
                &format!("has `{broker}`"),
                "give host and port: \"kafka.example:9093\"",
            ),
            Some((host, _)) if !tls && !is_local(host) => section.fault(
                "tls",
                &format!("is off, and `{broker}` is another machine"),
                "remove it; plain text is for loopback only",
            ),
            Some(_) => {}
        }
    }
    let login = match (section.text("username"), section.path(base, "password_file")) {
        (Some(username), Some(file)) => Some((username.value, file)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            section.fault("username", "and `password_file` belong together", "give both or none");
            None
        }
    };
    let partition = section.number("partition", ANY_PARTITION, 0..=ANY_PARTITION - 1);
    Some(KafkaTo {
        brokers,
        topic,
        partition: i32::try_from(partition).ok(),
        tls,
        ca: section.path(base, "ca"),
        login,
    })
}

fn is_local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Overrides};
    use super::*;

    fn parse(text: &str) -> Result<Vec<SinkOptions>, String> {
        let parsed = Config::parse("cardea.toml", text, Path::new("/etc/cardea"), &Overrides::default());
        parsed.map(|config| config.audit.sinks).map_err(|faults| {
            faults.all().iter().map(|fault| format!("{fault} | {}\n", fault.remedy())).collect()
        })
    }

    #[test]
    fn each_kind_is_read_with_its_defaults() {
        let sinks = parse(
            r#"
[audit.sink.a]
type = "file"
path = "out/audit.jsonl"
[audit.sink.b]
type = "http"
url = "https://siem.example/in"
format = "ocsf"
decisions = ["deny", "step_up"]
severities = ["high"]
[audit.sink.c]
type = "nats"
url = "nats://127.0.0.1:4222"
from = "now"
[audit.sink.d]
type = "kafka"
brokers = ["kafka.example:9093"]
topic = "audit"
[audit.sink.e]
type = "otlp"
url = "http://localhost:4318/v1/logs"
[audit.sink.f]
type = "stdout"
principal = 'Agent::"a1"'
"#,
        )
        .unwrap();
        assert_eq!(
            sinks.iter().map(|sink| sink.to.kind()).collect::<Vec<_>>(),
            ["file", "http", "nats", "kafka", "otlp", "stdout"]
        );
        let To::File(file) = &sinks[0].to else { panic!() };
        assert_eq!(
            (file.path.as_path(), file.rotate_bytes),
            (Path::new("/etc/cardea/out/audit.jsonl"), 128 << 20)
        );
        assert_eq!(sinks[1].filter.decisions, [v1::Decision::Deny, v1::Decision::StepUp]);
        assert_eq!((sinks[0].from, sinks[2].from), (From::Start, From::Now));
        let To::Kafka(kafka) = &sinks[3].to else { panic!() };
        assert_eq!((kafka.tls, kafka.partition), (true, None));
        assert_eq!(sinks[5].filter.principal.as_ref().unwrap().id, "a1");
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_remedy() {
        for (text, why) in [
            ("[audit.sink.a]\n", "`audit.sink.a.type` is missing"),
            ("[audit.sink.a]\ntype = \"fil\"", "did you mean \"file\"?"),
            ("[audit.sink.\"a/b\"]\ntype = \"stdout\"", "no name for a sink"),
            ("[audit]\nsink = 1", "write a section `[audit.sink.NAME]`"),
            ("[audit.sink.a]\ntype = \"file\"", "`audit.sink.a.path` is missing"),
            (
                "[audit.sink.a]\ntype = \"file\"\npath = \"x\"\nurl = \"y\"",
                "there is no key `audit.sink.a.url`",
            ),
            (
                "[audit.sink.a]\ntype = \"http\"\nurl = \"http://siem.example/\"",
                "http:// is for loopback only",
            ),
            (
                "[audit.sink.a]\ntype = \"nats\"\nurl = \"nats://nats.example:4222\"",
                "nats:// is for loopback only",
            ),
            (
                "[audit.sink.a]\ntype = \"nats\"\nurl = \"tls://me:secret@nats.example:4222\"",
                "credentials_file",
            ),
            (
                "[audit.sink.a]\ntype = \"nats\"\nurl = \"tls://n.example\"\nsubject = \"a.>\"",
                "without wildcards",
            ),
            ("[audit.sink.a]\ntype = \"kafka\"\ntopic = \"t\"", "list some brokers"),
            (
                "[audit.sink.a]\ntype = \"kafka\"\ntopic = \"t\"\nbrokers = [\"k.example:9092\"]\ntls = false",
                "another machine",
            ),
            ("[audit.sink.a]\ntype = \"kafka\"\ntopic = \"t\"\nbrokers = [\"kafka\"]", "give host and port"),
            ("[audit.sink.a]\ntype = \"stdout\"\ndecisions = [\"maybe\"]", "which is no answer"),
            ("[audit.sink.a]\ntype = \"stdout\"\nkinds = [\"maybe\"]", "which is no kind of record"),
            ("[audit.sink.a]\ntype = \"stdout\"\nprincipal = \"me\"", "is no entity"),
            ("[audit.sink.a]\ntype = \"stdout\"\n[audit.sink.b]\ntype = \"stdout\"", "more than one sink"),
            (
                "[audit.sink.a]\ntype = \"stdout\"\nformat = \"xml\"",
                "\"json\" or \"ocsf\" or \"cloudevents\"",
            ),
        ] {
            let faults = parse(text).unwrap_err();
            assert!(faults.contains(why), "{why}: {faults}");
        }
    }
}
