//! Reads single parameters out of a query (`a=1&b=2`), as HTML forms write it (`+` is a space).
//!
//! Limit: 256 parameters. Never picks one of several: a parameter that appears twice, or that differs from the
//! asked name only in letter case, is refused, because the service behind may pick the other one.

use std::borrow::Cow;

use super::target::Unescape;

/// Most parameters in a query from which a route reads.
pub const QUERY_PARAMETERS_MAX: usize = 256;

/// Why a parameter cannot be read. The caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The parameter appears more than once.
    #[error("query parameter appears more than once")]
    Duplicate,
    /// The name appears in another letter case.
    #[error("query parameter in another letter case")]
    OtherCase,
    /// `%` without two hexadecimal digits.
    #[error("query has a broken percent escape")]
    BadEscape,
    /// The decoded bytes are not UTF-8.
    #[error("query is not UTF-8 once decoded")]
    NotUtf8,
    /// A raw `;`, which some readers take for `&`.
    #[error("query has a `;`")]
    Semicolon,
    /// More than [`QUERY_PARAMETERS_MAX`].
    #[error("query has more than {QUERY_PARAMETERS_MAX} parameters")]
    TooMany,
}

/// The decoded value of the parameter `name`, or `None` if the query has no such parameter.
///
/// # Errors
/// If two readers could disagree on the value.
pub fn query_value<'q>(query: &'q str, name: &str) -> Result<Option<Cow<'q, str>>, QueryError> {
    if query.contains(';') {
        return Err(QueryError::Semicolon);
    }
    let mut found = None;
    for (count, pair) in query.split('&').enumerate() {
        if count == QUERY_PARAMETERS_MAX {
            return Err(QueryError::TooMany);
        }
        let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        let pair_name = decode(raw_name)?;
        if !pair_name.eq_ignore_ascii_case(name) {
            continue;
        }
        if found.is_some() {
            return Err(QueryError::Duplicate);
        }
        if pair_name != name {
            return Err(QueryError::OtherCase);
        }
        found = Some(decode(raw_value)?);
    }
    Ok(found)
}

fn decode(raw: &str) -> Result<Cow<'_, str>, QueryError> {
    if !raw.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    for decoded in Unescape::new(raw) {
        let decoded = decoded.ok_or(QueryError::BadEscape)?;
        let plus = decoded.byte == b'+' && !decoded.was_escaped;
        bytes.push(if plus { b' ' } else { decoded.byte });
    }
    String::from_utf8(bytes).map(Cow::Owned).map_err(|_| QueryError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(query: &str) -> Result<Option<String>, QueryError> {
        query_value(query, "limit").map(|value| value.map(Cow::into_owned))
    }

    #[test]
    fn finds_and_decodes_one_parameter() {
        assert_eq!(value("a=1&limit=10&b=2"), Ok(Some("10".to_owned())));
        assert_eq!(value("lim%69t=a%2Bb+c%3Bd"), Ok(Some("a+b c;d".to_owned())));
        assert_eq!(value("limit"), Ok(Some(String::new())));
        assert_eq!(value("limit=a=b"), Ok(Some("a=b".to_owned())));
        assert_eq!(value(""), Ok(None));
        assert_eq!(value("a=1&&"), Ok(None));
    }

    #[test]
    fn a_second_copy_is_refused_even_if_equal_or_disguised() {
        for query in ["limit=1&limit=1", "limit=1&limit", "limit=1&l%69mit=2", "limit=1&LIMIT=2"] {
            assert_eq!(value(query), Err(QueryError::Duplicate), "{query}");
        }
        assert_eq!(value("Limit=1"), Err(QueryError::OtherCase));
    }

    #[test]
    fn what_readers_split_or_decode_differently_is_refused() {
        assert_eq!(value("a=1;limit=2"), Err(QueryError::Semicolon));
        assert_eq!(value("limit=%"), Err(QueryError::BadEscape));
        assert_eq!(value("%zz=1&limit=2"), Err(QueryError::BadEscape));
        assert_eq!(value("limit=%ff"), Err(QueryError::NotUtf8));
    }

    #[test]
    fn the_number_of_parameters_is_bounded() {
        let most = vec!["a=1"; QUERY_PARAMETERS_MAX].join("&");
        assert_eq!(value(&most), Ok(None));
        assert_eq!(value(&format!("{most}&limit=1")), Err(QueryError::TooMany));
    }
}
