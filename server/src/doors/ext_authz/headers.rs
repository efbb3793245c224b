//! Request headers as Envoy hands them over, in either of its two forms.
//!
//! `encode_raw_headers: true` gives `header_map`: bytes, one entry a line; recommended. Otherwise `headers`: a map of
//! text in which equal names are joined by `,` and other bytes than UTF-8 have become `!`. Limits come from
//! [`ExtAuthzConfig`]. Never picks one of several: a header that is used must be there once, under its own name, in
//! UTF-8. Headers that are not used may be anything within the limits.

use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;

use super::ExtAuthzConfig;

/// The headers of one request, within the limits.
#[derive(Debug, Clone, Copy)]
pub struct Headers<'r> {
    http: &'r HttpRequest,
}

/// Why headers are refused. The caller's fault, or a proxy setting's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// More than `headers_max`.
    #[error("more headers than the configured maximum")]
    TooMany,
    /// More than `header_bytes_max`.
    #[error("headers larger than the configured maximum")]
    TooLarge,
    /// A header that is used is there more than once.
    #[error("header `{0}` appears more than once")]
    Duplicate(String),
    /// Another spelling of a header that is used: some services read `x_tenant` as `x-tenant`.
    #[error("header `{0}` appears with `_` for `-`")]
    Lookalike(String),
    /// Not UTF-8.
    #[error("header `{0}` is not UTF-8")]
    NotUtf8(String),
    /// The joined form does not tell whether there were several, or other bytes than UTF-8.
    #[error("header `{0}` has `,` or `!`, which hide what was sent; set `encode_raw_headers`")]
    Joined(String),
}

/// May the value hold commas of its own?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commas {
    /// A comma can only come from joining.
    Refuse,
    /// The header is a list by its own grammar.
    Allow,
}

impl<'r> Headers<'r> {
    /// Counts the headers of a request.
    ///
    /// # Errors
    /// If they are too many or too large.
    pub fn new(http: &'r HttpRequest, config: &ExtAuthzConfig) -> Result<Self, HeaderError> {
        let headers = Self { http };
        let (mut count, mut bytes) = (0_usize, 0_usize);
        for (name, value) in headers.entries() {
            count += 1;
            bytes = bytes.saturating_add(name.len()).saturating_add(value.bytes.len());
        }
        if count > config.headers_max {
            return Err(HeaderError::TooMany);
        }
        if bytes > config.header_bytes_max {
            return Err(HeaderError::TooLarge);
        }
        Ok(headers)
    }

    /// The one value of a header that matters. `name` is in lower case.
    ///
    /// # Errors
    /// If two readers could disagree on the value.
    pub fn get(&self, name: &str) -> Result<Option<&'r str>, HeaderError> {
        self.get_with(name, Commas::Refuse)
    }

    pub(super) fn get_with(&self, name: &str, commas: Commas) -> Result<Option<&'r str>, HeaderError> {
        let mut found: Option<Value<'r>> = None;
        for (key, value) in self.entries() {
            if !same_to_some_reader(key, name) {
                continue;
            }
            if !key.eq_ignore_ascii_case(name) {
                return Err(HeaderError::Lookalike(name.to_owned()));
            }
            if found.replace(value).is_some() || value.contradicts {
                return Err(HeaderError::Duplicate(name.to_owned()));
            }
        }
        let Some(value) = found else { return Ok(None) };
        let text = str::from_utf8(value.bytes).map_err(|_| HeaderError::NotUtf8(name.to_owned()))?;
        let hidden = text.contains('!') || commas == Commas::Refuse && text.contains(',');
        if value.joined && hidden {
            return Err(HeaderError::Joined(name.to_owned()));
        }
        Ok(Some(text))
    }

    /// Names of all headers, as they came.
    pub(super) fn names(&self) -> impl Iterator<Item = &'r str> {
        self.entries().map(|(name, _)| name)
    }

    fn entries(&self) -> impl Iterator<Item = (&'r str, Value<'r>)> {
        #[expect(clippy::disallowed_methods, reason = "nothing here depends on which entry comes first")]
        let joined = self.http.headers.iter();
        let joined = joined.map(|(name, value)| {
            (name.as_str(), Value { bytes: value.as_bytes(), joined: true, contradicts: false })
        });
        let raw = self.http.header_map.iter().flat_map(|map| &map.headers).map(|header| {
            let bytes = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
            let contradicts = !header.raw_value.is_empty() && !header.value.is_empty();
            (header.key.as_str(), Value { bytes, joined: false, contradicts })
        });
        raw.chain(joined)
    }
}

#[derive(Debug, Clone, Copy)]
struct Value<'r> {
    bytes: &'r [u8],
    joined: bool,
    /// Envoy promises that only one of `value` and `raw_value` is set.
    contradicts: bool,
}

/// Equal but for letter case and `_` for `-`, as CGI-like services see it.
pub(super) fn same_to_some_reader(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().map(fold).eq(other.bytes().map(fold))
}

/// Does `name` begin with `prefix` for some reader?
pub(super) fn begins_to_some_reader(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| same_to_some_reader(start, prefix))
}

fn fold(byte: u8) -> u8 {
    if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::*, *};

    fn headers(http: &HttpRequest) -> Headers<'_> {
        Headers::new(http, &ExtAuthzConfig::default()).unwrap()
    }

    #[test]
    fn both_forms_are_read_without_regard_to_case() {
        let raw =
            HttpRequest { header_map: Some(raw_headers(&[("X-Tenant", b"a,b!")])), ..Default::default() };
        assert_eq!(headers(&raw).get("x-tenant"), Ok(Some("a,b!")));
        let map =
            HttpRequest { headers: [("X-Tenant".to_owned(), "a".to_owned())].into(), ..Default::default() };
        assert_eq!(headers(&map).get("x-tenant"), Ok(Some("a")));
        assert_eq!(headers(&map).get("x-other"), Ok(None));
    }

    #[test]
    fn a_used_header_must_be_there_once() {
        let twice =
            HttpRequest { header_map: Some(raw_headers(&[("a", b"1"), ("A", b"1")])), ..Default::default() };
        assert_eq!(headers(&twice).get("a"), Err(HeaderError::Duplicate("a".to_owned())));
        let both = HttpRequest {
            header_map: Some(raw_headers(&[("a", b"1")])),
            headers: [("a".to_owned(), "2".to_owned())].into(),
            ..Default::default()
        };
        assert_eq!(headers(&both).get("a"), Err(HeaderError::Duplicate("a".to_owned())));
        let mut contradiction = raw_headers(&[("a", b"1")]);
        contradiction.headers[0].value = "2".to_owned();
        let http = HttpRequest { header_map: Some(contradiction), ..Default::default() };
        assert_eq!(headers(&http).get("a"), Err(HeaderError::Duplicate("a".to_owned())));
    }

    #[test]
    fn an_underscore_copy_is_refused() {
        let http = HttpRequest { header_map: Some(raw_headers(&[("x_tenant", b"1")])), ..Default::default() };
        assert_eq!(headers(&http).get("x-tenant"), Err(HeaderError::Lookalike("x-tenant".to_owned())));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_only_where_used() {
        let http = HttpRequest {
            header_map: Some(raw_headers(&[("a", b"\xff"), ("b", b"1")])),
            ..Default::default()
        };
        assert_eq!(headers(&http).get("a"), Err(HeaderError::NotUtf8("a".to_owned())));
        assert_eq!(headers(&http).get("b"), Ok(Some("1")));
    }

    #[test]
    fn the_joined_form_may_not_hide_what_was_sent() {
        for value in ["a,b", "caf!"] {
            let http =
                HttpRequest { headers: [("a".to_owned(), value.to_owned())].into(), ..Default::default() };
            assert_eq!(headers(&http).get("a"), Err(HeaderError::Joined("a".to_owned())), "{value}");
        }
        let http = HttpRequest { headers: [("a".to_owned(), "b,c".to_owned())].into(), ..Default::default() };
        assert_eq!(headers(&http).get_with("a", Commas::Allow), Ok(Some("b,c")));
    }

    #[test]
    fn count_and_size_are_bounded_over_both_forms() {
        let config = ExtAuthzConfig { headers_max: 2, header_bytes_max: 8, ..ExtAuthzConfig::default() };
        let http = |raw: &[(&str, &[u8])], map: &[(&str, &str)]| HttpRequest {
            header_map: Some(raw_headers(raw)),
            headers: map.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Default::default()
        };
        assert!(Headers::new(&http(&[("a", b"123")], &[("b", "123")]), &config).is_ok());
        let large = http(&[("a", b"123")], &[("b", "1234")]);
        assert_eq!(Headers::new(&large, &config).unwrap_err(), HeaderError::TooLarge);
        let many = http(&[("a", b""), ("b", b"")], &[("c", "")]);
        assert_eq!(Headers::new(&many, &config).unwrap_err(), HeaderError::TooMany);
    }
}
