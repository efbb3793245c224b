//! `cardea eval` against Cedar's own authorizer: the same requests, the same answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use cardea_tests::process::{Finished, run_cardea};
use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet, Request};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// Runs of the program; each judges [`REQUESTS`] generated requests.
const CASES: u32 = 48;
const REQUESTS: usize = 24;

const ENTITIES: &str = r#"[
  { "uid": { "type": "Group", "id": "g0" }, "attrs": {}, "parents": [] },
  { "uid": { "type": "Group", "id": "g1" }, "attrs": {}, "parents": [{ "type": "Group", "id": "g0" }] },
  { "uid": { "type": "User", "id": "u0" }, "attrs": { "age": 7, "name": "ann" }, "parents": [{ "type": "Group", "id": "g0" }] },
  { "uid": { "type": "User", "id": "u1" }, "attrs": { "age": 9223372036854775807 }, "parents": [{ "type": "Group", "id": "g1" }] },
  { "uid": { "type": "Folder", "id": "f0" }, "attrs": {}, "parents": [] },
  { "uid": { "type": "Doc", "id": "d0" }, "attrs": { "owner": { "__entity": { "type": "User", "id": "u0" } } }, "parents": [{ "type": "Folder", "id": "f0" }] },
  { "uid": { "type": "Doc", "id": "d1" }, "attrs": { "tags": ["a", "b"], "ip": { "__extn": { "fn": "ip", "arg": "10.0.0.0/8" } } }, "parents": [] }
]"#;

struct Cedar {
    policies: PolicySet,
    entities: Entities,
}

fn pick(texts: &'static [&'static str]) -> impl Strategy<Value = &'static str> {
    proptest::sample::select(texts)
}

fn policy(number: usize) -> impl Strategy<Value = String> {
    let principal = pick(&[
        "principal",
        "principal == User::\"u0\"",
        "principal == User::\"u1\"",
        "principal in Group::\"g0\"",
        "principal in Group::\"g1\"",
        "principal is User",
        "principal is User in Group::\"g1\"",
    ]);
    let action = pick(&[
        "action",
        "action == Action::\"view\"",
        "action == Action::\"edit\"",
        "action in [Action::\"view\", Action::\"edit\"]",
    ]);
    let resource = pick(&[
        "resource",
        "resource == Doc::\"d0\"",
        "resource in Folder::\"f0\"",
        "resource is Doc",
        "resource is Doc in Folder::\"f0\"",
    ]);
    let condition = pick(&[
        "",
        "when { context.level > 5 }",
        "when { context has level && context.level > 5 }",
        "unless { context.level > 5 }",
        "when { resource.owner == principal }",
        "when { resource has owner && resource.owner == principal }",
        "when { principal.age + 1 > 3 }",
        "when { principal has name && principal.name like \"a*\" }",
        "when { resource has ip && resource.ip.isInRange(ip(\"10.0.0.0/7\")) }",
        "when { resource has tags && resource.tags.contains(\"a\") }",
        "when { principal in Group::\"g0\" } unless { context has blocked && context.blocked }",
        "when { if context has level then context.level < 3 else resource in Folder::\"f0\" }",
        "when { context.source.name == \"x\" }",
        "when { false }",
    ]);
    let parts = (any::<bool>(), any::<bool>(), principal, action, resource, condition);
    parts.prop_map(move |(permits, named, principal, action, resource, condition)| {
        let effect = if permits { "permit" } else { "forbid" };
        let id = if named { format!("@id(\"own-{number}\")\n") } else { String::new() };
        format!("{id}{effect} ({principal}, {action}, {resource}) {condition};\n")
    })
}

fn policies() -> impl Strategy<Value = String> {
    let each: Vec<_> = (0..8).map(policy).collect();
    (each, 1_usize..=8).prop_map(|(policies, count)| policies.into_iter().take(count).collect())
}

/// A request as its parts: type and id of each, a context, and whether the line writes entities as text.
type Asked = ([(&'static str, &'static str); 3], Value, bool);

fn asked() -> impl Strategy<Value = Asked> {
    let principal =
        proptest::sample::select(vec![("User", "u0"), ("User", "u1"), ("User", "new"), ("Group", "g1")]);
    let action = proptest::sample::select(vec![("Action", "view"), ("Action", "edit"), ("Action", "other")]);
    let resource = proptest::sample::select(vec![
        ("Doc", "d0"),
        ("Doc", "d1"),
        ("Doc", "a \"quoted\" \\ id"),
        ("Folder", "f0"),
    ]);
    let context = proptest::sample::select(vec![
        json!({}),
        json!({ "level": 9 }),
        json!({ "level": 1, "blocked": true }),
        json!({ "level": "high" }),
        json!({ "source": { "name": "x" }, "level": 6 }),
        json!({ "source": { "__entity": { "type": "User", "id": "u0" } } }),
    ]);
    (principal, action, resource, context, any::<bool>()).prop_map(
        |(principal, action, resource, context, text)| ([principal, action, resource], context, text),
    )
}

fn line((parts, context, text): &Asked) -> String {
    let written =
        parts.map(
            |(kind, id)| {
                if *text { json!(format!("{kind}::{id:?}")) } else { json!({ "type": kind, "id": id }) }
            },
        );
    let [principal, action, resource] = written;
    json!({ "principal": principal, "action": action, "resource": resource, "context": context }).to_string()
}

/// Names as `cardea eval` gives them: `@id`, else the number that Cedar gives.
fn named(policies: &PolicySet, ids: impl Iterator<Item = cedar_policy::PolicyId>) -> BTreeSet<String> {
    let name = |id: cedar_policy::PolicyId| match policies.annotation(&id, "id") {
        Some(own) => own.to_owned(),
        None => id.to_string(),
    };
    ids.map(name).collect()
}

fn texts(answer: &Value, field: &str) -> BTreeSet<String> {
    let list = answer.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn eval(dir: &Path, policies: &str, requests: &[u8], more: &[&str]) -> Result<Finished> {
    let (policy_file, entity_file) = (dir.join("policies.cedar"), dir.join("entities.json"));
    let request_file = dir.join("requests.jsonl");
    fs::write(&policy_file, policies)?;
    fs::write(&entity_file, ENTITIES)?;
    fs::write(&request_file, requests)?;
    let mut arguments = vec!["eval".into(), "--policies".into(), policy_file.into_os_string()];
    arguments.extend(["--entities".into(), entity_file.into_os_string()]);
    arguments.extend(["--requests".into(), request_file.into_os_string()]);
    arguments.extend(more.iter().map(Into::into));
    run_cardea(&arguments, b"")
}

fn answers(finished: &Finished) -> Result<Vec<Value>> {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines = finished.stdout.lines();
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("not JSON: `{line}`"))).collect()
}

/// What Cedar says: (allows, determining, errors).
fn by_cedar(
    cedar: &Cedar,
    (parts, context, _): &Asked,
) -> Result<(bool, BTreeSet<String>, BTreeSet<String>)> {
    let mut uids = parts.iter().map(|(kind, id)| {
        EntityUid::from_json(json!({ "type": kind, "id": id })).map_err(anyhow::Error::from)
    });
    let mut next = || uids.next().context("three parts")?;
    let (principal, action, resource) = (next()?, next()?, next()?);
    let context = Context::from_json_value(context.clone(), None)?;
    let request = Request::new(principal, action, resource, context, None)?;
    let response = Authorizer::new().is_authorized(&request, &cedar.policies, &cedar.entities);
    let allows = response.decision() == cedar_policy::Decision::Allow;
    let determining = named(&cedar.policies, response.diagnostics().reason().cloned());
    let errors = response.diagnostics().errors().map(|error| match error {
        cedar_policy::AuthorizationError::PolicyEvaluationError(error) => error.policy_id().clone(),
    });
    Ok((allows, determining, named(&cedar.policies, errors)))
}

#[test]
fn with_skip_eval_answers_as_cedar_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let cases = (policies(), proptest::collection::vec(asked(), REQUESTS));
    let outcome = runner.run(&cases, |(policies, requests)| {
        let cedar = Cedar {
            policies: policies.parse().unwrap(),
            entities: Entities::from_json_str(ENTITIES, None).unwrap(),
        };
        let lines: Vec<String> = requests.iter().map(line).collect();
        let finished =
            eval(dir.path(), &policies, lines.join("\n").as_bytes(), &["--on-policy-error", "skip"]).unwrap();
        let answers = answers(&finished).unwrap();
        prop_assert_eq!(answers.len(), requests.len());
        for (asked, answer) in requests.iter().zip(&answers) {
            let (allows, determining, errors) = by_cedar(&cedar, asked).unwrap();
            let decision = if allows { "allow" } else { "deny" };
            prop_assert_eq!(answer.get("decision"), Some(&json!(decision)), "{:?}: {}", asked, answer);
            prop_assert_eq!(texts(answer, "determining"), determining, "{:?}: {}", asked, answer);
            prop_assert_eq!(texts(answer, "errors"), errors, "{:?}: {}", asked, answer);
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn without_skip_an_erroring_forbid_denies_and_an_erroring_permit_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut runner = TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() });
    let cases = (policies(), proptest::collection::vec(asked(), REQUESTS));
    let outcome = runner.run(&cases, |(policies, requests)| {
        let cedar = Cedar {
            policies: policies.parse().unwrap(),
            entities: Entities::from_json_str(ENTITIES, None).unwrap(),
        };
        let forbids =
            cedar.policies.policies().filter(|policy| policy.effect() == cedar_policy::Effect::Forbid);
        let forbids = named(&cedar.policies, forbids.map(|policy| policy.id().clone()));
        let lines: Vec<String> = requests.iter().map(line).collect();
        let finished = eval(dir.path(), &policies, lines.join("\n").as_bytes(), &[]).unwrap();
        let answers = answers(&finished).unwrap();
        prop_assert_eq!(answers.len(), requests.len());
        for (asked, answer) in requests.iter().zip(&answers) {
            let (allows, _, errors) = by_cedar(&cedar, asked).unwrap();
            let decision = if allows && errors.is_disjoint(&forbids) { "allow" } else { "deny" };
            prop_assert_eq!(answer.get("decision"), Some(&json!(decision)), "{:?}: {}", asked, answer);
            prop_assert_eq!(texts(answer, "errors"), errors, "{:?}: {}", asked, answer);
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_line_that_cannot_be_read_is_denied_with_its_error_and_the_run_goes_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let good =
        r#"{"principal":"User::\"u0\"","action":"Action::\"view\"","resource":"Doc::\"d0\"","context":{}}"#;
    let unreadable: [&[u8]; 12] = [
        b"not json",
        b"{",
        b"[]",
        b"\"text\"",
        b"\xff\xfe\xfd",
        br#"{"action":"Action::\"view\"","resource":"Doc::\"d0\"","context":{}}"#,
        br#"{"principal":"User::","action":"Action::\"view\"","resource":"Doc::\"d0\"","context":{}}"#,
        br#"{"principal":7,"action":"Action::\"view\"","resource":"Doc::\"d0\"","context":{}}"#,
        br#"{"principal":{"type":"a b","id":"x"},"action":"Action::\"view\"","resource":"Doc::\"d0\"","context":{}}"#,
        br#"{"principal":"User::\"u0\"","action":"Action::\"view\"","resource":"Doc::\"d0\"","context":[1]}"#,
        br#"{"principal":"User::\"u0\"","action":"Action::\"view\"","resource":"Doc::\"d0\"","context":{"a":null}}"#,
        br#"{"principal":"User::\"u0\"","action":"Action::\"view\"","resource":"Doc::\"d0\"","context":{"a":1.5}}"#,
    ];
    let mut input = Vec::new();
    for line in unreadable {
        input.extend_from_slice(&[line, b"\n", good.as_bytes(), b"\n"].concat());
    }
    let answers = answers(&eval(dir.path(), "permit (principal, action, resource);", &input, &[])?)?;
    assert_eq!(answers.len(), unreadable.len() * 2);
    for (pair, line) in answers.chunks(2).zip(unreadable) {
        let [bad, good] = pair else { panic!("pairs") };
        let shown = line.escape_ascii();
        assert_eq!(bad.get("decision"), Some(&json!("deny")), "{shown}: {bad}");
        let told = ["errors", "error", "reasons"].iter().any(|field| match bad.get(*field) {
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            _ => false,
        });
        assert!(told, "{shown}: the line does not say what is wrong: {bad}");
        assert_eq!(good.get("decision"), Some(&json!("allow")), "after {shown}");
    }
    Ok(())
}

#[test]
fn policies_from_a_directory_are_numbered_over_its_files_and_requests_come_from_stdin() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("a.cedar"), "permit (principal, action == Action::\"a\", resource);")?;
    fs::write(
        dir.path().join("b.cedar"),
        "@id(\"named\")\nforbid (principal, action == Action::\"b\", resource);\npermit (principal, action == Action::\"c\", resource);",
    )?;
    fs::write(dir.path().join("notes.txt"), "not a policy")?;
    let ask = |action: &str| json!({ "principal": "U::\"x\"", "action": format!("Action::{action:?}"), "resource": "R::\"x\"", "context": {} });
    let input = format!("{}\n{}\n{}", ask("a"), ask("b"), ask("c"));
    let arguments =
        ["eval".as_ref(), "--policies".as_ref(), dir.path().as_os_str(), "--requests".as_ref(), "-".as_ref()];
    let answers = answers(&run_cardea(&arguments, input.as_bytes())?)?;
    let determining: Vec<_> = answers.iter().map(|answer| texts(answer, "determining")).collect();
    assert_eq!(
        determining,
        [["policy0".to_owned()].into(), ["named".to_owned()].into(), ["policy2".to_owned()].into()]
    );
    Ok(())
}

#[test]
fn step_up_is_the_third_answer() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let policies = "permit (principal, action, resource);\n\
        @id(\"soft\") @step_up(\"login\") @reason(\"log in\") forbid (principal, action == Action::\"view\", resource);\n\
        @id(\"hard\") forbid (principal, action, resource) when { context has blocked && context.blocked };";
    let ask = |action: &str, context: Value| json!({ "principal": "User::\"u0\"", "action": format!("Action::{action:?}"), "resource": "Doc::\"d0\"", "context": context });
    let input = [ask("view", json!({})), ask("view", json!({ "blocked": true })), ask("edit", json!({}))]
        .map(|line| line.to_string())
        .join("\n");
    let answers = answers(&eval(dir.path(), policies, input.as_bytes(), &[])?)?;
    let decisions: Vec<_> = answers.iter().filter_map(|answer| answer.get("decision")?.as_str()).collect();
    assert_eq!(decisions, ["step_up", "deny", "allow"]);
    assert_eq!(answers.first().map(|answer| texts(answer, "determining")), Some(["soft".to_owned()].into()));
    Ok(())
}

#[test]
fn with_a_schema_a_request_that_breaks_it_is_denied_with_its_error() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let schema = dir.path().join("schema.cedarschema");
    fs::write(
        &schema,
        "entity Group in [Group]; entity User in [Group] { age?: Long, name?: String }; entity Folder;\n\
         entity Doc in [Folder] { owner?: User, tags?: Set<String>, ip?: ipaddr };\n\
         action view, edit appliesTo { principal: User, resource: Doc, context: { level: Long } };",
    )?;
    let ask = |kind: &str, context: Value| json!({ "principal": { "type": kind, "id": "u0" }, "action": "Action::\"view\"", "resource": "Doc::\"d0\"", "context": context });
    let input = [
        ask("User", json!({ "level": 3 })),
        ask("User", json!({ "level": "three" })),
        ask("User", json!({})),
        ask("Group", json!({ "level": 3 })),
        ask("Nobody", json!({ "level": 3 })),
    ]
    .map(|line| line.to_string())
    .join("\n");
    let schema = schema.display().to_string();
    let policies = "permit (principal, action, resource) when { context.level < 5 };";
    let answers = answers(&eval(dir.path(), policies, input.as_bytes(), &["--schema", &schema])?)?;
    let decisions: Vec<_> = answers.iter().filter_map(|answer| answer.get("decision")?.as_str()).collect();
    assert_eq!(decisions, ["allow", "deny", "deny", "deny", "deny"]);
    Ok(())
}

#[test]
fn unreadable_policies_end_the_run_with_their_place() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let finished = eval(dir.path(), "permit (principal, action, resource);\nforbid (principal,", b"", &[])?;
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    assert!(finished.stderr.contains("policies.cedar") && finished.stderr.contains(":2"), "{finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    Ok(())
}
