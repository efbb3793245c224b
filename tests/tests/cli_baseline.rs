//! `cardea baseline`: files of approved behaviour, shown, compared and thinned out, as a program.

use std::fs;

use anyhow::{Context as _, Result};
use cardea_tests::process::{Finished, run_cardea};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory in which commands run; `@` in an argument stands for it.
struct Place(TempDir);

impl Place {
    /// With `old.json`, in which Ann was written to in January, and `new.json`, in which Bob was in June.
    fn new() -> Result<Self> {
        let place = Self(tempfile::tempdir()?);
        place.write(
            "monitor.toml",
            "[attempts]\nresource = \"key_and_target\"\n[classes]\negress = [\"send_*\"]\n",
        )?;
        for (name, month, to) in [("old", 1, "ann"), ("new", 6, "bob")] {
            let lines: Vec<String> =
                (0..8).flat_map(|run| mail(&format!("{name}{run}"), month, to)).collect();
            place.write("runs.jsonl", &lines.join("\n"))?;
            let args = format!(
                "monitor learn --attempts @runs.jsonl --config @monitor.toml --out @{name}.json --approved-by {to}"
            );
            place.fine(&args)?;
        }
        Ok(place)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.0.path().join(name), text)?)
    }

    fn run(&self, args: &str) -> Result<Finished> {
        let here = self.0.path().display().to_string();
        let words: Vec<String> = args.split(' ').map(|word| word.replace('@', &format!("{here}/"))).collect();
        run_cardea(&words, b"")
    }

    fn fine(&self, args: &str) -> Result<String> {
        let done = self.run(args)?;
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        Ok(done.stdout)
    }

    fn json(&self, args: &str) -> Result<Value> {
        serde_json::from_str(&self.fine(&format!("{args} --format json"))?).context("JSON")
    }
}

fn mail(session: &str, month: u32, to: &str) -> [String; 2] {
    [("read_inbox", "-".to_owned()), ("send_email", format!("to:{to}"))].map(|(action, resource)| {
        json!({ "ts": format!("2026-{month:02}-01T00:00:00Z"), "principal": "agent:office", "session": session,
                "action": action, "resource": resource, "context": { "task": "14", "refs": [format!("{to}@x.io")] } })
        .to_string()
    })
}

#[test]
fn show_tells_what_is_approved_by_whom_and_when_it_was_used() -> Result<()> {
    let place = Place::new()?;
    let shown = place.fine("baseline show @old.json")?;
    for words in [
        "version    1",
        "approved   by ann",
        "from 16 attempts",
        "agent:office  14    8     yes",
        "2026-01-01T00:00:00Z",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    assert!(
        shown.contains("(begin)     read_inbox  8") && shown.contains("ann@x.io"),
        "one alone is shown whole: {shown}"
    );
    let said = place.json("baseline show @old.json --identity agent:office --task 14")?;
    let one = &said["baselines"][0];
    assert_eq!(
        (&one["runs"], &one["mature"], &said["approved_by"]),
        (&json!(8), &json!(true), &json!("ann"))
    );
    assert_eq!(one["actions"][1]["name"], "send_email");
    assert_eq!(
        one["actions"][1]["targets"],
        json!([{ "name": "ann", "runs": 8, "tasks": 1, "last_used": "2026-01-01T00:00:00Z" }])
    );
    assert_eq!(one["transitions"][1]["from"], "read_inbox");
    let none = place.run("baseline show @old.json --task 15")?;
    assert_eq!(none.code, Some(2));
    assert!(none.stderr.contains("holds no baseline"), "{}", none.stderr);
    Ok(())
}

#[test]
fn a_name_from_outside_cannot_move_the_cursor() -> Result<()> {
    let place = Place::new()?;
    let text = fs::read_to_string(place.0.path().join("old.json"))?;
    place.write("bad.json", &text.replace("ann", "a\\u001b[2Jn"))?;
    for args in ["baseline show @bad.json", "baseline diff @old.json @bad.json"] {
        let shown = place.fine(args)?;
        assert!(!shown.contains('\u{1b}') && shown.contains("[2Jn"), "{shown:?}");
    }
    Ok(())
}

#[test]
fn diff_names_what_came_and_went_and_fails_only_if_asked() -> Result<()> {
    let place = Place::new()?;
    let told = place.fine("baseline diff @old.json @new.json")?;
    for words in [
        "agent:office, task 14  (8 -> 8 runs)",
        "  - target send_email → ann",
        "  + target send_email → bob",
        "2 added, 2 removed",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let said = place.json("baseline diff @old.json @new.json")?;
    assert_eq!(said["changes"][0]["added"], json!(["reference bob@x.io", "target send_email → bob"]));
    assert_eq!(
        (&said["added"], &said["removed"], &said["new"]["approved_by"]),
        (&json!(2), &json!(2), &json!("bob"))
    );
    for (fail_on, code) in [("none", 0), ("widening", 1), ("any", 1)] {
        let done = place.run(&format!("baseline diff @old.json @new.json --fail-on {fail_on}"))?;
        assert_eq!(done.code, Some(code), "{fail_on}");
    }
    let same = place.run("baseline diff @old.json @old.json --fail-on any")?;
    assert_eq!(same.code, Some(0));
    assert!(same.stdout.contains("Both approve the same."));
    Ok(())
}

#[test]
fn expire_drops_what_was_not_used_and_says_who_decided_it() -> Result<()> {
    let place = Place::new()?;
    let told = place.fine("baseline expire @old.json --unused-days 30 --out @same.json --approved-by eve")?;
    assert!(
        told.contains("version 2; 0 names not used since 2025-12-02T00:00:00Z dropped, 6 kept"),
        "{told}"
    );
    let expire = "baseline expire @old.json --unused-days 90 --out @thin.json --approved-by eve --as-of 2026-06-01T00:00:00Z";
    let said = place.json(expire)?;
    assert_eq!((&said["dropped"], &said["kept"], &said["version"]), (&json!(6), &json!(0), &json!(2)));
    let thin = place.json("baseline show @thin.json")?;
    assert_eq!((&thin["approved_by"], &thin["version"]), (&json!("eve"), &json!(2)));
    // It stays mature, so what it does not approve any more is judged strictly.
    assert_eq!(
        (&thin["baselines"][0]["runs"], &thin["baselines"][0]["last_used"]),
        (&json!(8), &Value::Null)
    );
    let diff = place.fine("baseline diff @old.json @thin.json --fail-on widening")?;
    assert!(diff.contains("0 added, 6 removed"), "{diff}");
    let done = place.run("baseline expire @thin.json --unused-days 1 --out @x.json --approved-by eve")?;
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("approves nothing"), "{}", done.stderr);
    Ok(())
}

#[test]
fn recorded_runs_become_a_candidate_that_counts_for_nobody_before_it_is_promoted() -> Result<()> {
    let place = Place::new()?;
    let learn = "baseline learn --attempts @runs.jsonl --config @monitor.toml --out @candidate.json";
    let said = place.json(learn)?;
    assert_eq!((&said["runs"], &said["attempts"]), (&json!(8), &json!(16)));
    let shown = place.fine("baseline show @candidate.json")?;
    assert!(shown.contains("by nobody: it is a candidate"), "{shown}");
    for args in [
        "monitor score --attempts @runs.jsonl --config @monitor.toml --baseline @candidate.json",
        "monitor learn --attempts @runs.jsonl --config @monitor.toml --onto @candidate.json --out @x.json",
        "baseline expire @candidate.json --unused-days 1 --out @x.json --approved-by eve",
        "baseline promote @old.json --approved-by eve --out @x.json",
        "baseline promote @candidate.json --onto @candidate.json --approved-by eve --out @x.json",
    ] {
        let refused = place.run(args)?;
        assert_eq!(refused.code, Some(2), "{args}: {}", refused.stderr);
    }
    let promoted =
        place.fine("baseline promote @candidate.json --onto @old.json --approved-by eve --out @next.json")?;
    assert!(
        promoted.contains("+ target send_email → bob") && promoted.contains("(8 -> 16 runs)"),
        "{promoted}"
    );
    let said = place.json("baseline show @next.json")?;
    let history = &said["promotions"][0];
    assert_eq!(
        (&history["approved_by"], &history["added"], &said["version"]),
        (&json!("eve"), &json!(2), &json!(2))
    );
    assert_eq!(history["from"].as_str().map(str::len), Some(64), "the digest of what it was made from");
    // With what is approved at hand, what deviates from it is not even a candidate.
    let careful = place.run(&format!("{learn} --baseline @old.json"))?;
    assert!(careful.code == Some(2) && careful.stderr.contains("16 attempts deviate"), "{}", careful.stderr);
    Ok(())
}

#[test]
fn a_history_that_was_edited_is_no_file_of_baselines() -> Result<()> {
    let place = Place::new()?;
    place.fine("baseline learn --attempts @runs.jsonl --config @monitor.toml --out @candidate.json")?;
    place.fine("baseline promote @candidate.json --onto @old.json --approved-by eve --out @next.json")?;
    let text = fs::read_to_string(place.0.path().join("next.json"))?;
    place.write("bad.json", &text.replacen("\"approved_by\":\"eve\"", "\"approved_by\":\"root\"", 1))?;
    let refused = place.run("baseline show @bad.json")?;
    assert!(refused.code == Some(2) && refused.stderr.contains("history"), "{}", refused.stderr);
    Ok(())
}

#[test]
fn what_was_also_done_without_a_target_is_a_difference() -> Result<()> {
    let place = Place::new()?;
    let line = |resource: &str| {
        json!({ "ts": "2026-01-01T00:00:00Z", "principal": "a", "session": "s", "action": "send_email",
                "resource": resource, "context": {} })
        .to_string()
    };
    place.write("runs.jsonl", &[line("to:ann"), line("-")].join("\n"))?;
    place.write("named.jsonl", &[line("to:ann"), line("to:ann")].join("\n"))?;
    for name in ["runs", "named"] {
        place.fine(&format!(
            "monitor learn --attempts @{name}.jsonl --config @monitor.toml --out @{name}.json"
        ))?;
    }
    let told = place.run("baseline diff @named.json @runs.json --fail-on widening")?;
    assert!(
        told.code == Some(1) && told.stdout.contains("+ action send_email without a target"),
        "{}",
        told.stdout
    );
    Ok(())
}

#[test]
fn learning_needs_a_source_and_says_what_an_audit_directory_is() -> Result<()> {
    let place = Place::new()?;
    for (args, words) in [
        ("baseline learn --out @x.json", "name what to learn from"),
        ("baseline learn --audit @ --out @x.json", "audit.dir"),
        ("baseline learn --audit @runs.jsonl --out @x.json", "a line is a record of a node's audit"),
    ] {
        fs::write(place.0.path().join("runs.jsonl"), "{}\n")?;
        if args.contains("@ ") {
            fs::remove_file(place.0.path().join("runs.jsonl"))?;
        }
        let refused = place.run(args)?;
        assert!(refused.code == Some(2) && refused.stderr.contains(words), "{args}: {}", refused.stderr);
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_a_file_is_told_without_what_would_move_the_cursor() -> Result<()> {
    let place = Place::new()?;
    let hidden = "x\u{1b}[2J\u{202e}y";
    let mut file: Value = serde_json::from_str(&fs::read_to_string(place.0.path().join("old.json"))?)?;
    file["format"] = hidden.into();
    place.write("format.json", &file.to_string())?;
    place.write("key.json", &json!({ hidden: 1 }).to_string())?;
    place.write("attempts.jsonl", &format!("{{\"ts\":\"{hidden}\"}}"))?;
    for args in [
        "baseline show @format.json",
        "baseline show @key.json",
        "baseline promote @key.json --approved-by ann --out @out.json",
        "monitor score --attempts @old.json --config @monitor.toml --baseline @key.json",
        "monitor learn --attempts @attempts.jsonl --config @monitor.toml --out @out.json --approved-by ann",
    ] {
        let done = place.run(args)?;
        assert_eq!(done.code, Some(2), "{args}: {}", done.stderr);
        let is_raw = |one: char| (one.is_control() && one != '\n') || one == '\u{202e}';
        assert!(!done.stderr.contains(is_raw), "{args}: {:?}", done.stderr);
    }
    // A bundle whose approver is made of such characters.
    fs::create_dir(place.0.path().join("bundle"))?;
    let mut old: Value = serde_json::from_str(&fs::read_to_string(place.0.path().join("old.json"))?)?;
    old["approved_by"] = hidden.into();
    place.write("bundle/baselines.json", &old.to_string())?;
    let done = place.run("baseline import @new.json --bundle @bundle")?;
    assert!(done.stderr.contains("approved by") && !done.stderr.contains('\u{1b}'), "{:?}", done.stderr);
    Ok(())
}
