//! What the page promises, on attempts that somebody hostile wrote.

use std::io::{BufRead, Cursor};
use std::path::Path;

use serde_json::{Value, json};

use cardea_core::behavior::{Approved, Observed, Step};

use super::*;
use crate::monitor::Fault;
use crate::monitor::attempts::Attempts;
use crate::monitor::lines::Lines;

/// An attempt and the line that tells of it.
fn pair(
    principal: &str,
    session: &str,
    n: u64,
    action: &str,
    assessment: &str,
    flags: &[&str],
) -> [Value; 2] {
    let attempt = json!({ "ts": format!("2026-01-01T00:{:02}:00Z", n % 60), "principal": principal, "session": session,
        "action": action, "resource": "-", "context": { "task": "14" } });
    let response = if assessment == "abuse" { "deny" } else { "allow" };
    let told = json!({ "session": session, "n": n, "flags": flags, "assessment": assessment, "confidence": 0.8,
        "response": response, "evidence": [format!("{action} is new")] });
    [attempt, told]
}

fn open(lines: &[&Value]) -> Box<dyn BufRead> {
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    Box::new(Cursor::new(text.join("\n").into_bytes()))
}

fn pairs(attempts: &[&Value], told: &[&Value]) -> Pairs {
    let told = Lines::of(Path::new("scored"), open(told)).unwrap();
    Pairs::new(told, Attempts::of(Path::new("attempts"), open(attempts)).unwrap())
}

fn noted(report: &mut Report<'_>, lines: &[[Value; 2]]) {
    let (attempts, told): (Vec<_>, Vec<_>) = lines.iter().map(|[attempt, told]| (attempt, told)).unzip();
    for pair in pairs(&attempts, &told) {
        let (recorded, told) = pair.unwrap();
        report.note(&recorded, &told);
    }
}

fn page(kept: &Kept, lines: &[[Value; 2]]) -> String {
    let config = Config::default();
    let mut report = Report::new(&config, kept, Choice::default());
    noted(&mut report, lines);
    report.page()
}

#[test]
fn no_text_from_outside_becomes_markup_or_hides() {
    let bad = "\"'><script>alert(1)</script><img src=x onerror=y>\u{202e}\u{0}\u{200b}";
    let mut lines =
        vec![pair(bad, bad, 0, bad, "abuse", &[]), pair(bad, bad, 1, "y", "workflow_change", &[])];
    lines[0][0]["context"]["task"] = bad.into();
    lines[0][1]["evidence"] = json!([format!("{bad} → {bad}"), bad, bad, bad]);
    let mut kept = Kept::new(bad);
    let one = Step { observed: Observed { action: bad, ..Observed::default() }, previous: "", at_ms: 0 };
    let mut approved = Approved::default();
    approved.learn([one]);
    kept.baselines.insert(bad.to_owned(), std::iter::once((bad.to_owned(), approved)).collect());
    let config = Config::default();
    for choice in [
        Choice::default(),
        Choice { identity: Some(bad.to_owned()), task: None },
        Choice { identity: Some(bad.to_owned()), task: Some(bad.to_owned()) },
    ] {
        let mut report = Report::new(&config, &kept, choice);
        noted(&mut report, &lines);
        let page = report.page();
        for forbidden in ["<script", "<img", "\u{202e}", "\u{0}", "\u{200b}", "\"'", "onerror=y>"] {
            assert!(!page.contains(forbidden), "{forbidden:?}");
        }
        assert!(page.contains("&quot;&#39;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.contains("⟨U+202E⟩⟨U+0000⟩⟨U+200B⟩"));
        is_well_formed(&page);
    }
}

/// Every element that is opened is closed in its order.
fn is_well_formed(page: &str) {
    let body = page.split_once("<body>").unwrap().1.split_once("</body>").unwrap().0;
    let mut open: Vec<&str> = Vec::new();
    for tag in body.split('<').skip(1) {
        let tag = tag.split_once('>').unwrap().0;
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        match tag {
            _ if tag.starts_with('/') => assert_eq!(open.pop(), Some(name), "{tag}"),
            _ if tag.ends_with('/') || name == "br" => {}
            _ => open.push(name),
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn the_page_fetches_nothing_and_runs_nothing() {
    let page = page(&Kept::new("ann"), &[pair("a", "s", 0, "x", "abuse", &[])]);
    let digest = page.split_once("style-src 'sha256-").unwrap().1.split_once('\'').unwrap().0;
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let want = ring::digest::digest(&ring::digest::SHA256, style.as_bytes());
    assert_eq!(digest, base64::Engine::encode(&base64::engine::general_purpose::STANDARD, want));
    assert!(page.contains("default-src 'none'"));
    for forbidden in ["http:", "https:", "src=", "href=", " style=", "@import", "url("] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn repeats_are_folded_into_their_incident_and_the_most_severe_comes_first() {
    let lines = [
        pair("agent:a", "s", 0, "tidy", "misconfiguration", &[]),
        pair("agent:b", "t", 0, "send", "abuse", &[]),
        pair("agent:b", "t", 1, "send", "abuse", &["again"]),
        pair("agent:b", "t", 2, "send", "abuse", &["again"]),
        pair("agent:b", "u", 0, "send", "abuse", &[]),
        pair("agent:b", "u", 1, "look", "none", &[]),
    ];
    let page = page(&Kept::new("ann"), &lines);
    assert!(page.contains(
        "2 identities, 6 attempts, 3 incidents: 2 abuse and 1 misconfiguration; 2 further attempts repeat an incident of the \
         same session. The monitor&#39;s answer: 2 denied and 1 let through. 3 of 3 sessions deviated. Most severe: agent:b with 2 \
         incidents."
    ));
    let cases = page.split_once("id=\"cases\"").unwrap().1;
    assert!(cases.find("<code>send</code>").unwrap() < cases.find("<code>tidy</code>").unwrap());
    assert_eq!(cases.matches("<code>send</code>").count(), 1);
    assert!(
        cases.contains("data-label=\"Incidents\">2</td>") && cases.contains("data-label=\"Repeats\">2</td>")
    );
    assert!(page.contains("begin → send: new, 2 attempts, 2 incidents"));
}

#[test]
fn the_graph_tells_approved_from_new_and_a_choice_leaves_the_rest_out() {
    let mut kept = Kept::new("ann");
    let step =
        |action, previous| Step { observed: Observed { action, ..Observed::default() }, previous, at_ms: 0 };
    let mut approved = Approved::default();
    approved.learn([step("look", ""), step("file", "look")]);
    kept.baselines.insert("a".to_owned(), std::iter::once(("14".to_owned(), approved)).collect());
    let mut lines = vec![pair("a", "s", 0, "look", "none", &[]), pair("a", "s", 1, "send", "abuse", &[])];
    lines.push(pair("other", "t", 0, "unrelated", "abuse", &[]));
    let page = page(&kept, &lines);
    for title in [
        "begin → look: approved, 1 attempt, 0 incidents",
        "look → send: new, 1 attempt, 1 incident",
        "look → file: approved, not used, 0 attempts, 0 incidents",
    ] {
        assert!(page.contains(title), "{title}");
    }
    let config = Config::default();
    let mut report =
        Report::new(&config, &kept, Choice { identity: Some("a".to_owned()), task: Some("14".to_owned()) });
    noted(&mut report, &lines);
    assert_eq!(report.attempts(), 2);
    assert!(!report.page().contains("unrelated"));
}

#[test]
fn files_that_do_not_belong_together_are_a_fault_with_its_line() {
    let [first, told_first] = pair("a", "s", 0, "x", "none", &[]);
    let [second, told_second] = pair("a", "s", 1, "x", "none", &[]);
    let [other, _] = pair("a", "\u{1b}other", 0, "x", "none", &[]);
    let fault = |attempts: &[&Value], told: &[&Value]| -> Fault {
        pairs(attempts, told).find_map(Result::err).expect("a fault")
    };
    let longer = fault(&[&first, &second], &[&told_first]);
    assert!(longer.what.starts_with("ends before the attempts do"), "{longer}");
    let shorter = fault(&[&first], &[&told_first, &told_second]);
    assert!(shorter.place == "scored:2" && shorter.what.starts_with("goes on after the last"), "{shorter}");
    let swapped = fault(&[&first, &other], &[&told_first, &told_second]);
    assert_eq!(swapped.place, "scored:2");
    assert!(
        swapped.what.contains("attempt 1 of session `s`, and the attempt there is 0 of `\\u{1b}other`"),
        "{swapped}"
    );
    assert!(fault(&[&first], &[&told_second]).what.contains("tells of attempt 1"));
    assert!(fault(&[&first], &[&json!({})]).what.contains("cardea monitor score"));
}

#[test]
fn what_is_held_and_shown_is_bounded_and_the_counts_stay_whole() {
    let lines: Vec<[Value; 2]> = (0..cases::CASES_KEPT as u64 + 700)
        .map(|at| pair(&format!("agent:{at}"), &format!("s{at}"), 0, "send", "abuse", &[]))
        .collect();
    let config = Config::default();
    let kept = Kept::new("ann");
    let mut report = Report::new(&config, &kept, Choice::default());
    noted(&mut report, &lines);
    assert_eq!(report.identities.len(), IDENTITIES_MAX);
    assert_eq!(report.whole.incidents(), 2_700);
    let held: u64 = report.cases.ranked().iter().map(|(_, case)| case.incidents).sum();
    assert_eq!(held + report.cases.dropped, 2_700);
    let page = report.page();
    is_well_formed(&page);
    assert_eq!(page.matches("<code>send</code>").count(), 100);
    for words in [
        "more than 1,000 identities",
        "And at least 980 more identities with 2,680 incidents",
        "more cases with",
        "were too many cases",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(page.len() < 300_000, "{}", page.len());
}

#[test]
fn however_far_apart_times_are_the_columns_stay_few_and_nothing_is_lost() {
    let times =
        ["1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z", "-009999-01-02T01:59:59Z", "9999-12-30T22:00:00Z"];
    let lines = times.map(|ts| {
        let mut line = pair("a", ts, 0, "x", "abuse", &[]);
        line[0]["ts"] = ts.into();
        line
    });
    let config = Config::default();
    let kept = Kept::new("ann");
    let mut report = Report::new(&config, &kept, Choice::default());
    noted(&mut report, &lines);
    assert!(report.timeline.range().1 <= timeline::COLUMNS_MAX);
    assert_eq!(report.timeline.columns.values().map(Tally::incidents).sum::<u64>(), 4);
    is_well_formed(&report.page());
}

#[test]
fn nothing_found_is_said_in_words() {
    let page = page(&Kept::new("ann"), &[pair("a", "s", 0, "x", "none", &[])]);
    assert!(page.contains("1 identity made 1 attempt, and nothing deviates from what was approved."));
    is_well_formed(&page);
}
