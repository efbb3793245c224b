//! Path patterns (`/db/{database}/{rest...}`) and id templates (`{database}/{table}`) as `routes.toml` writes them.
//!
//! Owns their grammar. Limits: 64 segments a pattern, 1024 bytes a pattern or template. Never accepts a template
//! whose result could come from two different requests: between two parameters there must be a `/`, the one
//! character that no parameter can hold.

use std::borrow::Cow;

use smol_str::SmolStr;

/// Most segments in a pattern.
pub const PATTERN_SEGMENTS_MAX: usize = 64;
/// Longest pattern or template, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// One step of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// Exactly this decoded text.
    Literal(SmolStr),
    /// One segment, captured under this name.
    Param(SmolStr),
    /// One segment or more, up to the end, captured under this name.
    Rest(SmolStr),
}

/// A parsed path pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) segments: Vec<Segment>,
    pub(super) trailing_slash: bool,
}

/// Why a pattern is refused. The bundle author's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Does not start with `/`.
    #[error("path does not start with `/`")]
    NotAbsolute,
    /// Longer than [`PATTERN_BYTES_MAX`].
    #[error("longer than {PATTERN_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`PATTERN_SEGMENTS_MAX`].
    #[error("path has more than {PATTERN_SEGMENTS_MAX} segments")]
    TooManySegments,
    /// `//`.
    #[error("path has an empty segment")]
    EmptySegment,
    /// A literal that no request in normal form can hold.
    #[error("no request can match the segment `{0}`")]
    Unmatchable(String),
    /// A brace inside a literal, or an unclosed one.
    #[error("braces in `{0}` do not enclose a whole segment")]
    Braces(String),
    /// Not `[A-Za-z_][A-Za-z0-9_]*`.
    #[error("`{0}` is not a parameter name")]
    BadName(String),
    /// Two parameters of one name.
    #[error("parameter `{0}` appears twice")]
    RepeatedName(String),
    /// `{rest...}` before the end.
    #[error("`{{{0}...}}` is not the last segment")]
    RestNotLast(String),
    /// `*` or `:name`, as other routers write parameters.
    #[error("`{0}` looks like a parameter of another router")]
    ForeignSyntax(String),
    /// A template names a parameter that the path lacks.
    #[error("path has no parameter `{0}`")]
    UnknownParam(String),
    /// Two parameters of a template with no `/` between them.
    #[error("parameters `{0}` and `{1}` have no `/` between them")]
    Ambiguous(String, String),
    /// A template without text.
    #[error("id is empty")]
    EmptyTemplate,
}

impl PatternError {
    /// What to do about it.
    pub(super) fn help(&self) -> &'static str {
        match self {
            Self::NotAbsolute => {
                "begin the path with `/`, without scheme or host; a host goes into `host = \"…\"`"
            }
            Self::TooLong | Self::TooManySegments => "shorten it, or capture the tail with `{rest...}`",
            Self::EmptySegment => "write one `/` between segments; a request with `//` is always refused",
            Self::Unmatchable(_) => {
                "write the decoded text, without `%`, `?`, `#`, `;`, backslash, control characters, `.` or `..`"
            }
            Self::Braces(_) => "a parameter is a whole segment: `/{name}`, not `/x-{name}`",
            Self::BadName(_) => "use letters, digits and `_`, for example `{table_id}`",
            Self::RepeatedName(_) => "give each parameter its own name",
            Self::RestNotLast(_) => "only a `/` may follow `{rest...}`",
            Self::ForeignSyntax(_) => "write `{name}` for one segment and `{name...}` for all that remain",
            Self::UnknownParam(_) => "use a name that the path captures with `{name}`",
            Self::Ambiguous(..) => {
                "put a `/` between them: `{a}-{b}` makes the same id for (`x-y`, `z`) and (`x`, `y-z`)"
            }
            Self::EmptyTemplate => "give an id: fixed text, or a template such as `{database}/{table}`",
        }
    }
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let below_root = text.strip_prefix('/').ok_or(PatternError::NotAbsolute)?;
        let (below_root, trailing_slash) = match below_root.strip_suffix('/') {
            Some("") => return Err(PatternError::EmptySegment),
            Some(cut) => (cut, true),
            None => (below_root, false),
        };
        let mut segments = Vec::new();
        if !below_root.is_empty() {
            for piece in below_root.split('/') {
                if let Some(Segment::Rest(name)) = segments.last() {
                    return Err(PatternError::RestNotLast(name.to_string()));
                }
                segments.push(parse_segment(piece, &segments)?);
            }
        }
        if segments.len() > PATTERN_SEGMENTS_MAX {
            return Err(PatternError::TooManySegments);
        }
        Ok(Self { segments, trailing_slash })
    }

    /// Names of the parameters, in the order of the path.
    pub(super) fn params(&self) -> impl Iterator<Item = &SmolStr> {
        self.segments.iter().filter_map(Segment::name)
    }

    /// Captures the parameters out of the segments that matched this pattern, in the order of the path.
    pub(super) fn capture<'r>(&self, segments: &[Cow<'r, str>]) -> super::Params<'r> {
        let mut params = super::Params::new();
        for (index, segment) in self.segments.iter().enumerate() {
            match segment {
                Segment::Literal(_) => {}
                Segment::Param(_) => params.extend(segments.get(index).cloned()),
                Segment::Rest(_) => match segments.get(index..) {
                    Some([single]) => params.push(single.clone()),
                    // Unambiguous: no segment holds a `/`.
                    Some(several) => params.push(Cow::Owned(several.join("/"))),
                    None => {}
                },
            }
        }
        params
    }
}

impl Segment {
    fn name(&self) -> Option<&SmolStr> {
        match self {
            Self::Literal(_) => None,
            Self::Param(name) | Self::Rest(name) => Some(name),
        }
    }
}

fn parse_segment(piece: &str, before: &[Segment]) -> Result<Segment, PatternError> {
    if piece.is_empty() {
        return Err(PatternError::EmptySegment);
    }
    let Some(inner) = piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}')) else {
        return parse_literal(piece);
    };
    let (name, rest) = match inner.strip_suffix("...") {
        Some(name) => (name, true),
        None => (inner, false),
    };
    if !is_name(name) {
        return Err(PatternError::BadName(name.to_owned()));
    }
    if before.iter().filter_map(Segment::name).any(|other| other == name) {
        return Err(PatternError::RepeatedName(name.to_owned()));
    }
    let name = SmolStr::new(name);
    Ok(if rest { Segment::Rest(name) } else { Segment::Param(name) })
}

fn parse_literal(piece: &str) -> Result<Segment, PatternError> {
    if piece.contains(['{', '}']) {
        return Err(PatternError::Braces(piece.to_owned()));
    }
    if piece.contains('*') || piece.starts_with(':') {
        return Err(PatternError::ForeignSyntax(piece.to_owned()));
    }
    let never = |letter: char| matches!(letter, '%' | '?' | '#' | ';' | '\\') || letter.is_control();
    if piece == "." || piece == ".." || piece.contains(never) {
        return Err(PatternError::Unmatchable(piece.to_owned()));
    }
    Ok(Segment::Literal(SmolStr::new(piece)))
}

/// `[A-Za-z_][A-Za-z0-9_]*`: parameter names, and the parts of Cedar type names.
pub(super) fn is_name(text: &str) -> bool {
    let begins = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    begins && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// An id made of fixed text and captured parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(SmolStr),
    /// Position among the parameters of the path.
    Param(usize),
}

impl Template {
    /// `params` are the names that the path captures, in order.
    pub(super) fn parse(text: &str, params: &[SmolStr]) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::EmptyTemplate);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        let mut parts = Vec::new();
        let mut previous: Option<&str> = None;
        let mut remaining = text;
        while !remaining.is_empty() {
            let (fixed, after) = remaining.split_once('{').unwrap_or((remaining, ""));
            if fixed.contains('}') {
                return Err(PatternError::Braces(text.to_owned()));
            }
            if !fixed.is_empty() {
                parts.push(Part::Text(SmolStr::new(fixed)));
            }
            if fixed.len() == remaining.len() {
                break;
            }
            let (name, after) = after.split_once('}').ok_or_else(|| PatternError::Braces(text.to_owned()))?;
            let index = params
                .iter()
                .position(|param| param == name)
                .ok_or_else(|| PatternError::UnknownParam(name.to_owned()))?;
            if let Some(previous) = previous.filter(|_| !fixed.contains('/')) {
                return Err(PatternError::Ambiguous(previous.to_owned(), name.to_owned()));
            }
            parts.push(Part::Param(index));
            previous = Some(name);
            remaining = after;
        }
        Ok(Self { parts })
    }

    pub(super) fn fill(&self, params: &[Cow<'_, str>]) -> SmolStr {
        if let [Part::Text(text)] = self.parts.as_slice() {
            return text.clone();
        }
        let mut id = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => id.push_str(text),
                // INVARIANT (captured): a template only names parameters of its own path, and `capture` fills all.
                Part::Param(index) => id.push_str(params.get(*index).map_or("", AsRef::as_ref)),
            }
        }
        SmolStr::new(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<SmolStr> {
        names.iter().map(SmolStr::new).collect()
    }

    #[test]
    fn reads_literals_parameters_and_the_rest() {
        let pattern = Pattern::parse("/files/{owner}/café/{path...}/").unwrap();
        assert!(pattern.trailing_slash);
        assert_eq!(
            pattern.segments,
            [
                Segment::Literal("files".into()),
                Segment::Param("owner".into()),
                Segment::Literal("café".into()),
                Segment::Rest("path".into())
            ]
        );
        assert!(Pattern::parse("/").unwrap().segments.is_empty());
    }

    #[test]
    fn refuses_what_cannot_mean_what_its_author_hopes() {
        use PatternError as E;
        let table: [(&str, E); 14] = [
            ("a", E::NotAbsolute),
            ("//", E::EmptySegment),
            ("/a//b", E::EmptySegment),
            ("/a/..", E::Unmatchable("..".into())),
            ("/a%20b", E::Unmatchable("a%20b".into())),
            ("/a?b", E::Unmatchable("a?b".into())),
            ("/x-{a}", E::Braces("x-{a}".into())),
            ("/{a", E::Braces("{a".into())),
            ("/{a-b}", E::BadName("a-b".into())),
            ("/{}", E::BadName(String::new())),
            ("/{a}/{a}", E::RepeatedName("a".into())),
            ("/{a...}/b", E::RestNotLast("a".into())),
            ("/a/*", E::ForeignSyntax("*".into())),
            ("/:id", E::ForeignSyntax(":id".into())),
        ];
        for (text, error) in table {
            assert_eq!(Pattern::parse(text), Err(error), "{text}");
        }
        let deep = "/a".repeat(PATTERN_SEGMENTS_MAX + 1);
        assert_eq!(Pattern::parse(&deep), Err(E::TooManySegments));
        let long = format!("/{}", "a".repeat(PATTERN_BYTES_MAX));
        assert_eq!(Pattern::parse(&long), Err(E::TooLong));
    }

    #[test]
    fn a_template_joins_text_and_parameters() {
        let template = Template::parse("db:{b}/{a}!", &names(&["a", "b"])).unwrap();
        assert_eq!(template.fill(&["1".into(), "2".into()]), "db:2/1!");
        assert_eq!(Template::parse("fixed", &[]).unwrap().fill(&[]), "fixed");
    }

    #[test]
    fn a_template_that_two_requests_could_share_is_refused() {
        let params = names(&["a", "b"]);
        for text in ["{a}{b}", "{a}-{b}", "{a}:{b}"] {
            assert_eq!(
                Template::parse(text, &params),
                Err(PatternError::Ambiguous("a".into(), "b".into())),
                "{text}"
            );
        }
        assert!(Template::parse("{a}-/-{b}", &params).is_ok());
    }

    #[test]
    fn a_template_with_unknown_names_or_loose_braces_is_refused() {
        assert_eq!(Template::parse("{x}", &names(&["a"])), Err(PatternError::UnknownParam("x".into())));
        assert_eq!(Template::parse("", &[]), Err(PatternError::EmptyTemplate));
        for text in ["{a", "a}", "{a}}", "{", "}"] {
            assert_eq!(
                Template::parse(text, &names(&["a"])),
                Err(PatternError::Braces(text.into())),
                "{text}"
            );
        }
    }
}
