//! HTML into which text from outside cannot bring markup, nor characters that reorder or hide what stands beside them.

use std::fmt::Write as _;

use crate::hidden::is_hidden;

/// HTML as it grows. Markup is taken from literals only.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere, in an element or between the quotes of an attribute.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c if is_hidden(c) => {
                    // Writing to a string cannot fail.
                    let _ = write!(self.0, "⟨U+{:04X}⟩", u32::from(c));
                }
                c => self.0.push(c),
            }
        }
        self
    }

    /// The same, cut to so many characters.
    pub(super) fn short(&mut self, text: &str, chars: usize) -> &mut Self {
        match text.char_indices().nth(chars) {
            Some((end, _)) => self.text(text.get(..end).unwrap_or_default()).raw("…"),
            None => self.text(text),
        }
    }

    /// A whole number, in groups of three digits.
    pub(super) fn count(&mut self, number: u64) -> &mut Self {
        self.0.push_str(&grouped(number));
        self
    }

    /// A coordinate or a share, to two digits.
    pub(super) fn number(&mut self, number: f64) -> &mut Self {
        let _ = write!(self.0, "{}", (number * 100.0).round() / 100.0);
        self
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// A whole number, in groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things in words: `1 incident`, `2 incidents`.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_brings_no_markup_and_no_hidden_characters() {
        let mut html = Html::default();
        html.raw("<a title=\"")
            .text("\"'><script>&")
            .raw("\">")
            .text("a\u{202e}b\u{0}\u{1b}[2J\n\u{200b}\u{2066}\u{e0041}é日");
        let want = "<a title=\"&quot;&#39;&gt;&lt;script&gt;&amp;\">a⟨U+202E⟩b⟨U+0000⟩⟨U+001B⟩[2J⟨U+000A⟩⟨U+200B⟩⟨U+2066⟩⟨U+E0041⟩é日";
        assert_eq!(html.into_string(), want);
    }

    #[test]
    fn long_text_is_cut_between_characters_before_it_is_escaped() {
        let mut html = Html::default();
        html.short("<<é<", 3);
        assert_eq!(html.into_string(), "&lt;&lt;é…");
    }

    #[test]
    fn numbers_come_in_groups() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([counted(1, "case", "cases"), counted(2_000, "case", "cases")], ["1 case", "2,000 cases"]);
    }
}
