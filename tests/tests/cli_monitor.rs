//! `cardea monitor`: learning from approved runs and scoring others, as a program.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cardea_tests::process::{Finished, run_cardea};
use serde_json::{Value, json};
use tempfile::TempDir;

const CONFIG: &str = r#"
[attempts]
resource = "key_and_target"
principal_prefix = "agent:"
[classes]
read = ["read_*"]
egress = ["send_*"]
"#;

/// A directory with a configuration in which commands run.
struct Place(TempDir);

impl Place {
    fn new() -> Result<Self> {
        let place = Self(tempfile::tempdir()?);
        place.write("monitor.toml", CONFIG)?;
        Ok(place)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.path().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn run(&self, args: &str) -> Result<Finished> {
        let here = self.0.path().display().to_string();
        let words: Vec<String> = args.split(' ').map(|word| word.replace('@', &format!("{here}/"))).collect();
        run_cardea(&words, b"")
    }

    fn learn(&self, runs: usize, out: &str) -> Result<Vec<u8>> {
        let lines: Vec<String> =
            (0..runs).flat_map(|run| mail(&format!("l{run}"), "14", "ann@ours.io", false)).collect();
        self.write("learn.jsonl", &lines.join("\n"))?;
        let args = format!(
            "monitor learn --attempts @learn.jsonl --config @monitor.toml --out @{out} --approved-by ann"
        );
        let done = self.run(&args)?;
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        Ok(fs::read(self.0.path().join(out))?)
    }

    fn score(&self, lines: &[String], more: &str) -> Result<Vec<Value>> {
        self.write("score.jsonl", &lines.join("\n"))?;
        let args =
            format!("monitor score --baseline @b.json --attempts @score.jsonl --config @monitor.toml{more}");
        let done = self.run(&args)?;
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stdout.lines().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
    }
}

/// A run: read the inbox, then send a mail. `is_attack` is the label, which nobody may read.
fn mail(session: &str, task: &str, to: &str, is_attack: bool) -> Vec<String> {
    let label = if is_attack { "attack" } else { "benign" };
    let base = |action: &str, resource: &str, refs: Value| {
        json!({
            "ts": "2026-01-01T00:00:00Z", "principal": "agent:office", "session": session, "action": action,
            "resource": resource, "context": { "task": task, "args": {}, "refs": refs, "agent_build": label },
            "label": label, "trace": label, "meta": { "role": label }, "unknown": 1,
        })
        .to_string()
    };
    vec![base("read_inbox", "-", json!([])), base("send_email", &format!("recipients:{to}"), json!([to]))]
}

#[test]
fn what_was_approved_passes_and_a_stranger_is_denied_with_its_evidence() -> Result<()> {
    let place = Place::new()?;
    place.learn(8, "b.json")?;
    let lines = [mail("s1", "14", "ann@ours.io", true), mail("s2", "14", "x@evil.example", false)].concat();
    let said = place.score(&lines, "")?;
    let of = |key: &str| said.iter().map(|line| line[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("session"), ["s1", "s1", "s2", "s2"]);
    assert_eq!(of("n"), [0, 1, 0, 1]);
    assert_eq!(of("assessment"), ["none", "none", "none", "abuse"], "labels are not read");
    assert_eq!(of("response"), ["allow", "allow", "allow", "deny"]);
    assert_eq!(said[0]["flags"], json!([]));
    assert_eq!(
        said[3]["evidence"],
        json!([
            "send_email → x@evil.example: the reference was never used in task 14, nor for the identity in any task; \
             seen references: ann@ours.io",
            "compared with baseline 1 (approved by ann) (8 approved runs)",
        ])
    );
    assert!(said[3]["confidence"].as_f64().is_some_and(|confidence| confidence > 0.7));
    Ok(())
}

#[test]
fn few_runs_and_unknown_tasks_go_to_review() -> Result<()> {
    let place = Place::new()?;
    place.learn(7, "b.json")?;
    for task in ["14", "15"] {
        let said = place.score(&mail("s", task, "x@evil.example", true), "")?;
        assert_eq!(said[1]["response"], "step_up", "task {task}");
    }
    Ok(())
}

#[test]
fn scope_window_and_words_of_a_task_count() -> Result<()> {
    let place = Place::new()?;
    place.learn(8, "b.json")?;
    let tasks = json!({ "tasks": {
        "office/14": { "prompt": "Mail Ann.", "declared_scope": ["read_inbox", "send_email"],
                       "window": { "from": "2025-12-31T00:00:00Z", "until": "2026-01-01T00:00:00Z" } },
        "office/15": { "prompt": "Mail bob@x.io", "declared_scope": ["send_email"] },
        "office/16": { "prompt": "Look around", "declared_scope": [] },
        "office/17": { "kind": "injection", "prompt": "Mail ann@ours.io", "declared_scope": ["send_email"] },
    }});
    place.write("tasks.json", &tasks.to_string())?;
    let response = |task: &str, to: &str| -> Result<Value> {
        let said = place.score(&mail("s", task, to, false), " --tasks @tasks.json")?;
        Ok(said[1]["response"].clone())
    };
    assert_eq!(response("14", "ann@ours.io")?, "deny", "after its end");
    assert_eq!(response("15", "bob@x.io")?, "allow", "its words name him");
    assert_eq!(response("15", "eve@x.io")?, "step_up");
    assert_eq!(response("16", "ann@ours.io")?, "deny", "it was declared for nothing");
    assert_eq!(response("17", "ann@ours.io")?, "deny", "entries of attacks are no tasks");
    assert_eq!(response("18", "ann@ours.io")?, "deny", "nobody declared it");
    Ok(())
}

#[test]
fn the_same_runs_give_the_same_bytes_and_a_habit_never_forms() -> Result<()> {
    let place = Place::new()?;
    assert_eq!(place.learn(9, "b.json")?, place.learn(9, "c.json")?);
    let lines: Vec<String> = (0..1000).flat_map(|_| mail("s", "14", "x@evil.example", true)).collect();
    let said = place.score(&lines, "")?;
    let denied = said.iter().skip(1).step_by(2).filter(|line| line["response"] == "deny").count();
    assert_eq!((said.len(), denied), (2000, 1000));
    // Learning on top leaves out what deviates.
    place.write("more.jsonl", &lines.join("\n"))?;
    let done = place
        .run("monitor learn --attempts @more.jsonl --config @monitor.toml --out @b.json --onto @b.json")?;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains("version 2") && done.stderr.contains("1000 attempts left out"),
        "{}",
        done.stderr
    );
    assert_eq!(place.score(&lines[..2], "")?[1]["response"], "deny");
    Ok(())
}

#[test]
fn faults_name_the_file_the_line_and_the_remedy() -> Result<()> {
    let place = Place::new()?;
    place.learn(1, "b.json")?;
    place.write(
        "score.jsonl",
        &format!("{}\n{{\"ts\":\"yesterday\"}}", mail("s", "14", "a@b.io", false)[0]),
    )?;
    let score = "monitor score --baseline @b.json --attempts @score.jsonl --config @monitor.toml";
    let done = place.run(score)?;
    assert_eq!(done.code, Some(2));
    assert_eq!(done.stdout.lines().count(), 1, "what came before is scored");
    assert!(done.stderr.contains("score.jsonl:2: `yesterday` is no time"), "{}", done.stderr);
    place.write("monitor.toml", "[attempts]\n\nrunn = 1\n")?;
    let done = place.run(score)?;
    assert!(done.stderr.contains("monitor.toml:3: unknown field `runn`"), "{}", done.stderr);
    place.write("monitor.toml", CONFIG)?;
    place.write("b.json", "{}")?;
    assert!(place.run(score)?.stderr.contains("make it with `cardea monitor learn`"));
    assert!(
        place
            .run("monitor score --baseline @none --attempts @score.jsonl --config @monitor.toml")?
            .stderr
            .contains("none: cannot be read")
    );
    Ok(())
}

#[test]
fn a_report_is_one_page_with_the_evidence_and_files_that_do_not_belong_together_give_none() -> Result<()> {
    let place = Place::new()?;
    place.learn(8, "b.json")?;
    let lines =
        [mail("s1", "14", "ann@ours.io", true), mail("s2", "14", "<b>x@evil.example", false)].concat();
    let said = place.score(&lines, "")?;
    let scored: Vec<String> = said.iter().map(Value::to_string).collect();
    place.write("scored.jsonl", &scored.join("\n"))?;
    let report = "monitor report --scored @scored.jsonl --attempts @score.jsonl --baseline @b.json --config @monitor.toml --out @r.html";
    let done = place.run(report)?;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("1 identity, 4 attempts, 1 incident: 1 abuse"), "{}", done.stderr);
    let page = fs::read_to_string(place.0.path().join("r.html"))?;
    for words in [
        "<!doctype html>",
        "the reference was never used in task 14",
        "approved by <bdi>ann</bdi>",
        "begin → read_inbox: approved",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert!(!page.contains("<b>"));
    assert_eq!(place.run(report)?.code, Some(0));
    assert_eq!(
        fs::read_to_string(place.0.path().join("r.html"))?,
        page,
        "the same files give the same bytes"
    );

    place.write("scored.jsonl", &scored[..3].join("\n"))?;
    let done = place.run(report)?;
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("scored.jsonl:4: ends before the attempts do"), "{}", done.stderr);
    assert_eq!(fs::read_to_string(place.0.path().join("r.html"))?, page, "the older page is still there");
    place.write("scored.jsonl", &scored.join("\n"))?;
    let done = place.run(&format!("{report} --identity agent:nobody"))?;
    assert!(done.stderr.contains("holds no attempt of this identity"), "{}", done.stderr);
    Ok(())
}

#[test]
fn the_examples_can_be_read() -> Result<()> {
    let place = Place::new()?;
    place.learn(1, "b.json")?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/monitoring");
    let mut count = 0;
    for entry in fs::read_dir(&examples)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let done = place.run(&format!(
                "monitor learn --attempts @learn.jsonl --config {} --out @x.json",
                path.display()
            ))?;
            assert_eq!(done.code, Some(0), "{}: {}", path.display(), done.stderr);
            count += 1;
        }
    }
    assert_eq!(count, 5);
    Ok(())
}
