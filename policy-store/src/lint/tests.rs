use std::path::{Path, PathBuf};

use super::*;

/// A bundle in which nothing is found.
const CLEAN: [(&str, &str); 5] = [
    (
        "bundle.toml",
        "name = \"t\"\n[step_up.login]\nkind = \"authentication\"\nmax_age_s = 300\n\
         [obligations.mask]\ndescription = \"mask personal data\"\n",
    ),
    (
        "schema.cedarschema",
        "entity Team;\nentity Agent in [Team] { home: Team, boss: Agent, nick?: String };\nentity Doc in [Team] { owner: Agent, tag: Long };\n\
         type Facts = { session: Cardea::Session, risk: Cardea::Risk, behavior: Cardea::Behavior, request: { pages?: Long, to?: Agent } };\n\
         action work;\naction read, write in [work] appliesTo { principal: Agent, resource: Doc, context: Facts };\n",
    ),
    (
        "policies/a.cedar",
        "@id(\"readers\")\n@obligation(\"mask\")\npermit (principal is Agent, action in Action::\"work\", resource is Doc)\nwhen { context.session.known };\n",
    ),
    (
        "policies/b.cedar",
        "@id(\"login\")\n@reason(\"log in again\")\n@step_up(\"login\")\nforbid (principal, action, resource)\nwhen { context.session.auth_age_s > 300 };\n",
    ),
    (
        "entities.json",
        "[{\"uid\": {\"type\": \"Team\", \"id\": \"t\"}, \"attrs\": {}, \"parents\": []},
          {\"uid\": {\"type\": \"Agent\", \"id\": \"a\"}, \"parents\": [{\"type\": \"Team\", \"id\": \"t\"}],
           \"attrs\": {\"home\": {\"__entity\": {\"type\": \"Team\", \"id\": \"t\"}}, \"boss\": {\"__entity\": {\"type\": \"Agent\", \"id\": \"away\"}}}},
          {\"uid\": {\"type\": \"Doc\", \"id\": \"d\"}, \"parents\": [],
           \"attrs\": {\"owner\": {\"__entity\": {\"type\": \"Agent\", \"id\": \"a\"}}, \"tag\": 1}}]",
    ),
];

fn files(more: &[(&str, &str)]) -> Files {
    let all = CLEAN.iter().chain(more);
    all.map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec())).collect()
}

/// `file:line id` of everything that is found in the clean bundle with these files beside or instead.
fn found(more: &[(&str, &str)]) -> Vec<String> {
    let report = check(&files(more));
    let all = report.findings.iter();
    all.map(|fault| format!("{}:{} {}", fault.file.display(), fault.line().unwrap_or(0), fault.id)).collect()
}

/// The same for one more policy file, in which every policy but the head is given; files in which nothing is found are left out.
fn in_policy(text: &str) -> Vec<String> {
    found(&[("policies/z.cedar", text)])
}

#[test]
fn a_counter_that_no_policy_reads_is_told() {
    let settings =
        format!("{}[counters.mails]\nactions = [\"read\"]\nper = \"session\"\nwindow_s = 60\n", CLEAN[0].1);
    let schema = CLEAN[1].1.replace("request: {", "counters: { mails: Cardea::Counter }, request: {");
    let with = |condition: &str| {
        let policy = format!("{NAMED} forbid {SCOPE} when {{ {condition} }};");
        found(&[("bundle.toml", &settings), ("schema.cedarschema", &schema), ("policies/z.cedar", &policy)])
    };
    assert_eq!(with("context.risk.score > 5"), ["bundle.toml:7 unused-counter"]);
    assert_eq!(with("context.counters.mails.count > 5"), [""; 0]);
}

const NAMED: &str = "@id(\"n\") @reason(\"r\")";
const SCOPE: &str = "(principal is Agent, action == Action::\"read\", resource is Doc)";

/// What is found in a permit and in a forbid with this condition.
fn with_condition(condition: &str) -> Vec<String> {
    let forbid = in_policy(&format!("{NAMED} forbid {SCOPE} when {{ {condition} }};"));
    let permit = in_policy(&format!("@id(\"n\") permit {SCOPE} when {{ {condition} }};"));
    assert_eq!(forbid, permit, "{condition}");
    forbid
}

#[test]
fn the_clean_bundle_is_clean_and_summed_up() {
    let report = check(&files(&[]));
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let summary = report.summary.unwrap();
    assert_eq!((summary.name.as_str(), summary.policies, summary.entities), ("t", 2, 6));
    assert_eq!(summary.digest.len(), 64);
}

#[test]
fn the_examples_are_clean() {
    for name in ["../examples/agents", "../examples/approved", "../tests/bundles/web"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let report = check(&load::read_directory(&dir).unwrap());
        let shown: Vec<String> =
            report.findings.iter().map(|fault| format!("{} {fault}", fault.id)).collect();
        assert!(shown.is_empty(), "{name}: {shown:#?}");
    }
}

#[test]
fn what_the_loader_refuses_is_found_with_its_rule() {
    for (name, text, expected) in [
        ("bundle.toml", "name = \"t\"\nrevisoin = 7", "bundle.toml:2 settings-invalid"),
        ("schema.cedarschema", "entity;", "schema.cedarschema:1 schema-invalid"),
        ("entities.json", "[{}]", "entities.json:0 entities-invalid"),
        ("routes.toml", "[[rout]]", "routes.toml:1 routes-invalid"),
        ("baselines.json", "\n{]", "baselines.json:2 baselines-invalid"),
        ("policies/z.cedar", "permit(principal);", "policies/z.cedar:1 policy-syntax"),
        (
            "policies/z.cedar",
            "permit(principal == ?principal, action, resource);",
            "policies/z.cedar:0 template-unlinked",
        ),
        (
            "policies/z.cedar",
            "\n@id(\"readers\") forbid(principal, action, resource) when { context.risk.score > 1 };",
            "policies/z.cedar:2 duplicate-id",
        ),
        (
            "policies/z.cedar",
            "\n@step_up(\"x\") forbid(principal, action, resource);",
            "policies/z.cedar:2 step-up-undeclared",
        ),
        (
            "policies/z.cedar",
            "\n@step_up(\"login\") permit(principal, action, resource);",
            "policies/z.cedar:2 step-up-on-permit",
        ),
        (
            "policies/z.cedar",
            "permit(principal is No, action, resource);",
            "policies/z.cedar:1 unknown-entity-type",
        ),
        (
            "policies/z.cedar",
            "permit(principal, action == Action::\"no\", resource);",
            "policies/z.cedar:1 unknown-action",
        ),
    ] {
        let found = found(&[(name, text)]);
        assert!(found.contains(&expected.to_owned()), "{expected} is not in {found:?}");
    }
    for (condition, expected) in [
        ("context.risk.no", "unknown-attribute"),
        ("context.request.pages > 1", "optional-attribute"),
        ("context.risk.score == \"1\"", "type-mismatch"),
        ("ip(\"no\").isIpv4()", "policy-invalid"),
        ("context == context", "whole-context"),
    ] {
        let found = with_condition(condition);
        assert!(found.contains(&format!("policies/z.cedar:1 {expected}")), "{expected} is not in {found:?}");
    }
}

#[test]
fn a_file_that_is_missing_or_no_text_is_found() {
    let mut files = files(&[]);
    files.remove(Path::new("schema.cedarschema"));
    files.insert("bundle.toml".into(), vec![0xff]);
    let ids: Vec<_> = check(&files).findings.iter().map(|fault| fault.id).collect();
    assert_eq!(ids, ["file-not-text", "file-missing"]);
}

#[test]
fn each_annotation_that_is_missing_or_wrong_is_found() {
    let when = "when { context.session.auth_age_s > 5 }";
    for (policy, expected) in [
        (format!("@id(\"n\")\nforbid {SCOPE} {when};"), vec!["2 forbid-without-reason"]),
        (format!("@reason(\"r\")\nforbid {SCOPE} {when};"), vec!["2 missing-id"]),
        (
            format!("@id(\"n\")\n@obligation(\"msk\")\npermit {SCOPE} {when};"),
            vec!["2 obligation-undeclared"],
        ),
        (
            format!("@id(\"n\")\n@reasons(\"r\") @reason(\"r\")\nforbid {SCOPE} {when};"),
            vec!["2 annotation-misspelt"],
        ),
        (
            format!("@id(\"n\") @reason(\"r\")\n@setp_up(\"login\")\nforbid {SCOPE} {when};"),
            vec!["2 annotation-misspelt"],
        ),
        (format!("@id(\"n\") @owner(\"team\") @doc(\"d\")\npermit {SCOPE} {when};"), vec![]),
        (format!("@id(\"n\")\n@reason(\"r\")\npermit {SCOPE} {when};"), vec!["2 annotation-without-effect"]),
        (
            format!("{NAMED}\n@obligation(\"mask\")\nforbid {SCOPE} {when};"),
            vec!["2 annotation-without-effect"],
        ),
        (format!("{NAMED}\n@severity\nforbid {SCOPE} {when};"), vec!["2 annotation-without-effect"]),
        (
            format!("{NAMED}\n@step_up(\"login\")\nforbid {SCOPE} when {{ context.risk.score > 5 }};"),
            vec!["2 step-up-unmeetable"],
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(|rest| format!("policies/z.cedar:{rest}")).collect();
        assert_eq!(in_policy(&policy), expected, "{policy}");
    }
}

#[test]
fn what_bundle_toml_declares_for_nobody_is_found() {
    let toml = format!(
        "{}\n[step_up.other]\nkind = \"attestation\"\n[obligations.other]\ndescription = \"d\"\n",
        CLEAN[0].1
    );
    assert_eq!(
        found(&[("bundle.toml", &toml)]),
        ["bundle.toml:8 unused-step-up", "bundle.toml:10 unused-obligation"]
    );
}

#[test]
fn permits_and_forbids_of_everything_are_found() {
    let only =
        |scope: &str, condition: &str| in_policy(&format!("@id(\"n\")\npermit (\n{scope}\n) {condition};"));
    let when = "when { context.risk.score < 5 }";
    assert_eq!(
        only("principal,\naction == Action::\"read\",\nresource is Doc", when),
        ["policies/z.cedar:3 permit-every-principal"]
    );
    assert_eq!(
        only("principal is Agent,\naction,\nresource is Doc", when),
        ["policies/z.cedar:4 permit-every-action"]
    );
    assert_eq!(
        only("principal is Agent,\naction == Action::\"read\",\nresource", when),
        ["policies/z.cedar:5 permit-every-resource"]
    );
    let tested = "when { principal has boss && principal.boss == principal && resource has owner && resource.owner == principal }";
    assert!(only("principal, action == Action::\"read\", resource", tested).is_empty());
    // It also makes the other forbid superfluous.
    assert_eq!(
        in_policy(&format!("{NAMED} forbid (principal, action, resource);")),
        ["policies/b.cedar:4 shadowed-policy", "policies/z.cedar:1 forbid-everything"]
    );
}

#[test]
fn a_policy_that_can_never_apply_is_found_once() {
    let never = ["policies/z.cedar:1 never-applies"];
    for policy in [
        "permit (principal is Doc, action == Action::\"read\", resource is Doc)",
        "permit (principal in Team::\"empty\", action == Action::\"read\", resource is Doc)",
        "permit (principal is Agent in Team::\"empty\", action == Action::\"read\", resource is Doc)",
        "permit (principal is Agent, action == Action::\"read\", resource in Team::\"t\")",
        "permit (principal is Agent, action == Action::\"work\", resource is Doc)",
        "permit (principal is Agent, action == Action::\"read\", resource is Doc) when { false }",
        "permit (principal is Agent, action == Action::\"read\", resource is Doc) when { 1 > 2 }",
        "permit (principal is Agent, action == Action::\"read\", resource is Doc) unless { true }",
        "permit (principal is Agent, action == Action::\"read\", resource is Doc) when { principal is Doc }",
        "permit (principal is Agent, action == Action::\"read\", resource is Doc) when { context.risk.score > 50 && context.risk.score < 50 }",
        "permit (principal is Agent, action == Action::\"read\", resource is Doc) when { context.session.acr == \"a\" && context.session.acr == \"b\" }",
        "permit (principal is Agent, action == Action::\"read\", resource is Doc) when { context.session.known } unless { context.session.known }",
    ] {
        assert_eq!(in_policy(&format!("@id(\"n\") {policy};")), never, "{policy}");
    }
    let some = "permit (principal in Team::\"t\", action == Action::\"read\", resource is Doc) when { context.risk.score < 5 };";
    assert!(in_policy(&format!("@id(\"n\") {some}")).is_empty());
}

#[test]
fn parts_of_conditions_that_are_constant_are_found() {
    for condition in [
        "context.session.known && (context.risk.score > 5 || !(context.risk.score > 5))",
        "context.session.known || 1 < 2",
        "context.session.known && [1, 2].contains(3) == context.session.device_compliant",
        "context.session.known || (context.risk.score >= 5 && context.risk.score <= 4)",
    ] {
        let found = with_condition(condition);
        assert_eq!(found, ["policies/z.cedar:1 constant-condition"], "{condition}");
    }
    for condition in [
        "context.risk.score >= 5 && context.risk.score <= 5",
        "context.risk.score > 5 || context.risk.score < 2",
        "context.session.acr == \"a\" || context.session.acr == \"b\"",
        "context.session.known == context.session.device_compliant",
    ] {
        assert!(with_condition(condition).is_empty(), "{condition}");
    }
}

#[test]
fn values_that_a_fact_never_has_are_found() {
    for condition in [
        "context.risk.level == \"hihg\"",
        "\"hihg\" == context.risk.level",
        "[\"high\", \"mediun\"].contains(context.risk.level)",
        "context.risk.reasons.contains(\"prompt_inject\")",
        "context.risk.score > 100",
        "context.risk.score >= 0 && context.session.known",
        "context.session.aal >= 4",
        "context.session.auth_age_s < 0",
        "context.behavior.previous_action == \"raed\"",
    ] {
        assert_eq!(with_condition(condition), ["policies/z.cedar:1 unknown-fact-value"], "{condition}");
    }
    for condition in [
        "context.risk.level == \"high\" && context.risk.score >= 100 && context.session.aal < 3",
        "context.risk.reasons.contains(\"prompt_injection\") && context.session.auth_age_s > 0",
        "context.behavior.previous_action == \"\" || context.behavior.previous_action == \"read\"",
    ] {
        assert!(with_condition(condition).is_empty(), "{condition}");
    }
}

#[test]
fn reads_of_entities_that_may_not_be_listed_are_found_unless_guarded() {
    for condition in [
        "principal.home == resource",
        "resource.tag > 5 && resource.owner == principal",
        "principal has boss && principal.boss.home == Team::\"t\"",
        "principal has home || principal.home == Team::\"t\"",
        "!(principal has home) && principal.home == Team::\"t\"",
        "context.request has to && context.request.to.home == Team::\"t\"",
        "principal == Agent::\"away\" && principal.home == Team::\"t\"",
    ] {
        let condition = condition.replace("principal.home == resource", "principal.home == Team::\"x\"");
        assert_eq!(with_condition(&condition), ["policies/z.cedar:1 unguarded-entity"], "{condition}");
    }
    for condition in [
        "principal has home && principal.home == Team::\"t\"",
        "!(principal has home) || principal.home == Team::\"t\"",
        "if principal has home then principal.home == Team::\"t\" else context.session.known",
        "(principal has boss || principal has home) && principal.home == Team::\"t\"",
        "principal in Team::\"t\" && principal.home == Team::\"t\"",
        "principal == Agent::\"a\" && principal.home == Team::\"t\"",
        "resource has owner && resource.owner.home == Team::\"t\"",
        "context.request has to && context.request.to has home && context.request.to.home == Team::\"t\"",
        "Agent::\"a\".home == Team::\"t\" && context.session.known",
    ] {
        assert!(with_condition(condition).is_empty(), "{condition}: {:?}", with_condition(condition));
    }
    let scoped = |scope: &str| {
        in_policy(&format!(
            "@id(\"n\") permit ({scope}, action == Action::\"read\", resource is Doc) when {{ principal.home == Team::\"t\" }};"
        ))
    };
    assert!(scoped("principal in Team::\"t\"").is_empty());
    assert!(scoped("principal == Agent::\"a\"").is_empty());
    assert_eq!(scoped("principal == Agent::\"away\""), ["policies/z.cedar:1 unguarded-entity"]);
}

#[test]
fn policies_that_say_what_others_say_are_found() {
    let when = "when { context.risk.score < 5 }";
    let pair = |first: &str, second: &str| in_policy(&format!("@id(\"m\") {first}\n{NAMED} {second}"));
    let permit = format!("permit {SCOPE} {when};");
    let said = |found: Vec<String>| -> Vec<String> {
        found.into_iter().filter(|found| !found.contains("annotation-without-effect")).collect()
    };
    for (second, expected) in [
        (permit.clone(), "duplicate-policy"),
        (format!("permit {SCOPE} unless {{ !(5 > context.risk.score) }};"), "duplicate-policy"),
        (
            format!(
                "permit (principal == Agent::\"a\", action == Action::\"read\", resource is Doc) {when};"
            ),
            "shadowed-policy",
        ),
        (
            format!(
                "permit (principal is Agent in Team::\"t\", action == Action::\"read\", resource is Doc) {when};"
            ),
            "shadowed-policy",
        ),
    ] {
        assert_eq!(said(pair(&permit, &second)), [format!("policies/z.cedar:2 {expected}")], "{second}");
    }
    // The first permit of the clean bundle covers a group of actions, under a condition of its own.
    let narrower = format!("@id(\"n\") permit {SCOPE} when {{ context.session.known }};");
    assert_eq!(in_policy(&narrower), ["policies/z.cedar:1 shadowed-policy"]);
    let obliging =
        format!("@id(\"n\") @obligation(\"mask\") permit {SCOPE} when {{ context.session.known }};");
    assert_eq!(in_policy(&obliging), ["policies/z.cedar:1 shadowed-policy"]);
    for second in [
        format!("permit (principal is Agent, action == Action::\"write\", resource is Doc) {when};"),
        format!("permit {SCOPE} when {{ context.risk.score < 6 }};"),
        format!("forbid {SCOPE} {when};"),
        format!(
            "permit (principal in Team::\"t\", action in [Action::\"read\", Action::\"write\"], resource is Doc) {when};"
        ),
    ] {
        assert!(said(pair(&permit, &second)).is_empty(), "{second}");
    }
}

#[test]
fn a_step_up_does_not_shadow_a_deny_and_no_obligation_is_lost() {
    let age = "when { context.session.auth_age_s > 300 }";
    // The clean bundle asks for a login under the same condition, for everybody.
    assert!(in_policy(&format!("{NAMED} forbid {SCOPE} {age};")).is_empty());
    assert_eq!(
        in_policy(&format!("{NAMED} @step_up(\"login\") forbid {SCOPE} {age};")),
        ["policies/z.cedar:1 shadowed-policy"]
    );
    let two = "@id(\"m\") permit (principal is Agent, action, resource is Doc) when { context.risk.score < 5 };
        @id(\"n\") @obligation(\"mask\") permit (principal is Agent, action == Action::\"read\", resource is Doc) when { context.risk.score < 5 };";
    assert_eq!(in_policy(two), ["policies/z.cedar:1 permit-every-action"]);
}

#[test]
fn a_schema_that_declares_too_much_is_found() {
    let schema = format!(
        "{}entity Lonely;\naction idle;\naction erase appliesTo {{ principal: Agent, resource: Doc, context: Facts }};",
        CLEAN[1].1
    );
    assert_eq!(
        found(&[("schema.cedarschema", &schema)]),
        [
            "schema.cedarschema:7 unused-entity-type",
            "schema.cedarschema:8 empty-action-group",
            "schema.cedarschema:9 action-without-permit"
        ]
    );
}

#[test]
fn routes_and_actions_that_do_not_meet_are_found() {
    let routes = "[identity]\nsources = [\"mtls\"]\n[identity.mtls]\ntype = \"Agent\"\n\
        [[route]]\nmethod = \"GET\"\npath = \"/d/{d}\"\naction = \"read\"\nresource = { type = \"Doc\", id = \"{d}\" }\n\
        [[route]]\nmethod = \"PUT\"\npath = \"/d/{d}\"\naction = \"erase\"\nresource = { type = \"Doc\", id = \"{d}\" }\n";
    let schema = format!(
        "{}@allow(\"action-without-permit\")\naction erase appliesTo {{ principal: Agent, resource: Doc, context: Facts }};",
        CLEAN[1].1
    );
    assert_eq!(
        found(&[("schema.cedarschema", &schema), ("routes.toml", routes)]),
        ["routes.toml:10 route-without-permit", "schema.cedarschema:6 action-without-route"]
    );
}

#[test]
fn allow_silences_what_it_names_and_is_found_when_it_silences_nothing() {
    let policy = |allow: &str| {
        in_policy(&format!(
            "@id(\"n\") @allow(\"{allow}\")\nforbid {SCOPE} when {{ context.risk.level == \"hihg\" }};"
        ))
    };
    assert!(policy("forbid-without-reason, unknown-fact-value").is_empty());
    assert_eq!(
        policy("forbid-without-reason, missing-id"),
        ["policies/z.cedar:1 unused-allow", "policies/z.cedar:2 unknown-fact-value"]
    );
    let unused = |allow: &str| {
        let report = check(&files(&[(
            "policies/z.cedar",
            &format!("{NAMED} @allow(\"{allow}\") forbid {SCOPE} when {{ context.risk.score > 5 }};"),
        )]));
        let [only] = &*report.findings else { panic!("{:?}", report.findings) };
        only.to_string()
    };
    assert!(unused("duplicate-policies").ends_with(
        "`@allow` names `duplicate-policies`, which is no rule (did you mean `duplicate-policy`?)"
    ));
    assert!(unused("schema-invalid").contains("cannot silence `schema-invalid`"));
    let schema = CLEAN[1].1.replace("entity Team;", "@allow(\"unused-entity-type\")\nentity Team;");
    assert_eq!(found(&[("schema.cedarschema", &schema)]), ["schema.cedarschema:2 unused-allow"]);
}

#[test]
fn a_finding_spans_what_it_is_about() {
    let report = check(&files(&[(
        "policies/z.cedar",
        "@id(\"ü\")\n@obligation(\"no\") permit (principal is Agent, action == Action::\"read\", resource is Doc);\n",
    )]));
    let fault = report.findings.iter().find(|fault| fault.id == "obligation-undeclared").unwrap();
    let (start, end) = (fault.start().unwrap(), fault.end().unwrap());
    assert_eq!((start.line, start.column, end.line, end.column), (2, 1, 2, 18));
}

#[test]
fn a_policy_that_takes_the_lease_from_allows_is_noted_where_leases_are_given() {
    let policy =
        format!("{NAMED} forbid {SCOPE} when {{ context.session.age_s > context.session.auth_age_s }};");
    assert!(in_policy(&policy).is_empty());
    let settings = format!("{}[lease]\nmax_ms = 500\n", CLEAN[0].1);
    let leased = |policy: &str| found(&[("bundle.toml", &settings), ("policies/z.cedar", policy)]);
    assert_eq!(leased(&policy), ["policies/z.cedar:1 no-lease"]);
    assert!(leased(&format!("@allow(\"no-lease\") {policy}")).is_empty());
    let foreseen = format!("{NAMED} forbid {SCOPE} when {{ context.session.age_s > 600 }};");
    assert!(leased(&foreseen).is_empty());
}

#[test]
fn approvals_under_names_that_the_schema_does_not_have_are_found() {
    let baselines = |identity: &str, action: &str| {
        format!(
            r#"{{"format":"cardea-baselines/1","version":1,"approved_by":"a","attempts":1,"baselines":
            {{"{identity}::\"a\"":{{"":{{"runs":1,"actions":{{"{action}":{{"seen":[1,1,0]}}}}}}}}}}}}"#
        )
    };
    let settings = |behavior: &str| format!("{}\n[behavior]\n{behavior}", CLEAN[0].1);
    assert_eq!(found(&[("baselines.json", &baselines("Agent", "read"))]), [""; 0]);
    assert_eq!(
        found(&[("baselines.json", &baselines("Agent", "raed"))]),
        ["baselines.json:0 baseline-unknown-name"]
    );
    assert_eq!(
        found(&[("baselines.json", &baselines("Agnt", "read"))]),
        ["baselines.json:0 baseline-unknown-name"]
    );
    let known = "references = [\"pages\"]\nnetwork = \"to\"\ntargets = {read = [\"to\"]}";
    assert_eq!(found(&[("bundle.toml", &settings(known))]), [""; 0]);
    for unknown in
        ["references = [\"x\"]", "network = \"x\"", "targets = {read = [\"x\"]}", "targets = {x = [\"to\"]}"]
    {
        assert_eq!(found(&[("bundle.toml", &settings(unknown))]), ["bundle.toml:0 baseline-unknown-name"]);
    }
}
