//! The `x-forwarded-client-cert` header: who stood at the other end of the last proxy's connection.
//!
//! Owns its grammar: elements joined by `,` (one per proxy, the newest last), pairs joined by `;`, values that may be
//! quoted, with `\` as the escape inside quotes. Limits: 64 KiB, 32 elements, 64 pairs an element. Reads the whole
//! header and refuses all of it for one malformed byte: a reader that skips what it does not understand can be led
//! to another element than the proxy wrote. Never decides whether the header is to be believed.

/// Longest header value, in bytes: room for a certificate chain.
pub const XFCC_BYTES_MAX: usize = 64 * 1024;
const ELEMENTS_MAX: usize = 32;
const PAIRS_MAX: usize = 64;

/// What one proxy says of its client. Certificates are read past, not kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct XfccElement {
    /// URI SANs of the proxy's own certificate.
    pub by: Vec<String>,
    /// SHA-256 of the client's certificate, as written.
    pub hash: Option<String>,
    /// Subject of the client's certificate.
    pub subject: Option<String>,
    /// URI SANs of the client's certificate.
    pub uris: Vec<String>,
    /// DNS SANs of the client's certificate.
    pub dns: Vec<String>,
}

/// Why a header is not XFCC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XfccError {
    /// Longer than [`XFCC_BYTES_MAX`], or with too many elements or pairs.
    #[error("too long")]
    TooLong,
    /// An element or pair without content.
    #[error("empty element or pair")]
    Empty,
    /// A pair without `=`, or with a key that is not letters.
    #[error("pair without a key")]
    NoKey,
    /// A quote that is not closed, or that stands inside an unquoted value.
    #[error("misplaced quote")]
    Quote,
    /// Something between a closing quote and the next `;` or `,`.
    #[error("text after a closing quote")]
    AfterQuote,
    /// `Hash` or `Subject` twice in one element.
    #[error("key appears twice")]
    Repeated,
    /// A control character.
    #[error("control character")]
    Control,
}

/// The last element: the client of the proxy that asks.
///
/// # Errors
/// If any element is malformed.
pub fn last_element(header: &str) -> Result<XfccElement, XfccError> {
    if header.len() > XFCC_BYTES_MAX {
        return Err(XfccError::TooLong);
    }
    if header.contains(char::is_control) {
        return Err(XfccError::Control);
    }
    let mut element = XfccElement::default();
    let (mut elements, mut pairs) = (1, 0);
    let mut remaining = header;
    loop {
        pairs += 1;
        if pairs > PAIRS_MAX {
            return Err(XfccError::TooLong);
        }
        let pair = take_pair(remaining)?;
        element.set(pair.key, pair.value)?;
        match pair.next {
            None => return Ok(element),
            Some((b';', after)) => remaining = after,
            Some((_, after)) => {
                elements += 1;
                if elements > ELEMENTS_MAX {
                    return Err(XfccError::TooLong);
                }
                (element, pairs, remaining) = (XfccElement::default(), 0, after);
            }
        }
    }
}

struct Pair<'a> {
    key: &'a str,
    value: String,
    /// Separator and what follows it.
    next: Option<(u8, &'a str)>,
}

fn take_pair(text: &str) -> Result<Pair<'_>, XfccError> {
    let text = text.trim_start_matches(' ');
    if text.is_empty() || text.starts_with([';', ',']) {
        return Err(XfccError::Empty);
    }
    let (key, after) = text.split_once('=').ok_or(XfccError::NoKey)?;
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err(XfccError::NoKey);
    }
    let (value, after) = match after.strip_prefix('"') {
        Some(quoted) => take_quoted(quoted)?,
        None => take_plain(after)?,
    };
    let after = after.trim_start_matches(' ');
    let next = match after.as_bytes().first() {
        None => None,
        Some(separator @ (b';' | b',')) => Some((*separator, after.get(1..).unwrap_or_default())),
        Some(_) => return Err(XfccError::AfterQuote),
    };
    Ok(Pair { key, value, next })
}

/// Up to the closing quote. `\` takes the next character as it is, so that neither `\"` nor `\\"` can be misread.
fn take_quoted(quoted: &str) -> Result<(String, &str), XfccError> {
    let mut value = String::new();
    let mut letters = quoted.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return Ok((value, letters.as_str())),
            '\\' => match letters.next() {
                Some(escaped @ ('"' | '\\')) => value.push(escaped),
                // A subject in RFC 2253 form escapes other letters too; keep its text as it is.
                Some(other) => value.extend(['\\', other]),
                None => return Err(XfccError::Quote),
            },
            other => value.push(other),
        }
    }
    Err(XfccError::Quote)
}

fn take_plain(text: &str) -> Result<(String, &str), XfccError> {
    let end = text.find([';', ',']).unwrap_or(text.len());
    let (value, after) = text.split_at_checked(end).unwrap_or((text, ""));
    if value.contains('"') {
        return Err(XfccError::Quote);
    }
    Ok((value.trim_end_matches(' ').to_owned(), after))
}

impl XfccElement {
    fn set(&mut self, key: &str, value: String) -> Result<(), XfccError> {
        let once = |slot: &mut Option<String>, value| match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(XfccError::Repeated),
        };
        match key.to_ascii_lowercase().as_str() {
            "by" => self.by.push(value),
            "uri" => self.uris.push(value),
            "dns" => self.dns.push(value),
            "hash" => once(&mut self.hash, value)?,
            "subject" => once(&mut self.subject, value)?,
            // Cert, Chain, and keys of later proxies: of no use here.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_every_key_in_any_case() {
        let header = "By=spiffe://td/gw;BY=https://gw;hash=46ab;Subject=\"CN=a,O=b;c\";uRi=spiffe://td/x;DNS=a.b;DNS=c.d";
        let element = last_element(header).unwrap();
        assert_eq!(element.by, ["spiffe://td/gw", "https://gw"]);
        assert_eq!(element.hash.as_deref(), Some("46ab"));
        assert_eq!(element.subject.as_deref(), Some("CN=a,O=b;c"));
        assert_eq!(element.uris, ["spiffe://td/x"]);
        assert_eq!(element.dns, ["a.b", "c.d"]);
    }

    #[test]
    fn the_last_element_speaks() {
        let header = "By=a;URI=spiffe://td/forged, By=b;Subject=\"\";URI=spiffe://td/peer";
        assert_eq!(last_element(header).unwrap().uris, ["spiffe://td/peer"]);
        assert!(last_element("URI=spiffe://td/x,By=b").unwrap().uris.is_empty());
    }

    #[test]
    fn quoted_text_cannot_break_out() {
        let header = r#"Subject="CN=x\",URI=spiffe://td/admin";URI=spiffe://td/x"#;
        let element = last_element(header).unwrap();
        assert_eq!(element.uris, ["spiffe://td/x"]);
        assert_eq!(element.subject.as_deref(), Some(r#"CN=x",URI=spiffe://td/admin"#));
        let element = last_element(r#"Subject="CN=x\\";URI=spiffe://td/x"#).unwrap();
        assert_eq!((element.subject.as_deref(), element.uris.len()), (Some(r"CN=x\"), 1));
        assert_eq!(last_element(r#"Subject="CN=a\,b""#).unwrap().subject.as_deref(), Some(r"CN=a\,b"));
    }

    #[test]
    fn certificates_are_read_past() {
        let header = "Cert=\"-----BEGIN%20CERTIFICATE-----%0A,;=\";Chain=\"x\";URI=spiffe://td/x";
        assert_eq!(last_element(header).unwrap().uris, ["spiffe://td/x"]);
    }

    #[test]
    fn malformed_headers_are_refused_whole() {
        use XfccError as E;
        let table = [
            ("", E::Empty),
            (" ", E::Empty),
            ("URI=a,", E::Empty),
            (",URI=a", E::Empty),
            ("URI=a;;By=b", E::Empty),
            ("URI", E::NoKey),
            ("=a", E::NoKey),
            ("U RI=a", E::NoKey),
            ("Subject=\"a", E::Quote),
            ("Subject=\"a\\", E::Quote),
            ("URI=a\"b\"", E::Quote),
            ("Subject=\"a\"b;URI=c", E::AfterQuote),
            ("Hash=1;Hash=2", E::Repeated),
            ("Subject=\"a\";subject=\"b\"", E::Repeated),
            ("URI=a\r\nb", E::Control),
            ("Subject=\"oops,URI=spiffe://td/x", E::Quote),
        ];
        for (header, error) in table {
            assert_eq!(last_element(header), Err(error), "{header:?}");
        }
    }

    #[test]
    fn size_is_bounded() {
        assert_eq!(last_element(&"a".repeat(XFCC_BYTES_MAX + 1)), Err(XfccError::TooLong));
        assert_eq!(last_element(&vec!["URI=a"; ELEMENTS_MAX + 1].join(",")), Err(XfccError::TooLong));
        assert!(last_element(&vec!["URI=a"; ELEMENTS_MAX].join(",")).is_ok());
        assert_eq!(last_element(&vec!["URI=a"; PAIRS_MAX + 1].join(";")), Err(XfccError::TooLong));
    }

    proptest! {
        #[test]
        fn never_panics(header in "([A-Za-z]{0,3}=?(\"|\\\\|,|;| |[a-z:/]{0,4}|\\PC){0,4}){0,8}") {
            let _ = last_element(&header);
        }

        #[test]
        fn a_subject_says_whatever_it_likes_without_adding_a_uri(subject: String) {
            let clean: String = subject.chars().filter(|letter| !letter.is_control()).collect();
            let escaped = clean.replace('\\', "\\\\").replace('"', "\\\"");
            let element = last_element(&format!("Subject=\"{escaped}\";URI=spiffe://td/x")).unwrap();
            prop_assert_eq!(element.subject, Some(clean));
            prop_assert_eq!(element.uris, ["spiffe://td/x"]);
        }
    }
}
