//! A bundle with what was approved: `cardea monitor learn`, the check, and decisions over gRPC.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use cardea_proto::v1::Decision;
use cardea_tests::attempts::{attempt, entity};
use cardea_tests::audit;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::process::run_cardea;
use tempfile::TempDir;

const SETTINGS: &str = r#"name = "office"

[step_up.review]
kind = "approval"
reviewers = ["Agent::\"duty\""]
grant_s = 900

[behavior]
references = ["links"]
lists = ["to"]
[behavior.targets]
send = ["to"]
[behavior.classes]
read = ["read"]
egress = ["send"]
"#;

const SCHEMA: &str = "entity Agent; entity Mailbox;
action read, send appliesTo { principal: Agent, resource: Mailbox, context: {
  session: Cardea::Session, behavior: Cardea::Behavior, request: { to?: String, links?: Set<String> } } };
";

const POLICIES: &str = r#"@id("work")
permit (principal is Agent, action in [Action::"read", Action::"send"], resource is Mailbox);

@id("stranger") @reason("nobody approved this party for this work")
forbid (principal, action == Action::"send", resource)
when { context.behavior.mature && context.behavior.assessment == "abuse" };

@id("new") @reason("this is new; somebody must look at it") @step_up("review")
forbid (principal, action == Action::"send", resource)
when { (context.behavior.new_target || context.behavior.new_reference) && !context.session.grants.contains("review") };
"#;

/// How attempts are learned from: the same fields as in the bundle.
const MONITOR: &str = "[attempts]\nreferences = \"links\"\nresource = \"target\"\nlists = [\"to\"]\n[targets]\nsend = [\"to\"]\n[classes]\nread = [\"read\"]\negress = [\"send\"]\n";

/// The bundle, with a baseline of so many approved runs of task `month`.
fn bundle(runs: usize) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("policies"))?;
    fs::write(at("bundle.toml"), SETTINGS)?;
    fs::write(at("schema.cedarschema"), SCHEMA)?;
    fs::write(at("policies/all.cedar"), POLICIES)?;
    let beside = tempfile::tempdir()?;
    let (attempts, config) = (beside.path().join("attempts.jsonl"), beside.path().join("monitor.toml"));
    let lines: Vec<String> = (0..runs).flat_map(approved).collect();
    fs::write(&attempts, lines.join("\n"))?;
    fs::write(&config, MONITOR)?;
    let text = |path: &Path| path.display().to_string();
    let (attempts, config, out) = (text(&attempts), text(&config), text(&at("baselines.json")));
    let learned = run_cardea(
        &[
            "monitor",
            "learn",
            "--attempts",
            &attempts,
            "--config",
            &config,
            "--out",
            &out,
            "--approved-by",
            "ann",
        ],
        b"",
    )?;
    ensure!(learned.code == Some(0), "{}", learned.stderr);
    Ok(dir)
}

/// One approved run, as recorded: read the inbox, then write to ann and bob.
fn approved(run: usize) -> [String; 2] {
    let line = |second, action: &str, context: &str| {
        format!(
            r#"{{"ts":"2026-01-01T00:00:{second:02}Z","principal":"Agent::\"sec\"","session":"r{run}","action":"{action}","resource":"in","context":{{"task":"month"{context}}}}}"#
        )
    };
    [line(0, "read", ""), line(1, "send", r#","args":{"to":"ann, bob"},"links":["https://blue.io/"]"#)]
}

async fn started(runs: usize) -> Result<(Cardea, Clients, TempDir)> {
    let dir = bundle(runs)?;
    let source = dir.path().display().to_string();
    let options =
        Options { source: Some(source), config: "[audit]\nreplayable = true".into(), ..Options::default() };
    let cardea = Cardea::start_with(options).await?;
    let mut clients = cardea.clients()?;
    let task = v1::Task {
        id: "month".to_owned(),
        purpose: "Write to the owners.".to_owned(),
        actions: vec!["read".to_owned(), "send".to_owned()],
        ..v1::Task::default()
    };
    let session = v1::Session {
        id: "s".to_owned(),
        principal: Some(entity("Agent::sec")?),
        task: Some(task),
        ..v1::Session::default()
    };
    clients.session.open(v1::OpenSessionRequest { session: Some(session) }).await?;
    Ok((cardea, clients, dir))
}

fn send(to: &str) -> Result<v1::Attempt> {
    let to = v1::Value { kind: Some(v1::value::Kind::String(to.to_owned())) };
    Ok(v1::Attempt {
        context: [("to".to_owned(), to)].into(),
        ..attempt("Agent::sec", "send", "Mailbox::in", "s")?
    })
}

fn why(verdict: &v1::Verdict) -> Option<&str> {
    let found = verdict.evidence.iter().find(|evidence| evidence.fact == "behavior.assessment");
    found.map(|evidence| evidence.why.as_str())
}

#[tokio::test]
async fn what_was_approved_is_allowed_and_a_stranger_is_denied_with_the_missing_entry() -> Result<()> {
    let (_cardea, mut clients, _dir) = started(9).await?;
    let known = clients.decide(send("ann, bob")?).await?;
    assert_eq!(known.decision(), Decision::Allow, "{known:?}");
    assert_eq!(why(&known), None);
    let record = audit::decision(&mut clients, &known.decision_id).await?;
    assert_eq!(record.deviation, None);
    let denied = clients.decide(send("ann, mallory")?).await?;
    assert_eq!(denied.decision(), Decision::Deny);
    let told = why(&denied).context("no evidence")?;
    let missing = "send → mallory was never a target in task month, nor for the identity in any task; seen targets: ann, bob";
    assert!(told.starts_with(missing), "{told}");
    let record = audit::decision(&mut clients, &denied.decision_id).await?;
    let deviation = record.deviation.context("no deviation in the record")?;
    assert_eq!(
        (deviation.assessment.as_str(), deviation.baseline.as_str()),
        ("abuse", "1 (approved by ann)")
    );
    assert!(deviation.flags.contains(&"new_target_for_identity".to_owned()), "{:?}", deviation.flags);
    assert_eq!(deviation.evidence.join("; "), told);
    Ok(())
}

#[tokio::test]
async fn what_no_mature_baseline_vouches_for_goes_to_review() -> Result<()> {
    let (_cardea, mut clients, _dir) = started(2).await?;
    assert_eq!(clients.decide(send("ann")?).await?.decision(), Decision::Allow);
    let stepped = clients.decide(send("mallory")?).await?;
    assert_eq!(stepped.decision(), Decision::StepUp);
    assert_eq!(stepped.step_up.first().context("no requirement")?.name, "review");
    assert!(why(&stepped).is_some_and(|why| why.contains("mallory")), "{stepped:?}");
    Ok(())
}

#[tokio::test]
async fn a_thousand_repetitions_stay_deviations() -> Result<()> {
    let (_cardea, mut clients, _dir) = started(9).await?;
    for _ in 0..1000 {
        assert_eq!(clients.decide(send("mallory")?).await?.decision(), Decision::Deny);
    }
    let last = clients.decide(send("mallory")?).await?;
    let record = audit::decision(&mut clients, &last.decision_id).await?;
    assert!(record.deviation.context("no deviation")?.flags.contains(&"again".to_owned()));
    Ok(())
}

#[tokio::test]
async fn an_action_whose_policies_compare_nothing_has_nothing_compared() -> Result<()> {
    let (_cardea, mut clients, _dir) = started(9).await?;
    let read = clients.decide(attempt("Agent::sec", "read", "Mailbox::elsewhere", "s")?).await?;
    assert_eq!(read.decision(), Decision::Allow);
    let record = audit::decision(&mut clients, &read.decision_id).await?;
    assert_eq!(record.deviation, None);
    let facts = record.replay.context("not replayable")?.facts;
    assert!(facts.iter().all(|fact| !fact.fact.starts_with("behavior.")), "{facts:?}");
    Ok(())
}

#[tokio::test]
async fn recorded_decisions_are_judged_again_as_they_were() -> Result<()> {
    let (cardea, mut clients, dir) = started(9).await?;
    for to in ["ann", "mallory", "ann, bob"] {
        let verdict = clients.decide(send(to)?).await?;
        audit::decision(&mut clients, &verdict.decision_id).await?;
    }
    let bundle = dir.path().display().to_string();
    let mut words: Vec<String> =
        ["bundle", "diff", &bundle, &bundle, "--format", "json", "--records"].map(str::to_owned).into();
    words.extend(audit::segments(&cardea.audit_dir())?.iter().map(|path| path.display().to_string()));
    let same = run_cardea(&words, b"")?;
    ensure!(same.code == Some(0), "{}{}", same.stdout, same.stderr);
    let found: serde_json::Value = serde_json::from_str(&same.stdout)?;
    let records = &found["records"];
    assert_eq!((&records["decisions"], &records["not_reproducible"]), (&3.into(), &0.into()), "{found}");
    Ok(())
}

#[test]
fn the_check_names_what_cannot_be_read_and_what_nobody_looks_up() -> Result<()> {
    let dir = bundle(9)?;
    let path = dir.path().display().to_string();
    let clean = run_cardea(&["bundle", "check", &path, "--deny", "warnings"], b"")?;
    assert_eq!(clean.code, Some(0), "{}{}", clean.stdout, clean.stderr);
    let baselines = dir.path().join("baselines.json");
    let text = fs::read_to_string(&baselines)?;
    fs::write(&baselines, text.replace("\"send\"", "\"mail\""))?;
    let warned = run_cardea(&["bundle", "check", &path, "--deny", "warnings"], b"")?;
    assert_eq!(warned.code, Some(1));
    assert!(warned.stderr.contains("baseline-unknown-name"), "{}", warned.stderr);
    fs::write(&baselines, text.replace("\"format\"", "\"form\""))?;
    let broken = run_cardea(&["bundle", "check", &path], b"")?;
    assert_eq!(broken.code, Some(1));
    assert!(broken.stderr.contains("baselines-invalid"), "{}", broken.stderr);
    Ok(())
}

#[test]
fn the_example_is_what_is_learned_from_its_approved_attempts_and_its_stories_hold() -> Result<()> {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/approved");
    let text = |path: &Path| path.display().to_string();
    let beside = tempfile::tempdir()?;
    let (out, learned) = (beside.path().join("baselines.json"), example.join("learned"));
    let (attempts, config) = (text(&learned.join("approved.jsonl")), text(&learned.join("monitor.toml")));
    let words =
        ["monitor", "learn", "--attempts", &attempts, "--config", &config, "--approved-by", "ann", "--out"];
    let words: Vec<String> = words.into_iter().map(str::to_owned).chain([text(&out)]).collect();
    let done = run_cardea(&words, b"")?;
    ensure!(done.code == Some(0), "{}", done.stderr);
    assert_eq!(fs::read(out)?, fs::read(example.join("baselines.json"))?);
    let stories = run_cardea(&["bundle", "test", &text(&example)], b"")?;
    assert_eq!(stories.code, Some(0), "{}{}", stories.stdout, stories.stderr);
    Ok(())
}
