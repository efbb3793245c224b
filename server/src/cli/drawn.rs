//! Faults drawn with the lines of source that they are in, for terminals; and output that may be cut short.

use std::io::{IsTerminal as _, Write as _};

use cardea_policy_store::fault::{Fault, Severity};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, SourceCode};

use crate::hidden::printable;

/// A fault whose own line says only what is wrong: place and remedy are drawn around it.
#[derive(Debug)]
struct Drawn<'f>(&'f Fault);

impl std::fmt::Display for Drawn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&printable(&self.0.message))
    }
}

impl std::error::Error for Drawn<'_> {}

impl Diagnostic for Drawn<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(self.0.id))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.0.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
            Severity::Note => miette::Severity::Advice,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.0.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.0.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.0.labels()
    }
}

/// A fault with its place in the source, in colour where a terminal is.
pub(super) fn drawn(fault: &Fault) -> String {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut text = String::new();
    let drawn = GraphicalReportHandler::new_themed(theme).render_report(&mut text, &Drawn(fault));
    if drawn.is_ok() && fault.line().is_some() {
        text
    } else {
        let told = fault.to_string();
        let lines: Vec<String> = told.lines().map(printable).collect();
        format!("{} ({}): {}\n", fault.severity.name(), fault.id, lines.join("\n"))
    }
}

/// Prints to standard output. A reader that has enough, as `head` has, is no fault.
pub(super) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to be told.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
}

#[cfg(test)]
mod tests {
    use cardea_policy_store::load;

    use super::*;

    #[test]
    fn a_name_in_a_bundle_cannot_move_the_cursor_of_whoever_checks_it() {
        let hidden = "x\u{1b}[2J\u{202e}y";
        let files: load::Files = [
            ("bundle.toml", "name = \"t\"\n[behavior]\n".to_owned()),
            ("schema.cedarschema", "entity A; action a appliesTo { principal: A, resource: A };".to_owned()),
            ("policies/p.cedar", "permit(principal is A, action, resource);".to_owned()),
            (
                "baselines.json",
                format!(
                    "{{\"format\":\"cardea-baselines/1\",\"version\":1,\"approved_by\":\"ann\",\"attempts\":0,\"baselines\":{{{}:{{}}}}}}",
                    serde_json::Value::from(hidden)
                ),
            ),
        ]
        .map(|(name, text)| (name.into(), text.into_bytes()))
        .into();
        let faults = load::files(&files).unwrap_err();
        let told: String = faults.list().iter().map(drawn).collect();
        assert!(told.contains("is no entity") && !told.contains(['\u{1b}', '\u{202e}']), "{told:?}");
    }
}
