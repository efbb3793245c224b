//! `[ssf]`: signals of other parties.
//!
//! Below it stand tables with names of the operator's choice, which the reader of flat sections does not know; what they
//! hold is read here, with the same kinds of faults.
//! Limits: [`limits::SSF_RECEIVERS_MAX`] receivers, [`limits::SSF_RULES_MAX`] rules each.

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use smol_str::SmolStr;
use toml::Spanned;
use toml::de::DeValue;

use super::read::Reader;
use super::section::Section;
use super::{Fault, Ssf};
use crate::limits;
use crate::ssf::event::EventType;
use crate::ssf::receive::Login;
use crate::ssf::receive::options::{
    Care, ClaimsChange, Delivery, Place, Receiver, RiskScale, Rule, Stream, Template, issuer_member,
};

const RECEIVER: &[&str] = &[
    "issuer",
    "audience",
    "jwks_uri",
    "ca",
    "max_age_h",
    "delivery",
    "authorization_file",
    "poll_endpoint",
    "stream",
    "events",
    "endpoint_url",
    "token_file",
    "client_id",
    "client_secret_file",
    "token_endpoint",
    "scope",
    "critical_subject_members",
    "risk_low",
    "risk_medium",
    "risk_high",
    "risk_compromise",
    "risk_confidence",
    "risk_half_life_s",
    "claims_change",
    "subject",
];
const RULE: &[&str] = &["format", "member", "issuer", "to", "entity", "id"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Push,
    Poll,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Entity,
    Session,
    Device,
    Tenant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Caring {
    Others,
    Keep,
    Delete,
}

const CARES: &[(&str, Caring)] =
    &[("others", Caring::Others), ("keep", Caring::Keep), ("delete", Caring::Delete)];
const WAYS: &[(&str, Way)] = &[("push", Way::Push), ("poll", Way::Poll)];
const TOS: &[(&str, To)] =
    &[("entity", To::Entity), ("session", To::Session), ("device", To::Device), ("tenant", To::Tenant)];
const CLAIMS: &[(&str, ClaimsChange)] =
    &[("reauthenticate", ClaimsChange::Reauthenticate), ("record", ClaimsChange::Record)];

/// Reads the section; `has_tls`: there is a certificate to show.
pub(super) fn ssf(reader: &mut Reader<'_>, base: &Path, has_tls: bool) -> Ssf {
    let listen = listen(reader, has_tls);
    let signals_token_file = reader.text("ssf", "signals_token_file").map(|text| base.join(text.value));
    if signals_token_file.is_some() && listen.is_none() {
        let fault = Fault::new(
            "`ssf.signals_token_file` is set, and `ssf.listen` is not",
            "set `ssf.listen`, which is where scores are reported, or remove the file",
        );
        reader.faults.push(fault.at(reader.section_span("ssf"), "nobody could report"));
    }
    let (root, faults) = reader.parts();
    let mut ssf = Ssf { listen, signals_token_file, receivers: Vec::new(), transmitter: None };
    let section = root.get("ssf").and_then(|section| section.get_ref().as_table());
    if let Some((name, value)) = section.and_then(|section| section.get_key_value("transmitter")) {
        ssf.transmitter = super::transmitter::transmitter(faults, base, name.span(), value);
        if ssf.transmitter.is_some() && ssf.listen.is_none() {
            let fault = Fault::new(
                "`ssf.transmitter` is set up, and `ssf.listen` is not set",
                "set `ssf.listen`: receivers make their streams over HTTP",
            );
            faults.push(fault.at(Some(name.span()), "nobody could reach it"));
        }
    }
    let Some(receivers) = section.and_then(|section| section.get("receiver")) else { return ssf };
    let Some(table) = receivers.get_ref().as_table() else {
        let fault = Fault::new(
            "`ssf.receiver` is a section and not a value",
            "write a section `[ssf.receiver.NAME]`",
        );
        faults.push(fault.at(Some(receivers.span()), "a table belongs here"));
        return ssf;
    };
    if table.len() > limits::SSF_RECEIVERS_MAX {
        let fault = Fault::new(
            format!("there are {} receivers", table.len()),
            format!("keep at most {}", limits::SSF_RECEIVERS_MAX),
        );
        faults.push(fault.at(Some(receivers.span()), "too many"));
    }
    for (name, value) in table {
        ssf.receivers.extend(receiver(faults, base, name.get_ref(), name.span(), value));
    }
    for receiver in &ssf.receivers {
        if matches!(receiver.delivery, Delivery::Push { .. }) && ssf.listen.is_none() {
            faults.push(Fault::new(
                format!("`ssf.receiver.{}` takes pushes, and `ssf.listen` is not set", receiver.name),
                "set `ssf.listen`, or fetch with delivery = \"poll\"",
            ));
        }
    }
    ssf
}

fn listen(reader: &mut Reader<'_>, has_tls: bool) -> Option<SocketAddr> {
    let text = reader.text("ssf", "listen")?;
    let Ok(at) = text.value.parse::<SocketAddr>() else {
        let fault = Fault::new(
            format!("`ssf.listen` has `{}`, which is not an address and port", text.value),
            "give an IP address and a port, such as \"127.0.0.1:7413\"",
        );
        reader.faults.push(fault.at(text.span, "not an address"));
        return None;
    };
    if !at.ip().to_canonical().is_loopback() && !has_tls {
        let fault = Fault::new(
            format!("signals on `{at}` are beyond loopback and there is no TLS"),
            "add a [tls] section, or listen on 127.0.0.1 or [::1] behind a proxy with TLS",
        );
        reader.faults.push(fault.at(text.span, "whoever is on the way could read and hold back signals"));
        return None;
    }
    Some(at)
}

fn receiver(
    faults: &mut Vec<Fault>,
    base: &Path,
    name: &str,
    span: Range<usize>,
    value: &Spanned<DeValue<'_>>,
) -> Option<Receiver> {
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if name.is_empty() || name.len() > limits::SSF_NAME_BYTES_MAX || !name.bytes().all(is_name) {
        let fault = Fault::new(
            format!("`{name}` is no name for a receiver"),
            "use lower-case letters, digits, `-` and `_`: it stands in the path of pushes and in metrics",
        );
        faults.push(fault.at(Some(span), "not a name"));
        return None;
    }
    let mut section = Section::new(faults, format!("ssf.receiver.{name}"), span, value)?;
    section.known(RECEIVER);
    let before = section.faults.len();
    let issuer = section.required("issuer").and_then(|text| section.address("issuer", &text.value));
    let audience = section.texts("audience");
    if audience.is_empty() {
        section.fault("audience", "is missing", "name what `aud` of its tokens holds for this service");
    }
    let delivery = delivery(&mut section, base);
    let login = login(&mut section, base);
    let stream = stream(&mut section, &delivery);
    if matches!(delivery, Delivery::Poll { endpoint: None }) && stream == Care::Others {
        section.fault(
            "poll_endpoint",
            "is missing",
            "say where tokens are fetched, or let the stream be kept with stream = \"keep\"",
        );
    }
    let risk = risk(&mut section);
    let rules = issuer.as_ref().map(|issuer| rules(&mut section, issuer.text())).unwrap_or_default();
    let receiver = Receiver {
        name: name.into(),
        issuer: issuer?,
        audience,
        jwks_uri: section.optional_address("jwks_uri"),
        ca: section.path(base, "ca"),
        max_age_h: section.number("max_age_h", 168, limits::SSF_MAX_AGE_H_RANGE),
        delivery,
        login,
        stream,
        critical: section.texts("critical_subject_members"),
        rules,
        risk,
        claims_change: section.word("claims_change", ClaimsChange::Reauthenticate, CLAIMS),
    };
    (section.faults.len() == before).then_some(receiver)
}

fn delivery(section: &mut Section<'_, '_>, base: &Path) -> Delivery {
    let way = section.word("delivery", Way::Push, WAYS);
    let authorization_file = section.path(base, "authorization_file");
    let endpoint = section.optional_address("poll_endpoint");
    match way {
        Way::Push => {
            if endpoint.is_some() {
                section.fault(
                    "poll_endpoint",
                    "is for delivery = \"poll\"",
                    "remove it, or change the delivery",
                );
            }
            Delivery::Push { authorization_file }
        }
        Way::Poll => {
            if authorization_file.is_some() {
                section.fault(
                    "authorization_file",
                    "is for delivery = \"push\"",
                    "remove it; who fetches says who it is with token_file",
                );
            }
            Delivery::Poll { endpoint }
        }
    }
}

fn login(section: &mut Section<'_, '_>, base: &Path) -> Login {
    let token = section.path(base, "token_file");
    let id = section.text("client_id");
    let secret_file = section.path(base, "client_secret_file");
    let endpoint = section.optional_address("token_endpoint");
    let scope = section.text("scope");
    match (token, id, secret_file, endpoint) {
        (None, None, None, None) => Login::Nobody,
        (Some(file), None, None, None) => Login::Token(file),
        (None, Some(id), Some(secret_file), Some(endpoint)) => {
            Login::Client { endpoint, id: id.value, secret_file, scope: scope.map(|scope| scope.value) }
        }
        _ => {
            let remedy = "give token_file, or client_id with client_secret_file and token_endpoint: not both, and not a part";
            section.fault("token_file", "and the client's credentials do not fit together", remedy);
            Login::Nobody
        }
    }
}

fn stream(section: &mut Section<'_, '_>, delivery: &Delivery) -> Care {
    let care = section.word("stream", Caring::Others, CARES);
    let named = section.texts("events");
    let endpoint_url = section.optional_address("endpoint_url");
    let understood = || EventType::ALL.iter().copied().filter(|kind| !kind.is_of_stream());
    let mut events = Vec::new();
    for name in &named {
        match understood().find(|kind| kind.name() == name || kind.uri() == name.as_str()) {
            Some(kind) => events.push(kind.uri()),
            None => {
                let all: Vec<&str> = understood().map(EventType::name).collect();
                let remedy = format!("name some of {}", all.join(", "));
                section.fault("events", &format!("names `{name}`, which is no event"), &remedy);
            }
        }
    }
    if care == Caring::Others {
        if !named.is_empty() || endpoint_url.is_some() {
            let remedy = "`events` and `endpoint_url` are for a stream that is kept with stream = \"keep\"";
            section.fault("stream", "is not set", remedy);
        }
        return Care::Others;
    }
    let is_push = matches!(delivery, Delivery::Push { .. });
    if is_push != endpoint_url.is_some() {
        section.fault(
            "endpoint_url",
            "does not fit the delivery",
            "say with delivery = \"push\", and only then, at which address the transmitter reaches `/ssf/push/NAME`",
        );
    }
    if named.is_empty() {
        events = understood().map(EventType::uri).collect();
    }
    let stream = Stream { events, endpoint_url };
    if care == Caring::Keep { Care::Keep(stream) } else { Care::Delete(stream) }
}

fn risk(section: &mut Section<'_, '_>) -> RiskScale {
    let default = RiskScale::default();
    let mut percent =
        |key, default: u8| u8::try_from(section.number(key, default.into(), 0..=100)).unwrap_or(default);
    let (low, medium) = (percent("risk_low", default.low), percent("risk_medium", default.medium));
    let (high, compromise) =
        (percent("risk_high", default.high), percent("risk_compromise", default.compromise));
    let confidence = percent("risk_confidence", default.confidence);
    let half_life = section.number("risk_half_life_s", default.half_life_s.into(), 1..=30 * 86_400);
    let half_life_s = u32::try_from(half_life).unwrap_or(default.half_life_s);
    RiskScale { low, medium, high, compromise, confidence, half_life_s }
}

fn rules(section: &mut Section<'_, '_>, receiver_issuer: &str) -> Vec<Rule> {
    let Some(value) = section.table.get("subject") else {
        let remedy = "write sections `[[ssf.receiver.NAME.subject]]` that say what its subjects are here";
        section.fault("subject", "is missing", remedy);
        return Vec::new();
    };
    let entries = value.get_ref().as_array().filter(|entries| entries.len() <= limits::SSF_RULES_MAX);
    let Some(entries) = entries else {
        let remedy =
            format!("write at most {} sections `[[ssf.receiver.NAME.subject]]`", limits::SSF_RULES_MAX);
        section.fault("subject", "is no list of tables", &remedy);
        return Vec::new();
    };
    let mut rules = Vec::new();
    for entry in entries {
        let path = format!("{}.subject", section.path);
        if let Some(mut entry) = Section::new(section.faults, path, entry.span(), entry) {
            rules.extend(rule(&mut entry, receiver_issuer));
        }
    }
    rules
}

fn rule(section: &mut Section<'_, '_>, receiver_issuer: &str) -> Option<Rule> {
    section.known(RULE);
    let format: SmolStr = section.required("format")?.value.into();
    let member = section.text("member").map_or_else(|| "user".into(), |text| SmolStr::from(text.value));
    let entity = section.text("entity").map(|text| text.value);
    let by_member = match (entity.is_some(), member.as_str()) {
        (true, _) => To::Entity,
        (false, "session") => To::Session,
        (false, "device") => To::Device,
        (false, "tenant") => To::Tenant,
        (false, _) => To::Entity,
    };
    let place = match (section.word("to", by_member, TOS), entity) {
        (To::Entity, Some(entity)) => Place::Entity(entity),
        (To::Entity, None) => {
            section.fault("entity", "is missing", "name the entity type, such as \"User\", or set `to`");
            return None;
        }
        (_, Some(_)) => {
            section.fault("entity", "is for to = \"entity\"", "remove it, or remove `to`");
            return None;
        }
        (To::Session, None) => Place::Session,
        (To::Device, None) => Place::Device,
        (To::Tenant, None) => Place::Tenant,
    };
    let id = section.required("id")?;
    let id = match Template::parse(&id.value, &format) {
        Ok(id) => id,
        Err(why) => {
            section.fault("id", &why, "write a template such as \"{sub}\"");
            return None;
        }
    };
    let named = section.text("issuer").map(|text| SmolStr::from(text.value));
    // A transmitter must not speak of the users of another one only because their names are alike.
    let issuer = match issuer_member(&format) {
        Some(holder) if named.is_none() && !id.names(holder) => Some(receiver_issuer.into()),
        _ => named,
    };
    if issuer.is_some() && issuer_member(&format).is_none() {
        section.fault("issuer", "is for formats that name an issuer", "remove it");
        return None;
    }
    Some(Rule { member, format, issuer, place, id })
}
