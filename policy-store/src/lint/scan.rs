//! Where things are written: the head of a policy, the declarations of a schema.
//!
//! Cedar's parser has accepted the text before; this only finds places in it. Knows strings and comments, so that neither is
//! taken for code. Linear in the text; what it does not understand has no place.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "looks for the few shapes that it knows; all others are none of its business"
)]

use std::ops::Range;

/// One token, with its place in bytes of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token<'t> {
    kind: TokenKind<'t>,
    span: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TokenKind<'t> {
    /// A name, a keyword or a number.
    Word(&'t str),
    /// A string, without its quotes and still escaped.
    Text(&'t str),
    Sign(u8),
}

fn tokens(text: &str, within: Range<usize>) -> impl Iterator<Item = Token<'_>> {
    let bytes = text.as_bytes();
    let end = within.end.min(bytes.len());
    let mut at = within.start;
    let byte = move |at: usize| if at < end { bytes.get(at).copied() } else { None };
    std::iter::from_fn(move || {
        loop {
            let start = at;
            match byte(at)? {
                b'/' if byte(at + 1) == Some(b'/') => {
                    while byte(at).is_some_and(|byte| byte != b'\n') {
                        at += 1;
                    }
                }
                b'"' => {
                    at += 1;
                    while byte(at).is_some_and(|byte| byte != b'"') {
                        at += if byte(at) == Some(b'\\') { 2 } else { 1 };
                    }
                    at += 1;
                    let inside = text.get(start + 1..at - 1).unwrap_or("");
                    return Some(Token { kind: TokenKind::Text(inside), span: start..at });
                }
                first if is_word(first) => {
                    while byte(at).is_some_and(is_word) {
                        at += 1;
                    }
                    let word = text.get(start..at).unwrap_or("");
                    return Some(Token { kind: TokenKind::Word(word), span: start..at });
                }
                first if first.is_ascii_whitespace() => at += 1,
                sign => {
                    at += 1;
                    return Some(Token { kind: TokenKind::Sign(sign), span: start..at });
                }
            }
        }
    })
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// An annotation: its name, its value as written, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Annotation {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) span: Range<usize>,
}

/// Where the parts of a policy's head stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) annotations: Vec<Annotation>,
    /// From the effect to the closing bracket of the scope.
    pub(super) span: Range<usize>,
    /// Principal, action and resource within the scope.
    pub(super) scope: Vec<Range<usize>>,
}

/// Finds the head of the policy that is written at `span`.
pub(super) fn head(text: &str, span: &Range<usize>) -> Option<Head> {
    let mut tokens = tokens(text, span.clone()).peekable();
    let mut annotations = Vec::new();
    let effect = loop {
        let token = tokens.next()?;
        match token.kind {
            TokenKind::Sign(b'@') => annotations.push(annotation(&token, &mut tokens)?),
            TokenKind::Word("permit" | "forbid") => break token.span,
            _ => return None,
        }
    };
    let mut depth = 0_usize;
    let mut scope: Vec<Range<usize>> = Vec::new();
    let mut part: Option<Range<usize>> = None;
    for token in tokens {
        match token.kind {
            TokenKind::Sign(b'(' | b'[') => depth += 1,
            TokenKind::Sign(b')' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let ends = depth == 0 || (depth == 1 && token.kind == TokenKind::Sign(b','));
        if ends {
            scope.extend(part.take());
        } else if depth > 1 || token.kind != TokenKind::Sign(b'(') {
            let start = part.as_ref().map_or(token.span.start, |part| part.start);
            part = Some(start..token.span.end);
        }
        if depth == 0 {
            return Some(Head { annotations, span: effect.start..token.span.end, scope });
        }
    }
    None
}

fn annotation<'t>(
    sign: &Token<'t>,
    tokens: &mut std::iter::Peekable<impl Iterator<Item = Token<'t>>>,
) -> Option<Annotation> {
    let name = tokens.next()?;
    let TokenKind::Word(word) = name.kind else { return None };
    let mut found =
        Annotation { name: word.to_owned(), value: String::new(), span: sign.span.start..name.span.end };
    if tokens.next_if(|token| token.kind == TokenKind::Sign(b'(')).is_some() {
        for token in tokens.by_ref() {
            match token.kind {
                TokenKind::Text(value) => value.clone_into(&mut found.value),
                TokenKind::Sign(b')') => {
                    found.span.end = token.span.end;
                    break;
                }
                TokenKind::Word(_) | TokenKind::Sign(_) => return None,
            }
        }
    }
    Some(found)
}

/// What a schema declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Declared {
    EntityType,
    Action,
}

/// One name that a schema declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declaration {
    pub(super) what: Declared,
    /// Of an entity type with its namespace, of an action the id.
    pub(super) name: String,
    /// Namespace with `::`, or nothing.
    pub(super) namespace: String,
    /// Where the name stands.
    pub(super) span: Range<usize>,
    /// Number of the statement, which may declare several names.
    pub(super) statement: usize,
    pub(super) annotations: Vec<Annotation>,
}

/// Finds the entity types and actions that a schema declares.
pub(super) fn declarations(text: &str) -> Vec<Declaration> {
    let mut tokens = tokens(text, 0..text.len()).peekable();
    let mut found = Vec::new();
    let mut namespace = String::new();
    let mut annotations = Vec::new();
    let mut statement = 0;
    while let Some(token) = tokens.next() {
        let what = match token.kind {
            TokenKind::Sign(b'@') => {
                annotations.extend(annotation(&token, &mut tokens));
                continue;
            }
            TokenKind::Sign(b'}') => {
                namespace.clear();
                continue;
            }
            TokenKind::Word("namespace") => {
                while let Some(part) = tokens.next_if(|token| token.kind != TokenKind::Sign(b'{')) {
                    namespace.push_str(text.get(part.span).unwrap_or(""));
                }
                tokens.next();
                namespace.push_str("::");
                annotations.clear();
                continue;
            }
            TokenKind::Word("entity") => Some(Declared::EntityType),
            TokenKind::Word("action") => Some(Declared::Action),
            TokenKind::Word("external") => continue,
            TokenKind::Word(_) | TokenKind::Text(_) | TokenKind::Sign(_) => None,
        };
        statement += 1;
        let own = std::mem::take(&mut annotations);
        let mut names = what.is_some();
        let mut depth = 0_usize;
        for token in tokens.by_ref() {
            match (token.kind, what) {
                (TokenKind::Sign(b';'), _) if depth == 0 => break,
                (TokenKind::Sign(b'{' | b'[' | b'<'), _) => depth += 1,
                (TokenKind::Sign(b'}' | b']' | b'>'), _) => depth = depth.saturating_sub(1),
                (TokenKind::Word("in" | "appliesTo" | "tags" | "enum"), Some(_))
                | (TokenKind::Sign(b'='), _) => {
                    names = false;
                }
                (TokenKind::Word(name) | TokenKind::Text(name), Some(what)) if names && depth == 0 => {
                    let name = match what {
                        Declared::EntityType => format!("{namespace}{name}"),
                        Declared::Action => name.to_owned(),
                    };
                    found.push(Declaration {
                        what,
                        name,
                        namespace: namespace.clone(),
                        span: token.span,
                        statement,
                        annotations: own.clone(),
                    });
                }
                _ => {}
            }
            names &= depth == 0;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_its_annotations_and_the_parts_of_its_scope() {
        let text = "// permit (\n@id(\"a, (b\") @bare\nforbid // @no\n(principal in T::\"x,y\", action in [Action::\"a\", Action::\"b\"], resource) when { f(1) };";
        let head = head(text, &(0..text.len())).unwrap();
        let names: Vec<_> = head.annotations.iter().map(|found| (&*found.name, &*found.value)).collect();
        assert_eq!(names, [("id", "a, (b"), ("bare", "")]);
        let scope: Vec<_> = head.scope.iter().map(|part| text.get(part.clone()).unwrap()).collect();
        assert_eq!(
            scope,
            ["principal in T::\"x,y\"", "action in [Action::\"a\", Action::\"b\"]", "resource"]
        );
        assert!(text.get(head.span).unwrap().ends_with("resource)"));
    }

    #[test]
    fn declarations_are_found_with_their_namespace_and_annotations() {
        let text = "
            // entity No;
            entity A, B in [A] = { x: Set<String>, y?: { entity: Long } } tags Long;
            type T = { entity: Long };
            @allow(\"unused-entity-type\")
            entity C enum [\"entity\"];
            namespace N::M { entity D; action read, \"write it\" in [group] appliesTo { principal: D, resource: D }; }
            action group;
        ";
        let found = declarations(text);
        let names: Vec<_> = found.iter().map(|found| (found.what, &*found.name, &*found.namespace)).collect();
        use Declared::{Action, EntityType};
        assert_eq!(
            names,
            [
                (EntityType, "A", ""),
                (EntityType, "B", ""),
                (EntityType, "C", ""),
                (EntityType, "N::M::D", "N::M::"),
                (Action, "read", "N::M::"),
                (Action, "write it", "N::M::"),
                (Action, "group", ""),
            ]
        );
        assert_eq!(found[2].annotations[0].value, "unused-entity-type");
        assert_eq!(found[0].statement, found[1].statement);
        assert!(found.iter().all(|found| found.name == "C" || found.annotations.is_empty()));
    }
}
