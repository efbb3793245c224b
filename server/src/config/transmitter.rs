//! `[ssf.transmitter]`: signals to other parties.
//!
//! Limits: [`limits::SSF_STREAM_OWNERS_MAX`] receivers, and the bounds of each number in `limits.rs`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::Fault;
use super::section::Section;
use crate::limits;
use crate::ssf::transmit::{Options, PushHost, Receiver, Scopes, TEMPLATE_DEFAULT, Template, Urls};

/// Every key, in the order of the reference file.
const TRANSMITTER: &[&str] =
    &["issuer", "key_days", "outbox_max", "min_verification_interval_s", "ca", "subject", "receiver"];
const RECEIVER: &[&str] = &["name", "token_file", "audience", "scopes", "push_hosts", "transmits_as"];

/// Days that a key signs, unless configured: an event of a stolen key is believed for a month at most.
const KEY_DAYS: u64 = 30;
/// Events of one stream that wait, unless configured: about 10 MB.
const OUTBOX_MAX: u64 = 10_000;
/// Seconds between two verifications of a stream, unless configured.
const VERIFICATION_INTERVAL_S: u64 = 30;

/// Reads the section.
pub(super) fn transmitter(
    faults: &mut Vec<Fault>,
    base: &Path,
    span: Range<usize>,
    value: &Spanned<DeValue<'_>>,
) -> Option<Options> {
    let mut section = Section::new(faults, "ssf.transmitter".to_owned(), span, value)?;
    section.known(TRANSMITTER);
    let before = section.faults.len();
    let urls = section.required("issuer").and_then(|issuer| match Urls::new(&issuer.value) {
        Ok(urls) => Some(urls),
        Err(why) => {
            section.fault("issuer", &why, "give the address that receivers reach this service at");
            None
        }
    });
    let template = section.text("subject").map_or_else(|| TEMPLATE_DEFAULT.to_owned(), |text| text.value);
    let subject = match Template::parse(&template) {
        Ok(subject) => Some(subject),
        Err(why) => {
            section.fault("subject", &why, &format!("write a subject in JSON, such as '{TEMPLATE_DEFAULT}'"));
            None
        }
    };
    let outbox_max = section.number("outbox_max", OUTBOX_MAX, limits::SSF_OUTBOX_RANGE);
    let options = Options {
        key_days: section.number("key_days", KEY_DAYS, limits::SSF_KEY_DAYS_RANGE),
        outbox_max: usize::try_from(outbox_max).unwrap_or(usize::MAX),
        min_verification_interval_s: section.number(
            "min_verification_interval_s",
            VERIFICATION_INTERVAL_S,
            limits::SSF_VERIFICATION_INTERVAL_RANGE,
        ),
        ca: section.path(base, "ca"),
        receivers: receivers(&mut section, base),
        urls: urls?,
        subject: subject?,
    };
    (section.faults.len() == before).then_some(options)
}

fn receivers(section: &mut Section<'_, '_>, base: &Path) -> Vec<Receiver> {
    let remedy = format!(
        "write from 1 to {} sections `[[ssf.transmitter.receiver]]`, one for each that may have streams",
        limits::SSF_STREAM_OWNERS_MAX
    );
    let Some(value) = section.table.get("receiver") else {
        section.fault("receiver", "is missing", &remedy);
        return Vec::new();
    };
    let fits = 1..=limits::SSF_STREAM_OWNERS_MAX;
    let Some(entries) = value.get_ref().as_array().filter(|entries| fits.contains(&entries.len())) else {
        section.fault("receiver", "is no list of tables", &remedy);
        return Vec::new();
    };
    let (mut receivers, mut names): (Vec<Receiver>, BTreeSet<String>) = (Vec::new(), BTreeSet::new());
    for entry in entries {
        let path = "ssf.transmitter.receiver".to_owned();
        let Some(mut entry) = Section::new(section.faults, path, entry.span(), entry) else { continue };
        let Some(receiver) = receiver(&mut entry, base) else { continue };
        if !names.insert(receiver.name.clone()) {
            entry.fault(
                "name",
                &format!("`{}` stands twice", receiver.name),
                "give each receiver its own name",
            );
        }
        receivers.push(receiver);
    }
    receivers
}

fn receiver(section: &mut Section<'_, '_>, base: &Path) -> Option<Receiver> {
    section.known(RECEIVER);
    let name = section.required("name")?.value;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > limits::SSF_NAME_BYTES_MAX || !name.bytes().all(is_name) {
        section.fault(
            "name",
            &format!("cannot be `{name}`"),
            "use letters, digits, `-`, `_` and `.`: it stands in records",
        );
        return None;
    }
    let audience = section.required("audience")?.value;
    section.required("token_file")?;
    let token_file = section.path(base, "token_file")?;
    let mut push_hosts = Vec::new();
    for text in section.texts("push_hosts") {
        match PushHost::parse(&text) {
            Some(host) => push_hosts.push(host),
            None => section.fault(
                "push_hosts",
                &format!("has `{text}`, which is no host"),
                "give hosts such as \"rp.example\" or \"rp.example:8443\", without wildcards",
            ),
        }
    }
    if push_hosts.len() > limits::SSF_PUSH_HOSTS_MAX {
        let most = format!("keep at most {}", limits::SSF_PUSH_HOSTS_MAX);
        section.fault("push_hosts", "has too many hosts", &most);
    }
    let transmits_as = section.text("transmits_as").map(|text| text.value);
    let scopes = scopes(section);
    Some(Receiver { name, token_file, audience, scopes, push_hosts, transmits_as })
}

fn scopes(section: &mut Section<'_, '_>) -> Scopes {
    if section.table.get("scopes").is_none() {
        return Scopes { read: true, manage: true };
    }
    let mut scopes = Scopes { read: false, manage: false };
    for text in section.texts("scopes") {
        match text.as_str() {
            "ssf.read" => scopes.read = true,
            "ssf.manage" => scopes.manage = true,
            other => section.fault(
                "scopes",
                &format!("has `{other}`"),
                "there are \"ssf.read\" (to see its streams) and \"ssf.manage\" (to change them and fetch events)",
            ),
        }
    }
    scopes
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Overrides};
    use super::*;

    const GOOD: &str = r#"
[ssf]
listen = "127.0.0.1:7413"
[ssf.transmitter]
issuer = "https://pdp.example/"
[[ssf.transmitter.receiver]]
name = "crm"
token_file = "crm-token"
audience = "https://crm.example/"
push_hosts = ["crm.example"]
"#;

    fn parse(text: &str) -> Result<Config, String> {
        let parsed = Config::parse("cardea.toml", text, Path::new("/etc/cardea"), &Overrides::default());
        parsed.map_err(|faults| {
            faults.all().iter().map(|fault| format!("{fault} | {}\n", fault.remedy())).collect()
        })
    }

    #[test]
    fn a_transmitter_is_read_with_its_defaults() {
        let options = parse(GOOD).unwrap().ssf.transmitter.unwrap();
        assert_eq!((options.key_days, options.outbox_max), (30, 10_000));
        assert_eq!(options.subject, Template::parse(TEMPLATE_DEFAULT).unwrap());
        let receiver = &options.receivers[0];
        assert_eq!(receiver.token_file, Path::new("/etc/cardea/crm-token"));
        assert_eq!(receiver.scopes, Scopes { read: true, manage: true });
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_remedy() {
        for (from, to, why) in [
            ("issuer = \"https://pdp.example/\"", "issuer = \"http://pdp.example/\"", "must be an https URL"),
            ("issuer = \"https://pdp.example/\"", "", "`ssf.transmitter.issuer` is missing"),
            ("listen = \"127.0.0.1:7413\"", "", "`ssf.listen` is not set"),
            ("name = \"crm\"", "name = \"c/m\"", "cannot be `c/m`"),
            ("name = \"crm\"", "nam = \"crm\"", "did you mean `name`?"),
            ("token_file = \"crm-token\"", "", "`ssf.transmitter.receiver.token_file` is missing"),
            ("push_hosts = [\"crm.example\"]", "push_hosts = [\"*.example\"]", "is no host"),
            ("push_hosts = [\"crm.example\"]", "scopes = [\"ssf.write\"]", "has `ssf.write`"),
            (
                "issuer =",
                "subject = '{\"format\":\"opaque\",\"id\":\"{who}\"}'\nissuer =",
                "asks for `{who}`",
            ),
            ("issuer =", "key_days = 1\nissuer =", "a number from 2 to 366"),
            ("issuer =", "outbox = 5\nissuer =", "did you mean `outbox_max`?"),
        ] {
            let faults = parse(&GOOD.replace(from, to)).unwrap_err();
            assert!(faults.contains(why), "{why}: {faults}");
        }
        let twice = format!("{GOOD}{}", GOOD.split_once("[[").map(|(_, rest)| format!("[[{rest}")).unwrap());
        assert!(parse(&twice).unwrap_err().contains("stands twice"));
    }
}
