//! Every rule that a finding can name: its stable id, how much it weighs, what it means and what to do.
//!
//! Owns the ids, which configuration of CI and `@allow` annotations refer to: one that was released is never renamed.
//! Never finds anything itself; that is the loader's and the lints'.

use crate::fault::Severity;

/// One rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Stable name, kebab-case.
    pub id: &'static str,
    /// How much a finding weighs unless somebody says otherwise.
    pub severity: Severity,
    /// What a finding means, on one line.
    pub meaning: &'static str,
    /// What to do, where that is the same for every finding.
    pub help: Option<&'static str>,
}

impl Rule {
    /// The rule of that id.
    #[must_use]
    pub fn named(id: &str) -> Option<&'static Self> {
        ALL.iter().find(|rule| rule.id == id).copied()
    }

    /// Whether `@allow` can silence it: what keeps a bundle from serving cannot be waved through.
    #[must_use]
    pub fn can_be_allowed(&self) -> bool {
        self.severity != Severity::Error
    }
}

macro_rules! rules {
    ($($name:ident $severity:ident $id:literal $meaning:literal $(=> $help:literal)?;)*) => {
        $(
            #[doc = concat!("`", $id, "`: ", $meaning, ".")]
            pub static $name: Rule = Rule {
                id: $id,
                severity: Severity::$severity,
                meaning: $meaning,
                help: rules!(@help $($help)?),
            };
        )*

        /// Every rule, in the order in which `cardea bundle check --list` prints them.
        pub static ALL: &[&Rule] = &[$(&$name),*];
    };
    (@help) => { None };
    (@help $help:literal) => { Some($help) };
}

rules! {
    // What keeps a bundle from serving.
    BUNDLE_INVALID Error "bundle-invalid" "the bundle cannot be read or compiled";
    FILE_MISSING Error "file-missing" "a file that every bundle needs is not there"
        => "every bundle has bundle.toml and schema.cedarschema";
    FILE_NOT_TEXT Error "file-not-text" "a file is not UTF-8";
    SETTINGS_INVALID Error "settings-invalid" "bundle.toml has an unknown key, or a value that no bundle may have";
    SCHEMA_INVALID Error "schema-invalid" "the schema is not Cedar's, or does not hold together";
    CONTEXT_ATTRIBUTE Error "context-attribute" "an action's context has an attribute that nobody fills";
    ENTITIES_INVALID Error "entities-invalid" "entities.json is not Cedar's entity JSON, or not as the schema says"
        => "entities must follow the schema; see Cedar's entity JSON";
    ROUTES_INVALID Error "routes-invalid" "routes.toml cannot be read, or contradicts itself or the schema";
    BASELINES_INVALID Error "baselines-invalid" "baselines.json is no file of baselines that this version reads, or holds too much";
    CLASS_UNKNOWN Error "class-unknown" "an action's `@class` in the schema is no class of actions"
        => "docs/monitoring.md tells the classes";
    POLICY_SYNTAX Error "policy-syntax" "a policy cannot be parsed";
    POLICY_TOO_DEEP Error "policy-too-deep" "a policy nests too deep, or holds too many operators"
        => "split the policy, or move values into entities";
    TEMPLATE_UNLINKED Error "template-unlinked" "a template has no link, so it says nothing"
        => "link it in links.json, or write a static policy without `?principal` and `?resource`";
    LINKS_INVALID Error "links-invalid" "links.json cannot be read, or a link does not fit its template"
        => "docs/bundle.md shows its form";
    DUPLICATE_ID Error "duplicate-id" "two policies have the same `@id`"
        => "give one of them another `@id`";
    STEP_UP_UNDECLARED Error "step-up-undeclared" "`@step_up` names a requirement that bundle.toml does not declare";
    AUDIT_UNKNOWN Error "audit-unknown" "a policy's `@audit` is not \"durable\""
        => "write @audit(\"durable\"), or remove it";
    STEP_UP_ON_PERMIT Error "step-up-on-permit" "a permit carries `@step_up`"
        => "put it on the forbid that the step-up lifts";
    LABEL_UNDECLARED Error "label-undeclared" "`@label` names one that bundle.toml does not declare";
    LABEL_ON_FORBID Error "label-on-forbid" "a forbid carries `@label`"
        => "labels are set by what is allowed: put it on the permit, or use `@respond`";
    RESPONSE_UNDECLARED Error "response-undeclared" "`@respond` names one that bundle.toml does not declare";
    TOO_MANY_DRY_RUNS Error "too-many-dry-runs" "more policies are in dry run than are counted"
        => "take `@dry_run` off those that were looked at, or try a whole bundle with `cardea bundle shadow`";
    WHOLE_CONTEXT Error "whole-context" "a policy uses `context` as a whole"
        => "read its attributes: which facts are gathered depends on them";
    UNKNOWN_ENTITY_TYPE Error "unknown-entity-type" "a policy names an entity type that the schema does not have";
    UNKNOWN_ACTION Error "unknown-action" "a policy names an action that the schema does not have";
    UNKNOWN_ATTRIBUTE Error "unknown-attribute" "a policy reads an attribute that the schema does not have";
    OPTIONAL_ATTRIBUTE Error "optional-attribute" "a policy reads an optional attribute without `has`";
    OPTIONAL_TAG Error "optional-tag" "a policy reads a tag without `hasTag`";
    TYPE_MISMATCH Error "type-mismatch" "a policy uses a value as another type than the schema gives it";
    POLICY_INVALID Error "policy-invalid" "a policy does not pass Cedar's strict validation";

    // What Cedar's validator warns of.
    NEVER_APPLIES Warning "never-applies" "a policy can never apply: no attempt satisfies its scope and condition";
    CONFUSABLE_TEXT Warning "confusable-text" "a name or string has characters that look like others, or turn the direction of writing"
        => "retype it in one script, without control characters";

    // What no policy can have meant.
    NO_POLICIES Warning "no-policies" "the bundle holds no policy, so everything is denied";
    FORBID_EVERYTHING Warning "forbid-everything" "a forbid without scope and condition denies every attempt"
        => "narrow its scope, or give it a condition";
    CONSTANT_CONDITION Warning "constant-condition" "a condition, or a part of it, is always true or always false";
    UNKNOWN_FACT_VALUE Warning "unknown-fact-value" "a policy compares a fact with a value that the fact never has";
    UNGUARDED_ENTITY Warning "unguarded-entity" "a policy reads an attribute of an entity that entities.json may not list";
    DUPLICATE_POLICY Warning "duplicate-policy" "two policies have the same effect, scope and condition"
        => "remove one of them";
    SHADOWED_POLICY Warning "shadowed-policy" "another policy of the same effect applies wherever this one does"
        => "remove it, or narrow the other one";
    PERMIT_EVERY_PRINCIPAL Warning "permit-every-principal" "a permit does not say who"
        => "name principals in its scope (`principal is T`, `principal in G`), or test `principal` in its condition";
    PERMIT_EVERY_ACTION Warning "permit-every-action" "a permit does not say what may be done"
        => "name actions in its scope: `action == A` or `action in [A, B]`";
    PERMIT_EVERY_RESOURCE Warning "permit-every-resource" "a permit does not say on what"
        => "name resources in its scope (`resource is T`, `resource in G`), or test `resource` in its condition";

    NO_LEASE Note "no-lease" "the bundle gives leases, and a policy does something with time that cannot be foreseen"
        => "compare facts with constants, or accept that these allows are asked for each time: `@allow(\"no-lease\")`";

    // Annotations.
    FORBID_WITHOUT_REASON Warning "forbid-without-reason" "a forbid does not tell the caller why"
        => "add `@reason(\"…\")`: what the caller is told, and can act on";
    MISSING_ID Warning "missing-id" "a policy has no `@id`, so its name changes with the policies before it"
        => "add `@id(\"…\")`: records, tests and comparisons refer to it";
    OBLIGATION_UNDECLARED Warning "obligation-undeclared" "`@obligation` names one that bundle.toml does not declare";
    UNUSED_OBLIGATION Warning "unused-obligation" "bundle.toml declares an obligation that no permit carries"
        => "remove it, or put `@obligation` on the permit that it is for";
    UNUSED_STEP_UP Warning "unused-step-up" "bundle.toml declares a step-up requirement that no forbid asks for"
        => "remove it, or put `@step_up` on the forbid that it is for";
    UNUSED_LABEL Warning "unused-label" "bundle.toml declares a label that no permit sets"
        => "remove it, or put `@label` on the permit that sets it";
    UNUSED_RESPONSE Warning "unused-response" "bundle.toml declares a response that no policy has carried out"
        => "remove it, or put `@respond` on the policy that it is for";
    LABEL_WITHOUT_SESSION Note "label-without-session" "a permit sets a label and does not ask for a known session, without which nothing is set"
        => "test `context.session.known` in the permit, or in a forbid and silence this: `@allow(\"label-without-session\")`";
    DRY_RUN_WITHOUT_REASON Note "dry-run-without-reason" "a policy is in dry run, and does not say since when and why"
        => "write it into the annotation: `@dry_run(\"since 2026-11, to see whom it hits\")`";
    STEP_UP_UNMEETABLE Warning "step-up-unmeetable" "meeting the step-up changes nothing that the forbid reads, so it is asked for again and again";
    ANNOTATION_MISSPELT Warning "annotation-misspelt" "an annotation means nothing to Cardea, and is nearly one that does";
    ANNOTATION_WITHOUT_EFFECT Warning "annotation-without-effect" "an annotation is empty, or has no effect on a policy of this kind";
    UNUSED_ALLOW Warning "unused-allow" "`@allow` silences nothing"
        => "remove the id from the annotation";

    // Behaviour.
    BASELINE_UNKNOWN_NAME Warning "baseline-unknown-name" "baselines.json or `[behavior]` names an action, a type or a field that the schema does not have, so that part of it means nothing";
    OBSERVE_PERIOD Warning "observe-period" "`[behavior.observe]` is over, or goes on for more than 45 days; told by `cardea bundle check`, which knows the day";

    // Counters.
    UNUSED_COUNTER Warning "unused-counter" "bundle.toml declares a counter that no policy reads"
        => "remove it, or read `context.counters.NAME` in the policy that it is for";

    // Schema and routes.
    UNUSED_ENTITY_TYPE Warning "unused-entity-type" "no action, other type, policy or route uses an entity type"
        => "remove it from the schema";
    EMPTY_ACTION_GROUP Warning "empty-action-group" "an action applies to nothing and no action is in it"
        => "give it `appliesTo`, put actions into it (`action a in [group]`), or remove it";
    ACTION_WITHOUT_PERMIT Warning "action-without-permit" "no permit covers an action, so every attempt at it is denied"
        => "write a permit for it, or remove it from the schema";
    ACTION_WITHOUT_ROUTE Note "action-without-route" "callers that routes.toml identifies may take an action, but no route leads to it"
        => "add a `[[route]]`, or annotate the action with `@allow(\"action-without-route\")`";
    ROUTE_WITHOUT_PERMIT Warning "route-without-permit" "no permit covers the action of a route, so every request to it is denied"
        => "write a permit for the action and the resource type, or remove the route";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_distinct_kebab_case_and_found_by_name() {
        for rule in ALL {
            let kebab = rule.id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            assert!(kebab && !rule.id.starts_with('-') && !rule.id.ends_with('-'), "{}", rule.id);
            assert_eq!(Rule::named(rule.id), Some(*rule));
            assert!(!rule.meaning.ends_with('.') && !rule.meaning.contains('\n'), "{}", rule.id);
        }
        let mut ids: Vec<_> = ALL.iter().map(|rule| rule.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ALL.len());
    }
}
