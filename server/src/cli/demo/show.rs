//! How the demo looks: one line for each attempt, its verdict and why; lines in between for what changes.
//!
//! Plain text, or with colours where the caller says that they are welcome. Widths count characters.

use std::fmt::Write as _;
use std::io::{self, Write};

use cardea_client::v1::value::Kind;
use cardea_client::v1::{Attempt, Decision, EntityRef, Evidence, ReasonCode, Value, Verdict};

use super::Outcome;
use super::stories::Story;

/// Width of the column of attempts: the longest of the stories.
const ATTEMPT_WIDTH: usize = 48;
/// Width of the column of verdicts.
const VERDICT_WIDTH: usize = 9;
/// Width of the column of reasons; longer text continues on the next line.
const WHY_WIDTH: usize = 72;

/// Prints, with colours or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Painter {
    pub(super) colour: bool,
}

impl Painter {
    pub(super) fn header(self, out: &mut impl Write) -> io::Result<()> {
        let text = format!("   {:ATTEMPT_WIDTH$} {:VERDICT_WIDTH$} why", "attempt", "verdict");
        writeln!(out, "\n{}", self.paint("2", &text))
    }

    pub(super) fn title(self, out: &mut impl Write, number: usize, story: &Story) -> io::Result<()> {
        writeln!(out, "\n{}", self.paint("1", &format!("{number}  {}", story.title)))?;
        writeln!(out, "   {}\n", self.paint("2", story.shows))
    }

    /// A step without words belongs to the one before it.
    pub(super) fn change(self, out: &mut impl Write, what: &str) -> io::Result<()> {
        if what.is_empty() { Ok(()) } else { writeln!(out, "   {}", self.paint("36", &format!("* {what}"))) }
    }

    pub(super) fn verdict(
        self,
        out: &mut impl Write,
        attempt: &Attempt,
        times: usize,
        verdict: &Verdict,
    ) -> io::Result<()> {
        let mut asked = self::attempt(attempt);
        if times > 1 {
            let _ = write!(asked, "  x {times}");
        }
        let decision = verdict.decision();
        let word = format!("{:VERDICT_WIDTH$}", word(decision));
        let mut why = why(verdict).into_iter().flat_map(|line| wrap(&line));
        let first = why.next().unwrap_or_default();
        writeln!(out, "   {asked:ATTEMPT_WIDTH$} {} {first}", self.paint(hue(decision), &word))?;
        for line in why {
            writeln!(out, "   {:ATTEMPT_WIDTH$} {:VERDICT_WIDTH$} {}", "", "", self.paint("2", &line))?;
        }
        Ok(())
    }

    pub(super) fn surprise(self, out: &mut impl Write, surprise: &str) -> io::Result<()> {
        writeln!(out, "   {}", self.paint("1;31", &format!("! not as told: {surprise}")))
    }

    pub(super) fn summary(self, out: &mut impl Write, outcome: &Outcome) -> io::Result<()> {
        let Outcome { allowed, stepped_up, denied, surprises } = outcome;
        let all = allowed + stepped_up + denied;
        writeln!(out, "\n{all} attempts: {allowed} allowed, {stepped_up} to step up, {denied} denied.")?;
        if surprises.is_empty() {
            return writeln!(out, "Every verdict is the one that its story tells.\n");
        }
        writeln!(out, "{}", self.paint("1;31", &format!("{} not as told:", surprises.len())))?;
        surprises.iter().try_for_each(|surprise| writeln!(out, "  {surprise}"))?;
        writeln!(out)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// An attempt in few words: `support-bot for nora: export crm/contacts`.
pub(super) fn attempt(attempt: &Attempt) -> String {
    let id = |entity: &Option<EntityRef>| entity.as_ref().map_or("?", |entity| entity.id.as_str()).to_owned();
    let mut text = id(&attempt.principal);
    for person in attempt.delegation.iter().rev() {
        let _ = write!(text, " for {}", person.id);
    }
    let _ = write!(text, ": {} {}", id(&attempt.action), id(&attempt.resource));
    text
}

/// A decision in capitals.
pub(super) fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "ALLOW",
        Decision::StepUp => "STEP-UP",
        Decision::Deny => "DENY",
        Decision::Unspecified => "UNKNOWN",
    }
}

/// A reason's code as records write it: `session_revoked`.
pub(super) fn code(code: ReasonCode) -> String {
    code.as_str_name().trim_start_matches("REASON_CODE_").to_ascii_lowercase()
}

fn hue(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "1;32",
        Decision::StepUp => "1;33",
        Decision::Deny | Decision::Unspecified => "1;31",
    }
}

/// The reason for the caller, then the policies, then the facts, then what must be met.
fn why(verdict: &Verdict) -> Vec<String> {
    let mut lines = Vec::new();
    let mut told: Vec<&str> = verdict.reasons.iter().map(|reason| reason.message.as_str()).collect();
    told.dedup();
    if !told.is_empty() {
        lines.push(told.join("; "));
    }
    let named = verdict.determining_policies.join(", ");
    let by = match verdict.reasons.first() {
        Some(reason) if named.is_empty() => code(reason.code()),
        Some(_) | None => format!("policy {named}"),
    };
    // Of an allow nobody asks which facts it rests on; they are in the record.
    let facts = verdict.evidence.iter().filter(|_| verdict.decision() != Decision::Allow).map(fact);
    lines.push(std::iter::once(by).chain(facts).collect::<Vec<_>>().join(" | "));
    let hops = verdict.hops.iter().map(|hop| {
        let id = hop.principal.as_ref().map_or("?", |principal| principal.id.as_str());
        format!("{id} {}", word(hop.decision()))
    });
    let hops: Vec<String> = hops.collect();
    if !hops.is_empty() {
        lines.push(format!("hop by hop: {}", hops.join(", ")));
    }
    lines.extend(verdict.step_up.iter().map(|requirement| {
        let mut line = format!("needs {}", requirement.name);
        if !requirement.acr_values.is_empty() {
            let _ = write!(line, ", acr {}", requirement.acr_values.join(" or "));
        }
        if let Some(max_age_s) = requirement.max_age_s {
            let _ = write!(line, ", at most {max_age_s} s old");
        }
        if !requirement.reviewers.is_empty() {
            let _ = write!(line, ", approved by {}", requirement.reviewers.join(" or "));
        }
        line
    }));
    if !verdict.obligations.is_empty() {
        lines.push(format!("with obligation {}", verdict.obligations.join(", ")));
    }
    lines
}

fn fact(evidence: &Evidence) -> String {
    let value = evidence.value.as_ref().map_or_else(|| "?".to_owned(), value);
    let because = if evidence.why.is_empty() { String::new() } else { format!(" ({})", evidence.why) };
    format!("{} = {value}{because}", evidence.fact)
}

fn value(value: &Value) -> String {
    match &value.kind {
        Some(Kind::Bool(value)) => value.to_string(),
        Some(Kind::Long(value)) => value.to_string(),
        Some(Kind::String(value)) => format!("{value:?}"),
        Some(Kind::Decimal(value) | Kind::Ip(value)) => value.clone(),
        Some(Kind::Entity(entity)) => format!("{}::{:?}", entity.r#type, entity.id),
        Some(Kind::Set(set)) => {
            format!("[{}]", set.values.iter().map(self::value).collect::<Vec<_>>().join(", "))
        }
        Some(Kind::Record(_) | Kind::Datetime(_) | Kind::Duration(_)) | None => "…".to_owned(),
    }
}

fn wrap(line: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split(' ') {
        let full = lines.last().is_some_and(|last| {
            !last.is_empty() && last.chars().count() + 1 + word.chars().count() > WHY_WIDTH
        });
        if full {
            lines.push(String::new());
        }
        if let Some(last) = lines.last_mut() {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use cardea_client::v1::{Reason, StepUpRequirement};
    use cardea_client::{attempt as of, entity};

    use super::*;

    fn stepped_up() -> Verdict {
        Verdict {
            decision: Decision::StepUp.into(),
            reasons: vec![Reason { code: ReasonCode::StepUpRequired.into(), message: "log in again".into() }],
            determining_policies: vec!["fresh".into()],
            step_up: vec![StepUpRequirement {
                name: "login".into(),
                acr_values: vec!["phr".into()],
                max_age_s: Some(300),
                ..StepUpRequirement::default()
            }],
            evidence: vec![Evidence {
                fact: "session.auth_age_s".into(),
                value: Some(Value { kind: Some(Kind::Long(3600)) }),
                why: String::new(),
            }],
            ..Verdict::default()
        }
    }

    fn printed(colour: bool) -> String {
        let mut out = Vec::new();
        let asked = of(entity("Agent", "bot"), "export", entity("Table", "t"));
        let asked = Attempt { delegation: vec![entity("Person", "nora")], ..asked };
        Painter { colour }.verdict(&mut out, &asked, 1, &stepped_up()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_verdict_says_who_what_why_and_what_next() {
        let text = printed(false);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert!(lines[0].starts_with("bot for nora: export t"), "{text}");
        assert!(lines[0].ends_with("STEP-UP   log in again"), "{text}");
        assert_eq!(
            &lines[1..],
            ["policy fresh | session.auth_age_s = 3600", "needs login, acr phr, at most 300 s old"]
        );
    }

    #[test]
    fn colours_come_only_when_they_are_welcome() {
        assert!(!printed(false).contains('\x1b'));
        assert!(printed(true).contains("\x1b[1;33mSTEP-UP"));
    }

    #[test]
    fn long_reasons_continue_on_the_next_line() {
        let long = "word ".repeat(40);
        let lines = wrap(long.trim());
        assert!(lines.len() > 2 && lines.iter().all(|line| line.chars().count() <= WHY_WIDTH));
        assert_eq!(lines.join(" "), long.trim());
    }
}
