//! What subjects mean here: rules, their order, issuers, aliases, and what no rule reads.
#![expect(clippy::needless_pass_by_value, reason = "literals of JSON are handed over as they stand")]

use cardea_policy_store::load;
use serde_json::{Value, json};

use super::super::options::Template;
use super::*;

pub(in super::super) fn snapshot() -> Snapshot {
    let schema = "entity User; entity App; entity Laptop; entity Doc;\n\
        action read appliesTo { principal: [User, App], resource: Doc, context: {} };";
    let files = [
        ("bundle.toml", "name = \"t\"\nrevision = 1\n"),
        ("schema.cedarschema", schema),
        ("policies/p.cedar", "@id(\"p\") permit(principal, action, resource);"),
    ];
    let files = files.into_iter().map(|(name, text)| (name.into(), text.into())).collect();
    load::files(&files).unwrap().snapshot
}

fn rule(member: &str, format: &str, place: Place, id: &str) -> Rule {
    let issuer = issuer_member(format).map(|_| "https://idp.example/".into());
    let id = Template::parse(id, format).unwrap();
    Rule { member: member.into(), format: format.into(), issuer, place, id }
}

pub(in super::super) fn rules() -> Vec<Rule> {
    let entity = |name: &str| Place::Entity(name.to_owned());
    vec![
        rule("user", "iss_sub", entity("User"), "{sub}"),
        rule("user", "email", entity("User"), "mail:{email}"),
        rule("application", "opaque", entity("App"), "{id}"),
        rule("device", "opaque", Place::Device, "{id}"),
        rule("device", "email", entity("Laptop"), "{email}"),
        rule("session", "opaque", Place::Session, "{id}"),
        rule("tenant", "opaque", Place::Tenant, "{id}"),
    ]
}

pub(in super::super) fn whom(subject: Value) -> Whom {
    Whom::of(&Subject::parse(&subject).unwrap(), &rules(), &snapshot())
}

fn shown(uid: Option<&Uid>) -> Option<String> {
    uid.map(|uid| format!("{}::{}", uid.type_text(), uid.id()))
}

#[test]
fn a_simple_subject_takes_the_first_rule_of_its_format() {
    let user = whom(json!({"format": "iss_sub", "iss": "https://idp.example/", "sub": "u1"}));
    assert_eq!(shown(user.principal()).as_deref(), Some("User::u1"));
    let opaque = whom(json!({"format": "opaque", "id": "a1"}));
    assert_eq!(shown(opaque.principal()).as_deref(), Some("App::a1"));
    assert!(opaque.is_whole() && opaque.session().is_none());
}

#[test]
fn a_user_of_another_issuer_is_nobody_here() {
    let other = whom(json!({"format": "iss_sub", "iss": "https://other.example/", "sub": "u1"}));
    assert!(other.principal().is_none() && !other.is_whole());
}

#[test]
fn members_of_a_complex_subject_take_rules_of_their_own() {
    let whole = whom(json!({"format": "complex",
        "user": {"format": "email", "email": "ada@example.org"},
        "device": {"format": "opaque", "id": "d1"},
        "session": {"format": "opaque", "id": "s1"},
        "tenant": {"format": "opaque", "id": "acme"}}));
    assert_eq!(shown(whole.principal()).as_deref(), Some("User::mail:ada@example.org"));
    assert_eq!((whole.device().unwrap().as_str(), whole.session().unwrap().as_str()), ("d1", "s1"));
    assert_eq!(whole.tenant().unwrap(), "acme");
    assert!(whole.is_whole());
}

#[test]
fn what_no_rule_reads_is_remembered() {
    let part = whom(json!({"format": "complex",
        "user": {"format": "email", "email": "ada@example.org"},
        "group": {"format": "opaque", "id": "g"},
        "place": "Paris"}));
    assert!(!part.is_whole() && part.principal().is_some());
    let critical = ["tenant".into(), "group".into()];
    assert_eq!(part.critical(critical.iter()).unwrap(), "group");
    let critical = ["place".into()];
    assert_eq!(part.critical(critical.iter()).unwrap(), "place");
    let critical = ["tenant".into()];
    assert_eq!(part.critical(critical.iter()), None, "a member that is not there is not critical");
}

#[test]
fn of_aliases_the_one_that_a_rule_reads_counts() {
    let alias = whom(json!({"format": "aliases", "identifiers": [
        {"format": "phone_number", "phone_number": "+12065550100"},
        {"format": "email", "email": "ada@example.org"}]}));
    assert_eq!(shown(alias.principal()).as_deref(), Some("User::mail:ada@example.org"));
    let none = whom(json!({"format": "aliases", "identifiers": [
        {"format": "phone_number", "phone_number": "+12065550100"}]}));
    assert!(none.principal().is_none() && !none.is_whole());
}

#[test]
fn ids_that_are_too_long_and_types_that_the_bundle_has_not_mean_nobody() {
    let long = whom(
        json!({"format": "complex", "session": {"format": "opaque", "id": "s".repeat(NAME_BYTES_MAX + 1)}}),
    );
    assert!(long.session().is_none());
    let rules = [rule("user", "opaque", Place::Entity("Ghost".to_owned()), "{id}")];
    let subject = Subject::parse(&json!({"format": "opaque", "id": "a"})).unwrap();
    assert!(Whom::of(&subject, &rules, &snapshot()).principal().is_none());
}
