//! The normal form of a request target (`/path?query`), checked before any route is looked at.
//!
//! Owns: [`Target`] and the rules of what is refused. Limits: path 8 KiB, query 16 KiB, 256 segments.
//! Never normalises: a path that two readers could take for two different things is refused, so that the
//! decision is about the very path that the service behind the enforcement point will serve.

use std::borrow::Cow;

use smallvec::SmallVec;

/// Longest path, in bytes, without the query. Common servers stop at 8 KiB too.
pub const PATH_BYTES_MAX: usize = 8 * 1024;
/// Longest query, in bytes.
pub const QUERY_BYTES_MAX: usize = 16 * 1024;
/// Most segments in the path of a request. Far beyond real APIs; bounds the work of one match.
pub const TARGET_SEGMENTS_MAX: usize = 256;

/// Segments of one path; up to 16 live on the stack. A segment is copied only if it had percent escapes.
pub(super) type Segments<'a> = SmallVec<[Cow<'a, str>; 16]>;

/// A request target in normal form.
///
/// INVARIANT (normal form): no segment is empty, `.` or `..`, or holds `/`, `\`, `;`, a control character or a
/// second layer of percent escapes. Only [`Target::parse`] builds one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target<'a> {
    segments: Segments<'a>,
    trailing_slash: bool,
    path: &'a str,
    query: Option<&'a str>,
}

/// Why a target is not in normal form. All of these are the caller's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Does not start with `/`: empty, `*`, or in absolute or authority form.
    #[error("path does not start with `/`")]
    NotAbsolute,
    /// Longer than [`PATH_BYTES_MAX`].
    #[error("path longer than {PATH_BYTES_MAX} bytes")]
    PathTooLong,
    /// Longer than [`QUERY_BYTES_MAX`].
    #[error("query longer than {QUERY_BYTES_MAX} bytes")]
    QueryTooLong,
    /// More than [`TARGET_SEGMENTS_MAX`].
    #[error("path has more than {TARGET_SEGMENTS_MAX} segments")]
    TooManySegments,
    /// A `#`, which has no place on the wire.
    #[error("target has a fragment")]
    Fragment,
    /// `.` or `..`, also as `%2e`.
    #[error("path has a `.` or `..` segment")]
    DotSegment,
    /// `//`.
    #[error("path has an empty segment")]
    EmptySegment,
    /// `%2f` or `%5c`.
    #[error("path has an encoded slash or backslash")]
    EncodedSeparator,
    /// `\`.
    #[error("path has a backslash")]
    Backslash,
    /// A control character, raw or encoded.
    #[error("path has a control character")]
    Control,
    /// A space or a byte beyond ASCII that is not percent-encoded.
    #[error("path has a character that must be percent-encoded")]
    NotEncoded,
    /// `%` without two hexadecimal digits.
    #[error("path has a broken percent escape")]
    BadEscape,
    /// The decoded bytes are not UTF-8.
    #[error("path is not UTF-8 once decoded")]
    NotUtf8,
    /// `;` (or `%3b`): path parameters, which some servers cut off and others do not.
    #[error("path has a `;` parameter")]
    PathParameter,
    /// Escapes remain after decoding once: `%252e`.
    #[error("path is percent-encoded twice")]
    EncodedTwice,
}

impl<'a> Target<'a> {
    /// Checks `target` and splits it.
    ///
    /// # Errors
    /// On the first rule that the target breaks.
    pub fn parse(target: &'a str) -> Result<Self, TargetError> {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        if path.len() > PATH_BYTES_MAX {
            return Err(TargetError::PathTooLong);
        }
        if query.is_some_and(|query| query.len() > QUERY_BYTES_MAX) {
            return Err(TargetError::QueryTooLong);
        }
        if target.contains('#') {
            return Err(TargetError::Fragment);
        }
        let below_root = path.strip_prefix('/').ok_or(TargetError::NotAbsolute)?;
        let (segments, trailing_slash) = split(below_root)?;
        Ok(Self { segments, trailing_slash, path, query })
    }

    /// The decoded segments. Empty for `/`.
    #[must_use]
    pub fn segments(&self) -> &[Cow<'a, str>] {
        &self.segments
    }

    /// True for `/a/`, false for `/a` and for `/`.
    #[must_use]
    pub fn trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    /// The path as it was sent, without the query.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The query as it was sent, without the `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.query
    }
}

fn split(below_root: &str) -> Result<(Segments<'_>, bool), TargetError> {
    let mut segments = Segments::new();
    let mut pieces = below_root.split('/').peekable();
    while let Some(piece) = pieces.next() {
        if piece.is_empty() {
            let trailing = pieces.peek().is_none();
            let below_root = !segments.is_empty();
            return if trailing { Ok((segments, below_root)) } else { Err(TargetError::EmptySegment) };
        }
        if segments.len() == TARGET_SEGMENTS_MAX {
            return Err(TargetError::TooManySegments);
        }
        segments.push(decode_segment(piece)?);
    }
    Ok((segments, false))
}

fn decode_segment(raw: &str) -> Result<Cow<'_, str>, TargetError> {
    let mut escaped = false;
    for byte in raw.bytes() {
        match byte {
            b'%' => escaped = true,
            byte => check_byte(byte)?,
        }
    }
    let segment = if escaped { Cow::Owned(unescape_segment(raw)?) } else { Cow::Borrowed(raw) };
    if segment == "." || segment == ".." {
        return Err(TargetError::DotSegment);
    }
    Ok(segment)
}

/// What may stand in a segment without an escape.
fn check_byte(byte: u8) -> Result<(), TargetError> {
    match byte {
        b'\\' => Err(TargetError::Backslash),
        b';' => Err(TargetError::PathParameter),
        0..=0x1f | 0x7f => Err(TargetError::Control),
        b' ' | 0x80.. => Err(TargetError::NotEncoded),
        _ => Ok(()),
    }
}

fn unescape_segment(raw: &str) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(raw.len());
    for decoded in Unescape::new(raw) {
        let decoded = decoded.ok_or(TargetError::BadEscape)?;
        match (decoded.byte, decoded.was_escaped) {
            (b'/' | b'\\', true) => return Err(TargetError::EncodedSeparator),
            (b';', true) => return Err(TargetError::PathParameter),
            (0..=0x1f | 0x7f, _) => return Err(TargetError::Control),
            (byte, _) => bytes.push(byte),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| TargetError::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(TargetError::Control);
    }
    if has_escape(&text) {
        return Err(TargetError::EncodedTwice);
    }
    Ok(text)
}

/// True if some `%` is followed by two hexadecimal digits.
fn has_escape(text: &str) -> bool {
    text.as_bytes()
        .windows(3)
        .any(|window| matches!(window, [b'%', high, low] if hex(*high).is_some() && hex(*low).is_some()))
}

/// One byte of a decoded text.
pub(super) struct Unescaped {
    pub(super) byte: u8,
    pub(super) was_escaped: bool,
}

/// Decodes percent escapes byte by byte; yields `None` inside for a broken escape.
pub(super) struct Unescape<'a> {
    bytes: std::str::Bytes<'a>,
}

impl<'a> Unescape<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { bytes: text.bytes() }
    }
}

impl Iterator for Unescape<'_> {
    type Item = Option<Unescaped>;

    fn next(&mut self) -> Option<Self::Item> {
        let byte = self.bytes.next()?;
        if byte != b'%' {
            return Some(Some(Unescaped { byte, was_escaped: false }));
        }
        let high = self.bytes.next().and_then(hex);
        let low = self.bytes.next().and_then(hex);
        Some(match (high, low) {
            (Some(high), Some(low)) => Some(Unescaped { byte: high << 4 | low, was_escaped: true }),
            _ => None,
        })
    }
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(target: &str) -> TargetError {
        Target::parse(target).expect_err(target)
    }

    fn segments(target: &str) -> Vec<String> {
        Target::parse(target).expect(target).segments().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn splits_decodes_and_keeps_the_query_apart() {
        let target = Target::parse("/db/caf%C3%A9/100%25?x=../y").unwrap();
        assert_eq!(target.segments(), ["db", "café", "100%"]);
        assert_eq!(target.path(), "/db/caf%C3%A9/100%25");
        assert_eq!(target.query(), Some("x=../y"));
        assert!(!target.trailing_slash());
        assert_eq!(segments("/..a/b../.../a.b"), ["..a", "b..", "...", "a.b"]);
    }

    #[test]
    fn the_root_has_no_segments_and_no_trailing_slash() {
        let root = Target::parse("/").unwrap();
        assert!(root.segments().is_empty() && !root.trailing_slash());
        assert!(Target::parse("/a/").unwrap().trailing_slash());
        assert!(!Target::parse("/a").unwrap().trailing_slash());
    }

    #[test]
    fn unreserved_escapes_mean_the_same_as_the_plain_letter() {
        assert_eq!(segments("/%61dmin"), ["admin"]);
    }

    #[test]
    fn traversal_is_refused_in_every_spelling() {
        for target in ["/..", "/a/../b", "/./a", "/a/.", "/%2e%2e/a", "/.%2E/a", "/%2e", "/a/%2E%2e"] {
            assert_eq!(refused(target), TargetError::DotSegment, "{target}");
        }
        assert_eq!(refused("/a/..;/b"), TargetError::PathParameter);
        assert_eq!(refused("/%252e%252e/a"), TargetError::EncodedTwice);
        assert_eq!(refused("/%c0%ae%c0%ae/a"), TargetError::NotUtf8);
        assert_eq!(refused("/..\\a"), TargetError::Backslash);
        assert_eq!(refused("/..%5ca"), TargetError::EncodedSeparator);
    }

    #[test]
    fn slashes_that_hide_are_refused() {
        for target in ["//", "//a", "/a//b", "/a//", "///"] {
            assert_eq!(refused(target), TargetError::EmptySegment, "{target}");
        }
        for target in ["/a%2fb", "/a%2Fb", "/%5c", "/%5C"] {
            assert_eq!(refused(target), TargetError::EncodedSeparator, "{target}");
        }
    }

    #[test]
    fn control_and_raw_bytes_are_refused() {
        for target in ["/a\0", "/a%00", "/a\r\nb", "/%0d%0a", "/%7f", "/\t", "/%C2%85"] {
            assert_eq!(refused(target), TargetError::Control, "{target:?}");
        }
        for target in ["/a b", "/café"] {
            assert_eq!(refused(target), TargetError::NotEncoded, "{target:?}");
        }
    }

    #[test]
    fn broken_escapes_and_broken_utf8_are_refused() {
        for target in ["/%", "/%4", "/%zz", "/a%2", "/%-1"] {
            assert_eq!(refused(target), TargetError::BadEscape, "{target}");
        }
        for target in ["/%ff", "/%C3", "/%ED%A0%80"] {
            assert_eq!(refused(target), TargetError::NotUtf8, "{target}");
        }
    }

    #[test]
    fn parameters_fragments_and_foreign_forms_are_refused() {
        assert_eq!(refused("/a;v=1"), TargetError::PathParameter);
        assert_eq!(refused("/a%3bv"), TargetError::PathParameter);
        assert_eq!(refused("/a#b"), TargetError::Fragment);
        assert_eq!(refused("/a?b#c"), TargetError::Fragment);
        for target in ["", "*", "a", "http://host/a", "host:443", "?a=b"] {
            assert_eq!(refused(target), TargetError::NotAbsolute, "{target}");
        }
    }

    #[test]
    fn limits_hold_at_the_edge() {
        let longest = format!("/{}", "a".repeat(PATH_BYTES_MAX - 1));
        assert!(Target::parse(&longest).is_ok());
        assert_eq!(refused(&format!("{longest}a")), TargetError::PathTooLong);
        assert!(Target::parse(&format!("/?{}", "q".repeat(QUERY_BYTES_MAX))).is_ok());
        assert_eq!(refused(&format!("/?{}", "q".repeat(QUERY_BYTES_MAX + 1))), TargetError::QueryTooLong);
        assert!(Target::parse(&"/a".repeat(TARGET_SEGMENTS_MAX)).is_ok());
        assert_eq!(refused(&"/a".repeat(TARGET_SEGMENTS_MAX + 1)), TargetError::TooManySegments);
    }
}
