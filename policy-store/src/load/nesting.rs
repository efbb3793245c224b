//! Refuses policies that nest too deep, before anything recursive reads them.
//!
//! Cedar's parser, and the copying, hashing and dropping of expressions, recurse; a file of brackets would exhaust a
//! thread's stack and end the process. One pass over the bytes, no recursion.

use std::ops::Range;

/// Deepest nesting of brackets; people stop at about ten.
pub(super) const BRACKETS_MAX: usize = 128;
/// Most operators, attribute reads and `if`s in one policy: each may be one level of the expression.
pub(super) const OPERATORS_MAX: usize = 1000;

/// Where a text nests too deep: byte offset, and what it exceeds.
pub(super) fn too_deep(text: &str) -> Option<(usize, String)> {
    scan(text, |_end| {})
}

/// Cuts a text of policies after the first policy that ends beyond each `bytes` bytes. Only for texts that are not
/// [`too_deep`].
pub(super) fn pieces(text: &str, bytes: usize) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    scan(text, |end| {
        if end - start >= bytes {
            pieces.push(start..end);
            start = end;
        }
    });
    pieces.push(start..text.len());
    pieces
}

/// One pass; `ended` hears the end of each policy.
fn scan(text: &str, mut ended: impl FnMut(usize)) -> Option<(usize, String)> {
    let mut brackets: usize = 0;
    let mut operators: usize = 0;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => {
                while let Some((_, inside)) = bytes.next() {
                    match inside {
                        b'\\' => {
                            bytes.next();
                        }
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'/' if bytes.peek().is_some_and(|(_, next)| *next == b'/') => {
                while bytes.next_if(|(_, inside)| *inside != b'\n').is_some() {}
            }
            b'(' | b'[' | b'{' => brackets += 1,
            b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
            b';' if brackets == 0 => {
                operators = 0;
                ended(at + 1);
            }
            b'&' | b'|' | b'!' | b'+' | b'-' | b'*' | b'.' | b'<' | b'>' | b'=' | b'?' => operators += 1,
            b'i' if bytes.peek().is_some_and(|(_, next)| *next == b'f') => operators += 1,
            _ => {}
        }
        if brackets > BRACKETS_MAX {
            return Some((at, format!("more than {BRACKETS_MAX} brackets inside each other")));
        }
        // `&&`, `||`, `==` count twice; a factor of two is room enough.
        if operators > 2 * OPERATORS_MAX {
            return Some((at, format!("more than {OPERATORS_MAX} operators in one policy")));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_policies_pass_and_towers_do_not() {
        let many = "permit(principal, action, resource) when { context.a.b && !(context.c || context.d) };"
            .repeat(5000);
        assert_eq!(too_deep(&many), None);
        assert!(too_deep(&"(".repeat(BRACKETS_MAX + 1)).is_some());
        assert!(too_deep(&"true || ".repeat(OPERATORS_MAX + 1)).is_some());
    }

    #[test]
    fn pieces_are_the_whole_text_and_end_where_policies_end() {
        let text =
            "permit(principal, action, resource) when { \"a;b\" == \"\\\";\" }; // a; comment\n".repeat(50);
        for bytes in [1, 100, 1000, 100_000] {
            let pieces = pieces(&text, bytes);
            let joined: String = pieces.iter().map(|piece| text.get(piece.clone()).unwrap()).collect();
            assert_eq!(joined, text);
            for piece in &pieces {
                let set: cedar_policy::PolicySet = text.get(piece.clone()).unwrap().parse().unwrap();
                assert!(bytes > 100 || set.num_of_policies() <= 2, "{piece:?}");
            }
        }
    }

    #[test]
    fn strings_and_comments_do_not_count() {
        let text = format!("// {0}\n\"{0}\\\"{0}\";", "(".repeat(1000));
        assert_eq!(too_deep(&text), None);
    }
}
