//! Findings as workflow commands: `::error file=…,line=…,col=…,title=…::message`, one a line.
//!
//! The text of a finding holds names out of a bundle, which whoever sends a change chooses: escaping must keep it from
//! ending the line and so giving a command of its own.

use cardea_policy_store::fault::{Fault, Severity};

/// The command that annotates the place of a finding.
pub(super) fn annotation(fault: &Fault) -> String {
    let command = match fault.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "notice",
    };
    let mut properties = vec![format!("file={}", property(&slashed(fault)))];
    if let (Some(start), Some(end)) = (fault.start(), fault.end()) {
        properties.push(format!("line={},endLine={},col={}", start.line, end.line, start.column));
        // An end in another line has no column for it.
        if start.line == end.line {
            properties.push(format!("endColumn={}", end.column));
        }
    }
    properties.push(format!("title={}", property(fault.id)));
    let help = fault.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    format!("::{command} {}::{}", properties.join(","), data(&format!("{}{help}", fault.message)))
}

/// The path with `/`, as repositories write it.
pub(super) fn slashed(fault: &Fault) -> String {
    let parts: Vec<_> = fault.file().components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/").replace("//", "/")
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use cardea_policy_store::lint::rules;
    use proptest::prelude::*;

    use super::*;

    fn unescaped(text: &str) -> String {
        let plain = text.replace("%0D", "\r").replace("%0A", "\n").replace("%3A", ":").replace("%2C", ",");
        plain.replace("%25", "%")
    }

    #[test]
    fn a_finding_is_one_command_with_its_place() {
        let fault = Fault::of(&rules::MISSING_ID, "policies/a.cedar", "no `@id`").at("permit(\n);", 0, 3);
        assert_eq!(
            annotation(&fault),
            "::warning file=policies/a.cedar,line=1,endLine=1,col=1,endColumn=4,title=missing-id::no `@id` (add \
             `@id(\"…\")`: records, tests and comparisons refer to it)"
        );
    }

    proptest! {
        #[test]
        fn no_text_ends_the_line_or_the_property_it_is_in(
            file in "[ -~\r\n%,:éü]{1,30}",
            message in "[ -~\r\n%,:éü]{0,60}",
        ) {
            let text = annotation(&Fault::new(&file, &message));
            prop_assert_eq!(text.lines().count(), 1);
            prop_assert!(!text.contains('\r'));
            let (properties, said) = text.strip_prefix("::error ").unwrap().split_once("::").unwrap();
            prop_assert_eq!(unescaped(said), message);
            let named: Vec<_> = properties.split(',').map(|property| property.split_once('=').unwrap()).collect();
            prop_assert_eq!(named.len(), 2);
            prop_assert!(named[0].0 == "file" && named[1] == ("title", "bundle-invalid"));
            prop_assert_eq!(unescaped(named[0].1), slashed(&Fault::new(&file, "")));
        }
    }
}
