//! What a verdict has done beside its answer: by policies that settle it alone.

use super::*;
use crate::boundary::next_change;

const DECLARED: &str = "
[labels.seen]
description = \"d\"
for_s = 60
[responses.stop]
description = \"d\"
revoke_session = true
[responses.calm]
description = \"d\"
narrow = true
";

fn declaring(policies: &str) -> Snapshot {
    with_settings(&format!("{SETTINGS}{DECLARED}"), policies)
}

fn found(policies: &str) -> (Verdict, Consequences) {
    let snapshot = declaring(policies);
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    let consequences = verdict.consequences().cloned().unwrap_or_default();
    (verdict, consequences)
}

#[test]
fn an_allow_sets_the_labels_of_its_permits_and_no_other_answer_does() {
    let labelling = "@label(\"seen\") permit(principal, action, resource);";
    let (verdict, consequences) = found(labelling);
    assert_eq!((verdict.decision(), consequences.labels), (Decision::Allow, vec![0]));
    for stricter in
        ["forbid(principal, action, resource);", "@step_up(\"ask\") forbid(principal, action, resource);"]
    {
        let (verdict, consequences) = found(&format!("{labelling}{stricter}"));
        assert_ne!(verdict.decision(), Decision::Allow);
        assert_eq!(consequences, Consequences::default(), "{stricter}");
    }
}

#[test]
fn a_policy_responds_only_where_it_settles_the_answer() {
    let permit = "@respond(\"stop\") permit(principal, action, resource);";
    assert_eq!(found(permit).1.responses, [(1, 0)]);
    assert_eq!(found(&format!("{permit} forbid(principal, action, resource);")).1, Consequences::default());
    let soft = "@respond(\"stop\") @step_up(\"ask\") forbid(principal, action, resource);";
    assert_eq!(found(&format!("{PERMIT}{soft}")).1.responses, [(1, 1)]);
}

#[test]
fn a_narrowed_allow_has_no_lease() {
    assert_eq!(found(PERMIT).0.lease().held_lease_ms, 250);
    let (verdict, _) = found("@respond(\"calm\") permit(principal, action, resource);");
    assert_eq!(verdict.decision(), Decision::Allow);
    assert_eq!((verdict.lease().lease_ms, verdict.lease().held_lease_ms), (0, 0));
}

/// Whoever reuses it goes on with what sets the label, and the label ends all the same.
#[test]
fn an_allow_that_sets_a_label_for_a_time_has_no_lease() {
    let (verdict, _) = found("@label(\"seen\") permit(principal, action, resource);");
    assert_eq!((verdict.lease().lease_ms, verdict.lease().held_lease_ms), (0, 0));
    let for_good = DECLARED.replace("for_s = 60\n", "");
    let snapshot = with_settings(
        &format!("{SETTINGS}{for_good}"),
        "@label(\"seen\") permit(principal, action, resource);",
    );
    let verdict = judge(&snapshot, &attempt(&snapshot), &Facts::default());
    assert_eq!(verdict.consequences().map(|found| found.labels.as_slice()), Some([0].as_slice()));
    assert_eq!(verdict.lease().held_lease_ms, 250, "it stays as long as the session");
}

#[test]
fn a_policy_in_dry_run_settles_nothing_and_is_told_where_it_would_have() {
    let overflows = "9223372036854775807 + context.token.expires_in_s + 1 > 0";
    for (policies, decision, dry) in [
        (format!("{PERMIT} @dry_run(\"x\") forbid(principal, action, resource);"), Decision::Allow, vec![1]),
        (
            format!("{PERMIT} @dry_run(\"x\") @step_up(\"ask\") forbid(principal, action, resource);"),
            Decision::Allow,
            vec![1],
        ),
        ("@dry_run(\"x\") permit(principal, action, resource);".to_owned(), Decision::Deny, vec![0]),
        // Denied anyway: nothing would be different.
        (
            format!(
                "{PERMIT} forbid(principal, action, resource); @dry_run(\"x\") forbid(principal, action, resource);"
            ),
            Decision::Deny,
            vec![],
        ),
        // Its error is nobody's business.
        (
            format!("{PERMIT} @dry_run(\"x\") forbid(principal, action, resource) when {{ {overflows} }};"),
            Decision::Allow,
            vec![],
        ),
    ] {
        let (verdict, consequences) = found(&policies);
        assert_eq!((verdict.decision(), consequences.dry), (decision, dry), "{policies}");
        assert!(verdict.errors().is_empty(), "{policies}");
    }
    let (_, responding) =
        found(&format!("{PERMIT} @dry_run(\"x\") @respond(\"stop\") forbid(principal, action, resource);"));
    assert!(responding.responses.is_empty(), "nothing is done for what is only tried out");
}

#[test]
fn a_label_counts_until_its_end_and_the_end_is_foreseen() {
    let snapshot =
        declaring("permit(principal, action, resource) when { !context.session.labels.contains(\"seen\") };");
    let mut labelled = session();
    labelled.label("seen".into(), NOW.wall_ms + 5_000);
    let asked = Parts { session_id: "s", ..parts() };
    let attempt = Attempt::new(&snapshot, asked).unwrap();
    let (question, facts) = (Question::new(&snapshot, &attempt), in_session(labelled));
    let at = |ms| Now { wall_ms: NOW.wall_ms + ms, ..NOW };
    assert_eq!(decide(&question, &facts, at(4_999)).decision(), Decision::Deny);
    assert_eq!(decide(&question, &facts, at(5_000)).decision(), Decision::Allow);
    assert_eq!(next_change(&question, &facts, NOW).at_ms, Some(NOW.wall_ms + 5_000));
}
