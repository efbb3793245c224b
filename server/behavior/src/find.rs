//! Finds external references in text: URLs, e-mail addresses, account numbers.
//!
//! What a text hands to the outside must not depend on the caller saying so. One pass over the bytes, nothing is allocated, and what is
//! found is a part of the text. It finds too much rather than too little: what is found and was never approved is told, what is not
//! found is not seen at all.
//!
//! INVARIANT (whole): a reference ends only where white space, a quotation mark, an angle bracket, a backslash or a control character
//! stands, so nothing can be hung on one that is approved without making it another. Only an e-mail address ends at its domain. A backslash
//! before a slash ends nothing: JSON may write a slash so, and whoever decodes it has the URL.

use super::fingerprint::reference_name;

/// What stands behind a scheme; slashes also as JSON may write them.
const MARKS: [&[u8]; 4] = [b"://", b":\\/\\/", b":\\//", b":/\\/"];
/// What resolvers take for the dot of a domain (UTS 46).
const DOTS: [char; 4] = ['.', '\u{3002}', '\u{ff0e}', '\u{ff61}'];
/// Fewest characters of an account number (an IBAN, ISO 13616): Norway's.
const ACCOUNT_MIN: usize = 15;
/// Most characters of an account number.
const ACCOUNT_MAX: usize = 34;

/// Every external reference in a text, in the order in which they stand; one that stands twice is found twice.
pub fn references(text: &str) -> impl Iterator<Item = &str> {
    words(text).flat_map(|word| {
        let url = url(word.text);
        let before = url.and_then(|url| word.text.get(..word.text.len() - url.len())).unwrap_or(word.text);
        accounts(text, Word { text: before, ..word }).chain(addresses(before)).chain(url)
    })
}

/// A run of bytes that nothing separates.
#[derive(Clone, Copy)]
struct Word<'t> {
    text: &'t str,
    at: usize,
}

fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = text.get(from..).filter(|rest| !rest.is_empty())?;
            let end = end(rest);
            let word = Word { text: rest.get(..end)?, at: from };
            from += end + rest.get(end..)?.chars().next().map_or(0, char::len_utf8);
            if word.text.len() >= 4 {
                return Some(word);
            }
        }
    })
}

/// Where the word ends that a text begins with.
fn end(text: &str) -> usize {
    let is_end = |at: &usize| !text.get(at + 1..).is_some_and(|next| next.starts_with('/'));
    let mut ends = text.match_indices(separates).map(|(at, of)| (at, of == "\\"));
    ends.find(|(at, is_backslash)| !is_backslash || is_end(at)).map_or(text.len(), |(at, _)| at)
}

fn separates(of: char) -> bool {
    matches!(of, '"' | '\'' | '`' | '<' | '>' | '\\') || of.is_whitespace() || of.is_control()
}

/// From its scheme, or from `www.`, to the end of the word.
fn url(word: &str) -> Option<&str> {
    let bytes = word.as_bytes();
    let begins =
        |at: &usize| bytes.get(*at..).is_some_and(|rest| MARKS.iter().any(|mark| rest.starts_with(mark)));
    let scheme = (0..bytes.len()).find(begins).map(|at| {
        let before = bytes.get(..at).unwrap_or_default();
        let is_of_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        at - before.iter().rev().take_while(|byte| is_of_scheme(byte)).count()
    });
    let www = || bytes.windows(4).position(|four| four.eq_ignore_ascii_case(b"www."));
    word.get(scheme.or_else(www)?..).filter(|url| !matches!(reference_name(url), "" | "www"))
}

/// Around each `@`: what can stand in an address, whatever the alphabet.
fn addresses(word: &str) -> impl Iterator<Item = &str> {
    word.match_indices('@').filter_map(move |(at, _)| {
        let (before, after) = (word.get(..at)?, word.get(at + 1..)?);
        let local = before.len() - before.trim_end_matches(is_local).len();
        let domain = domain(after);
        let is_name = domain.split_once(DOTS).is_some_and(|(name, _)| !name.is_empty());
        let is_whole = local > 0 && (is_name || domain.starts_with('['));
        if is_whole { word.get(at - local..=at + domain.len()) } else { None }
    })
}

/// What a domain can be at the beginning of a text: also the address of a host in brackets (RFC 5321 section 4.1.3).
fn domain(text: &str) -> &str {
    if let Some(literal) = text.strip_prefix('[') {
        let inside = literal.len() - literal.trim_start_matches(|of| is_domain(of) || of == ':').len();
        let is_closed = literal.get(inside..).is_some_and(|rest| rest.starts_with(']'));
        return if is_closed { text.get(..inside + 2).unwrap_or_default() } else { "" };
    }
    let end = text.len() - text.trim_start_matches(is_domain).len();
    text.get(..end).unwrap_or_default().trim_end_matches(|of| of == '-' || DOTS.contains(&of))
}

fn is_local(of: char) -> bool {
    of.is_alphanumeric() || !of.is_ascii() || "!#$%&*+-/=?^_{|}~.".contains(of)
}

fn is_domain(of: char) -> bool {
    of.is_alphanumeric() || !of.is_ascii() || matches!(of, '-' | '.')
}

/// The account numbers that begin in a word, each in one piece or in groups of four.
fn accounts<'t>(text: &'t str, word: Word<'t>) -> impl Iterator<Item = &'t str> {
    let bytes = word.text.as_bytes();
    let begins = move |at: &usize| {
        let is_inside = |byte: &u8| byte.is_ascii_alphanumeric();
        !at.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(is_inside)
    };
    (0..bytes.len()).filter(begins).filter_map(move |at| account(text.get(word.at + at..)?))
}

/// Two letters, two digits, and the rest of an account number at the beginning of a text.
fn account(text: &str) -> Option<&str> {
    let [a, b, c, d, ..] = *text.as_bytes() else { return None };
    if !(a.is_ascii_alphabetic() && b.is_ascii_alphabetic() && c.is_ascii_digit() && d.is_ascii_digit()) {
        return None;
    }
    let (mut characters, mut digits, mut end) = (0, 0, 0);
    for (at, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() {
            characters += 1;
            digits += usize::from(byte.is_ascii_digit());
            end = at + 1;
        } else if !(matches!(byte, b' ' | b'-') && characters % 4 == 0) {
            break;
        }
        if characters > ACCOUNT_MAX {
            return None;
        }
    }
    // Words of four letters may follow in a sentence: most of an account number are digits.
    let is_account = (ACCOUNT_MIN..=ACCOUNT_MAX).contains(&characters) && digits * 2 >= characters;
    if is_account { text.get(..end) } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<&str> {
        references(text).collect()
    }

    #[test]
    fn urls_addresses_and_account_numbers_are_found_in_running_text() {
        let text = "See http://a.com/x,y and (www.B.org), mail ann@c.io. or <bob@d.example>; pay SE3550000000054910000003.";
        assert_eq!(
            found(text),
            ["http://a.com/x,y", "www.B.org),", "ann@c.io", "bob@d.example", "SE3550000000054910000003"]
        );
        assert_eq!(found("SE35 5000 0000 0549 1000 0003, by today"), ["SE35 5000 0000 0549 1000 0003"]);
        assert_eq!(
            found("ssh://git@h.example/x ftp://f.example"),
            ["ssh://git@h.example/x", "ftp://f.example"]
        );
        assert_eq!(
            found("mailto:ann@c.io;iban=SE3550000000054910000003"),
            ["SE3550000000054910000003", "ann@c.io"]
        );
        assert_eq!(found(r#"{"url":"https://e.example\n"}"#), ["https://e.example"]);
    }

    #[test]
    fn what_is_no_reference_is_not_found() {
        for text in [
            "",
            "a@b",
            "@home at 12:30",
            "version 1.2.3",
            "v10 and/or 100%",
            "://",
            "www.",
            "AB12 units of what is new here",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }

    /// What an attacker writes so that an approved reference seems to be all there is.
    #[test]
    fn nothing_is_hidden_behind_an_approved_reference() {
        for text in [
            "http://good.example/,http://evil.example",
            "http://good.example@evil.example",
            "http://good.example/?to=evil.example",
            "good@good.example,evil@evil.example",
            "to=SE3550000000054910000003,evil@evil.example,http://good.example",
            "HTTP://EVIL.EXAMPLE",
            "(evil@evil.example)",
            "x=WWW.evil.example",
            "п@evil.example",
            // As JSON may write slashes, and as domains may write dots.
            r#"{"url":"https:\/\/evil.example\/x"}"#,
            r"http://good.example\/,https:\/\/evil.example",
        ] {
            let is_told = |one: &&str| one.to_lowercase().contains("evil.example");
            assert!(found(text).iter().any(is_told), "{text}: {:?}", found(text));
        }
        assert_eq!(found("good@good.example,evil@evil.example").len(), 2);
        for dot in ['\u{3002}', '\u{ff0e}', '\u{ff61}'] {
            let text = format!("write to mallory@evil{dot}example today");
            assert_eq!(found(&text), [format!("mallory@evil{dot}example")]);
        }
        for address in ["mallory@[203.0.113.5]", "mallory@[IPv6:2001:db8::1]"] {
            assert_eq!(found(&format!("({address}).")), [address]);
        }
        // What only looks like one.
        assert_eq!(found(r"C:\dir\/x and \/ or a\/b"), [""; 0]);
    }

    proptest! {
        #[test]
        fn whatever_stands_around_it_an_address_is_found(before in "[ (<\"'\\n:]", after in "[ )>\"',;\\n]", rest in "\\PC{0,30}") {
            let text = format!("{rest}{before}ann@evil.example{after}{rest}");
            prop_assert!(found(&text).iter().any(|one| one.contains("ann@evil.example")), "{text}");
        }

        #[test]
        fn all_that_is_found_stands_in_the_text(text in "(\\PC|https://|www\\.|@|a\\.b| ){0,40}") {
            for one in references(&text) {
                prop_assert!(text.contains(one) && !one.is_empty());
            }
        }
    }
}
