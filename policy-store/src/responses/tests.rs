use std::path::PathBuf;

use crate::load;

const SCHEMA: &str =
    "entity A; action a appliesTo { principal: A, resource: A, context: { session: Cardea::Session } };";
const DECLARED: &str = "name = \"t\"
[labels.saw_untrusted]
description = \"read what anybody may have written\"
for_s = 600
[labels.trained]
description = \"for the life of the session\"
[responses.stop]
description = \"end it\"
revoke_session = true
raise_risk = { score = 90 }
[responses.watch]
description = \"ask each time\"
narrow = true
";

fn loaded(settings: &str, policies: &str) -> Result<load::Loaded, Vec<String>> {
    let files = [("bundle.toml", settings), ("schema.cedarschema", SCHEMA), ("policies/p.cedar", policies)]
        .into_iter()
        .map(|(name, text)| (PathBuf::from(name), text.as_bytes().to_vec()))
        .collect();
    load::files(&files).map_err(|faults| faults.list().iter().map(ToString::to_string).collect())
}

fn fault(settings: &str, policies: &str) -> String {
    loaded(settings, policies).unwrap_err().join("\n")
}

#[test]
fn annotations_name_what_is_declared_as_lists() {
    let bundle = loaded(
        DECLARED,
        "@label(\" saw_untrusted, trained,saw_untrusted\") @respond(\"watch\") permit(principal, action, resource);
         @respond(\"stop,watch\") @dry_run(\"\") forbid(principal, action, resource);
         permit(principal, action, resource);",
    );
    let snapshot = bundle.unwrap().snapshot;
    let effects: Vec<_> = snapshot.policies().iter().map(|policy| policy.effects.as_deref()).collect();
    let [Some(first), Some(second), None] = effects.as_slice() else { panic!("{effects:?}") };
    assert_eq!((&first.labels[..], &first.responses[..], first.dry_run), (&[0, 1][..], &[1][..], false));
    assert_eq!((&second.labels[..], &second.responses[..], second.dry_run), (&[][..], &[0, 1][..], true));
    assert_eq!(snapshot.declared().label(0).unwrap().0, "saw_untrusted");
    assert_eq!(snapshot.declared().response(1).unwrap().0, "watch");
    assert_eq!(snapshot.dry_runs().map(|(place, _)| place).collect::<Vec<_>>(), [1]);
    assert!(snapshot.declared().acts);
}

#[test]
fn a_bundle_whose_only_effects_are_in_dry_run_acts_not() {
    let policies = "@respond(\"stop\") @dry_run(\"looking\") forbid(principal, action, resource);";
    assert!(!loaded(DECLARED, policies).unwrap().snapshot.declared().acts);
    assert!(!loaded(DECLARED, "permit(principal, action, resource);").unwrap().snapshot.declared().acts);
}

#[test]
fn what_is_not_declared_keeps_the_bundle_from_serving_and_says_what_was_meant() {
    let found = fault(DECLARED, "@label(\"saw_untrused\") permit(principal, action, resource);");
    assert!(found.contains("policies/p.cedar:1:"), "{found}");
    assert!(
        found.contains("label `saw_untrused`") && found.contains("did you mean `saw_untrusted`?"),
        "{found}"
    );
    let found = fault(DECLARED, "@respond(\"stop, page_me\") forbid(principal, action, resource);");
    assert!(found.contains("`page_me`") && found.contains("[responses.page_me]"), "{found}");
    let found = fault(DECLARED, "@label(\"trained\") forbid(principal, action, resource);");
    assert!(found.contains("carries `@label`"), "{found}");
}

#[test]
fn declarations_that_cannot_be_meant_are_faults() {
    let with = |text: &str| fault(&format!("name = \"t\"\n{text}"), "");
    let response = |text: &str| with(&format!("[responses.r]\ndescription = \"d\"\n{text}"));
    for (found, expected) in [
        (response(""), "does nothing"),
        (response("revoke_session = false"), "does nothing"),
        (response("revoke_session = true\nemit = \"session-revoked\""), "unknown variant `session-revoked`"),
        (response("revoke_session = true\nemit = \"risk-level-change\""), "does not raise"),
        (response("raise_risk = { score = 0 }"), "1 to 100"),
        (response("raise_risk = { score = 101 }"), "1 to 100"),
        (response("raise_risk = { score = 9, half_life_s = 59 }"), "60 to"),
        (
            response("raise_risk = { score = 9, kind = \"prompt_injektion\" }"),
            "did you mean `prompt_injection`?",
        ),
        (response("raise_risk = { score = 9, kind = \"x\" }"), "it is one of anomalous_behavior,"),
        (response("revoke = true"), "unknown field"),
        (with("[labels.l]\ndescription = \"d\"\nfor_s = 0"), "leave it out"),
        (with("[labels.l]\n"), "missing field `description`"),
        (with("[labels.\"a b\"]\ndescription = \"d\""), "without commas and spaces"),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    let many: String = (0..33).map(|at| format!("[labels.l{at}]\ndescription = \"d\"\n")).collect();
    assert!(with(&many).contains("at most 32 labels"));
}

#[test]
fn too_many_policies_in_dry_run_are_refused() {
    let policies = |count: usize| "@dry_run(\"x\") permit(principal, action, resource);\n".repeat(count);
    assert!(loaded(DECLARED, &policies(256)).is_ok());
    assert!(fault(DECLARED, &policies(257)).contains("257 policies are in dry run"));
}
