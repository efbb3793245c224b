use super::*;
use crate::engine::Uid;
use crate::settings::OnPolicyError;

const SCHEMA: &str = "
entity Agent; entity Table;
action read appliesTo { principal: Agent, resource: Table,
  context: { session: Cardea::Session, risk: Cardea::Risk, request: { rows: Long, note?: String } } };
";

fn bundle(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn faults(files: &[(&str, &str)]) -> Vec<String> {
    let dir = bundle(files);
    directory(dir.path()).unwrap_err().list().iter().map(ToString::to_string).collect()
}

#[test]
fn a_whole_bundle_loads_and_names_its_policies() {
    let dir = bundle(&[
        (
            "bundle.toml",
            "name = \"t\"\nrevision = 7\n[step_up.login]\nkind = \"authentication\"\nmax_age_s = 300",
        ),
        ("schema.cedarschema", SCHEMA),
        ("policies/a.cedar", "permit(principal, action, resource) when { context.request.rows < 5 };"),
        (
            "policies/b.cedar",
            "@id(\"old login\") @step_up(\"login\") forbid(principal, action, resource)
             when { context.session.auth_age_s > 300 };
             permit(principal, action, resource);",
        ),
        (
            "entities.json",
            "[{\"uid\": {\"type\": \"Agent\", \"id\": \"a\"}, \"attrs\": {}, \"parents\": []}]",
        ),
    ]);
    let loaded = directory(dir.path()).unwrap();
    let ids: Vec<&str> = loaded.snapshot.policies().iter().map(|policy| policy.id.as_str()).collect();
    assert_eq!(ids, ["policy0", "old login", "policy2"]);
    assert_eq!(loaded.snapshot.settings().revision, 7);
    assert_eq!(loaded.snapshot.world().len(), 2, "the agent and the action");
    assert!(loaded.snapshot.action("", "read").is_some());
    assert_eq!(loaded.snapshot.digest().len(), 64);
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let found = faults(&[
        ("bundle.toml", "name = \"t\"\nrevisoin = 7"),
        ("schema.cedarschema", SCHEMA),
        ("policies/a.cedar", "permit(principal, action, resource)\nwhen { context.request.rowz < 5 };"),
        ("policies/b.cedar", "permit(principal, action);"),
    ]);
    assert!(
        found.iter().any(|fault| fault.starts_with("bundle.toml:2:1: unknown field `revisoin`")),
        "{found:?}"
    );
    assert!(found.iter().any(|fault| fault.starts_with("policies/a.cedar:2:")), "{found:?}");
    assert!(found.iter().any(|fault| fault.starts_with("policies/b.cedar:1:")), "{found:?}");
}

#[test]
fn annotations_that_cannot_be_honoured_are_refused() {
    let with = |policy: &str| {
        faults(&[
            ("bundle.toml", "name = \"t\""),
            ("schema.cedarschema", SCHEMA),
            ("policies/a.cedar", policy),
        ])
    };
    let undeclared = with("@step_up(\"x\") forbid(principal, action, resource);");
    assert!(undeclared[0].contains("`x`, which is not declared"), "{undeclared:?}");
    let twice = with(
        "@id(\"a\") permit(principal, action, resource); @id(\"a\") forbid(principal, action, resource);",
    );
    assert!(twice[0].contains("also used"), "{twice:?}");
    let template = with("permit(principal == ?principal, action, resource);");
    assert!(template[0].contains("template"), "{template:?}");
}

#[test]
fn a_context_attribute_that_cardea_does_not_fill_is_refused() {
    let with = |context: &str| {
        let schema = format!(
            "entity Agent; action read appliesTo {{ principal: Agent, resource: Agent, context: {{ {context} }} }};"
        );
        faults(&[("bundle.toml", "name = \"t\""), ("schema.cedarschema", &schema)])
    };
    assert!(with("ip: String")[0].contains("nobody's"));
    assert!(with("risk: { score: Long }")[0].contains("declare `risk: Cardea::Risk`"));
    assert!(with("now: Long")[0].contains("declare `now: datetime`"));
}

#[test]
fn a_missing_or_oversized_file_is_named() {
    assert!(faults(&[])[0].contains("bundle.toml: is missing"));
    let dir = bundle(&[("bundle.toml", "name = \"t\""), ("schema.cedarschema", SCHEMA)]);
    let big = fs::File::create(dir.path().join("entities.json")).unwrap();
    big.set_len(FILE_BYTES_MAX + 1).unwrap();
    assert!(directory(dir.path()).unwrap_err().to_string().contains("too large"));
}

#[test]
fn the_digest_changes_with_any_file_and_only_then() {
    let with = |policy: &str| {
        let files =
            [("bundle.toml", "name = \"t\""), ("schema.cedarschema", SCHEMA), ("policies/a.cedar", policy)];
        directory(bundle(&files).path()).unwrap().snapshot.digest().clone()
    };
    assert_eq!(with("permit(principal, action, resource);"), with("permit(principal, action, resource);"));
    assert_ne!(with("permit(principal, action, resource);"), with("forbid(principal, action, resource);"));
}

#[test]
fn every_fact_of_the_fragment_is_numbered_and_the_other_way_round() {
    use crate::fragment::{Fact, Group, SCHEMA as CARDEA};
    let context: Vec<String> = Group::ALL
        .into_iter()
        .filter_map(|group| Some(format!("{}: {}", group.name(), group.type_name()?)))
        .collect();
    let text = format!(
        "{CARDEA}\nentity E; action a appliesTo {{ principal: E, resource: E, context: {{ {} }} }};",
        context.join(", ")
    );
    let (schema, _) = Schema::from_cedarschema_str(&text).unwrap();
    let crate::shape::Shape::Record(groups) = engine::action_types(&schema).remove(0).context else {
        panic!("a context is a record")
    };
    let mut typed = Vec::new();
    for (group, field) in &groups {
        let crate::shape::Shape::Record(fields) = &field.shape else { panic!("a group is a record") };
        typed.extend(fields.keys().map(|name| format!("{group}.{name}")));
    }
    let mut numbered: Vec<&str> = Fact::ALL.into_iter().map(Fact::path).collect();
    numbered.sort();
    assert_eq!(typed, numbered);
}

/// A bundle with these counters, this `counters` in the context of `send_mail`, and this condition of a forbid.
fn counting(settings: &str, counters: &str, condition: &str) -> Result<Snapshot, String> {
    let schema = format!(
        "entity A, T; action send_mail, read appliesTo {{ principal: A, resource: T, context: {{ counters: {counters} }} }};"
    );
    let settings = format!("name = \"t\"\n{settings}");
    let policy = format!("forbid(principal, action, resource) when {{ {condition} }};");
    let files: Files =
        [("bundle.toml", settings), ("schema.cedarschema", schema), ("policies/a.cedar", policy)]
            .map(|(name, text)| (PathBuf::from(name), text.into_bytes()))
            .into();
    super::files(&files).map(|loaded| loaded.snapshot).map_err(|faults| faults.to_string())
}

const MAILS: &str = "[counters.mails]\nactions = [\"send_*\"]\nper = \"session\"\nwindow_s = 60\n[counters.all]\nactions = [\"Action::*\"]\nper = \"root\"\nwindow_s = 60\n";
const TYPES: &str = "{ mails: Cardea::Counter, all: Cardea::Counter }";

#[test]
fn policies_read_the_counters_that_they_name_and_actions_are_counted_by_those_that_fit() {
    use crate::fragment::Group;
    let reads = |condition: &str| {
        let snapshot = counting(MAILS, TYPES, condition).unwrap();
        let needs = snapshot.needs(&[0], snapshot.action("", "read").unwrap());
        (needs.counters().numbers().collect::<Vec<_>>(), needs.reads_whole(Group::Counters))
    };
    // By name: `all` is 0, `mails` is 1.
    assert_eq!(reads("context.counters.mails.count >= 10"), (vec![1], false));
    assert_eq!(reads("!context.counters.all.warm || context.counters.mails.count > 1"), (vec![0, 1], false));
    assert_eq!(reads("context.counters.mails has count"), (vec![0, 1], true));
    assert_eq!(reads("principal == A::\"x\""), (vec![], false));
    let snapshot = counting(MAILS, TYPES, "context.counters.mails.count >= 10").unwrap();
    let counted = |action: &str| snapshot.action("", action).unwrap().counted().numbers().collect::<Vec<_>>();
    assert_eq!((counted("send_mail"), counted("read")), (vec![0, 1], vec![0]));
    assert_eq!(snapshot.counter(1).unwrap().name, "mails");
}

#[test]
fn a_counter_that_means_nothing_keeps_the_bundle_from_serving() {
    let read = "context.counters.all.count >= 10";
    for (settings, types, wanted) in [
        ("", TYPES, "add `[counters.all]` to bundle.toml"),
        (MAILS, "{ mails: Long, all: Cardea::Counter }", "declare `mails: Cardea::Counter`"),
        (&MAILS.replace("send_*", "sent_*"), TYPES, "the schema has no such action"),
        (&MAILS.replace("window_s = 60\n[", "window_s = 0\n["), TYPES, "counter `mails` has a `window_s`"),
    ] {
        let faults = counting(settings, types, read).unwrap_err();
        assert!(faults.contains(wanted), "{settings}: {faults}");
    }
    let many: String =
        (0..33).map(|n| MAILS.replace("mails", &format!("m{n}")).replace("all", &format!("a{n}"))).collect();
    assert!(
        counting(&many, "{ m1: Cardea::Counter }", "context.counters.m1.warm")
            .unwrap_err()
            .contains("at most 32")
    );
}

#[test]
fn plain_cedar_needs_no_schema() {
    let dir = bundle(&[("p.cedar", "permit(principal == A::\"x\", action, resource);")]);
    let path = dir.path().join("p.cedar");
    let loaded = cedar(&CedarSources {
        policies: &path,
        schema: None,
        entities: None,
        on_policy_error: OnPolicyError::Deny,
    })
    .unwrap();
    assert_eq!(loaded.snapshot.policies().len(), 1);
}

#[test]
fn towers_of_brackets_or_operators_are_refused_and_harm_nothing() {
    for tower in [
        format!("{}true{}", "(".repeat(3000), ")".repeat(3000)),
        format!("true{}", " || true".repeat(20_000)),
    ] {
        let policy = format!("permit(principal, action, resource) when {{ {tower} }};");
        let found = faults(&[
            ("bundle.toml", "name = \"t\""),
            ("schema.cedarschema", SCHEMA),
            ("policies/a.cedar", &policy),
        ]);
        assert!(found[0].contains("more than"), "{}", found.len());
    }
}

#[test]
fn the_deepest_policy_that_passes_can_be_loaded_and_dropped_on_a_small_stack() {
    let tower = format!("true{}", " || true".repeat(nesting::OPERATORS_MAX - 10));
    let policy = format!("permit(principal, action, resource) when {{ {tower} }};");
    let dir = bundle(&[
        ("bundle.toml", "name = \"t\""),
        ("schema.cedarschema", SCHEMA),
        ("policies/a.cedar", &policy),
    ]);
    let small = std::thread::Builder::new().stack_size(2 << 20);
    small.spawn(move || drop(directory(dir.path()).unwrap())).unwrap().join().unwrap();
}

#[test]
fn a_route_that_could_never_be_allowed_is_refused() {
    let routes = |route: &str| {
        let text = format!(
            "[identity]\nsources = [\"mtls\"]\n[identity.mtls]\ntype = \"Agent\"\n[[route]]\n{route}"
        );
        faults(&[("bundle.toml", "name = \"t\""), ("schema.cedarschema", SCHEMA), ("routes.toml", &text)])
    };
    let resource = "resource = { type = \"Table\", id = \"t\" }";
    let unfilled = routes(&format!("method = \"GET\"\npath = \"/t\"\naction = \"read\"\n{resource}"));
    assert!(unfilled[0].contains("needs `rows`"), "{unfilled:?}");
    let optional = routes(&format!(
        "method = \"GET\"\npath = \"/t\"\naction = \"read\"\n{resource}\ncontext = {{ rows = \"query.rows\" }}"
    ));
    assert!(optional[0].contains("declare it optional"), "{optional:?}");
}

const TEMPLATES: &str = "
@id(\"reader\") @reason(\"for readers\")
permit (principal == ?principal, action == Action::\"read\", resource in ?resource);
@id(\"own\")
permit (principal, action, resource);
";

fn linked(links: &str) -> Vec<(&'static str, String)> {
    let schema = "entity Agent; entity Box; entity Doc in Box; action read appliesTo { principal: Agent, resource: Doc };";
    vec![
        ("bundle.toml", "name = \"t\"".to_owned()),
        ("schema.cedarschema", schema.to_owned()),
        ("policies/a.cedar", TEMPLATES.to_owned()),
        ("links.json", links.to_owned()),
    ]
}

fn linked_files(links: &str) -> Files {
    linked(links).into_iter().map(|(path, text)| (path.into(), text.into_bytes())).collect()
}

#[test]
fn a_link_is_a_policy_with_its_own_id_and_scope_and_its_templates_words() {
    let links = r#"[
        {"template_id": "reader", "link_id": "reader-a", "args": {"?principal": "Agent::\"a\"", "?resource": "Box::\"x\""}},
        {"template_id": "reader", "link_id": "reader-b", "args": {"?principal": "Agent::\"b\"", "?resource": "Box::\"y\""}}
    ]"#;
    let mut files = linked_files(links);
    let entities =
        r#"[{"uid": {"type": "Doc", "id": "d"}, "attrs": {}, "parents": [{"type": "Box", "id": "y"}]}]"#;
    files.insert("entities.json".into(), entities.into());
    let snapshot = super::files(&files).unwrap().snapshot;
    let ids: Vec<&str> = snapshot.policies().iter().map(|policy| policy.id.as_str()).collect();
    assert_eq!(ids, ["own", "reader-a", "reader-b"]);
    assert_eq!(snapshot.policies()[1].reason.as_deref(), Some("for readers"));
    let uid = |of: &str, id: &str| Uid::new(snapshot.type_name(of).unwrap(), id);
    let candidates = |who: &str| {
        let read = snapshot.action("", "read").unwrap();
        let found = snapshot.candidates(&uid("Agent", who), &read.uid, &uid("Doc", "d"));
        found.iter().map(|at| snapshot.policy(*at).unwrap().id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(candidates("a"), ["own"], "the document is in the other box");
    assert_eq!(candidates("b"), ["own", "reader-b"]);
}

#[test]
fn a_link_that_does_not_fit_is_refused_and_so_is_a_template_without_one() {
    let faults = |links: &str| files(&linked_files(links)).unwrap_err().to_string();
    let with =
        |id: &str, args: &str| format!(r#"[{{"template_id": "{id}", "link_id": "l", "args": {{{args}}}}}]"#);
    let (principal, resource) = (r#""?principal": "Agent::\"a\"""#, r#""?resource": "Box::\"x\"""#);
    let both = format!("{principal}, {resource}");
    assert!(files(&linked_files(&with("reader", &both))).is_ok());
    assert!(faults("[]").contains("template `reader` has no link"));
    assert!(faults(&with("raeder", &both)).contains("there is no template `raeder`"));
    assert!(faults(&with("reader", principal)).contains("link 1 (`l`)"));
    assert!(faults(&with("reader", &format!("{both}, \"?action\": \"x\""))).contains("`?action` is no slot"));
    assert!(faults(&with("reader", &both.replace("Box::", "Box:"))).contains("is no entity"));
    assert!(
        faults(&with("reader", &both.replace("Box::", "Nobody::"))).contains("policies/a.cedar"),
        "no such type"
    );
    assert!(faults("{}").contains("links.json"));
    let twice = format!("[{0}, {0}]", with("reader", &both).trim_matches(['[', ']']));
    assert!(faults(&twice).contains("link 2 (`l`)"));
    assert!(faults(&with("reader", &both).replace("\"l\"", "\"own\"")).contains("own"), "the id of a policy");
}

#[test]
fn a_large_file_is_parsed_in_parts_and_every_place_in_it_is_the_files() {
    let one = |at: usize| {
        format!(
            "@id(\"p{at}\") permit (principal, action == Action::\"read\", resource)\nwhen {{ context.session.known }};\n"
        )
    };
    let many: String = (0..12_000).map(one).collect();
    assert!(many.len() > 3 * PART_BYTES);
    let with = |last: &str| {
        let text = format!("{many}{last}");
        Files::from([
            ("bundle.toml".into(), b"name = \"t\"".to_vec()),
            ("schema.cedarschema".into(), SCHEMA.into()),
            ("policies/a.cedar".into(), text.into_bytes()),
        ])
    };
    let snapshot = files(&with("")).unwrap().snapshot;
    let ids: Vec<&str> = snapshot.policies().iter().map(|policy| policy.id.as_str()).collect();
    let expected: Vec<String> = (0..12_000).map(|at| format!("p{at}")).collect();
    assert_eq!(ids, expected);
    let place = |last: &str| {
        let faults = files(&with(last)).unwrap_err();
        let fault = faults.list().first().unwrap().clone();
        (fault.file().to_owned(), fault.line(), fault.column())
    };
    let at = |column| ("policies/a.cedar".into(), Some(24_001), Some(column));
    assert_eq!(place("permit (principal, action == Action::\"raed\", resource);"), at(30), "validation");
    assert_eq!(place("@id(\"p7\") forbid (principal, action, resource);"), at(1), "an id twice");
    assert_eq!(place("permit (principal, action, resource"), at(36), "syntax");
    let unclosed = place("permit (principal, action, resource) when { \"");
    assert_eq!(unclosed.1, Some(24_001), "a string that does not end");
}

/// The thresholds and what is opaque of one condition, as text.
fn times_of(condition: &str) -> String {
    let schema = "entity A; action read appliesTo { principal: A, resource: A, context: {
        session: Cardea::Session, risk: Cardea::Risk, task: Cardea::Task, signals: Cardea::Signals, now: datetime,
        request: { age_s: Long } } };";
    let policy = format!("permit(principal, action, resource) when {{ {condition} }};");
    let dir = bundle(&[
        ("bundle.toml", "name = \"t\""),
        ("schema.cedarschema", schema),
        ("policies/a.cedar", &policy),
    ]);
    let loaded = directory(dir.path()).unwrap();
    let Some(times) = loaded.snapshot.policies()[0].condition.times() else { return "timeless".to_owned() };
    let mut found: Vec<String> =
        times.thresholds().iter().map(|threshold| format!("{threshold:?}")).collect();
    found.extend(times.opaque().facts().map(|fact| format!("opaque {}", fact.path())));
    found.extend(times.opaque().reads_whole(crate::fragment::Group::Now).then(|| "opaque now".to_owned()));
    found.join("; ")
}

#[test]
fn conditions_tell_what_they_read_of_time() {
    let value = |fact: &str, from: i64| format!("Value {{ fact: {fact}, from: {from} }}");
    for (condition, expected) in [
        ("context.session.age_s < 3600", value("SessionAge", 3600)),
        ("3600 >= context.session.age_s", value("SessionAge", 3601)),
        ("!(context.risk.score == 70)", format!("{}; {}", value("RiskScore", 70), value("RiskScore", 71))),
        ("context.risk.level == \"high\"", value("RiskScore", 70)),
        (
            "[\"low\"].contains(context.risk.level)",
            format!("{}; {}", value("RiskScore", 30), value("RiskScore", 70)),
        ),
        ("context.risk.reasons.contains(\"operator\")", "Reasons(128)".to_owned()),
        ("context.task.active == false", "Window".to_owned()),
        ("context.signals.silent.isEmpty()", "Silence".to_owned()),
        ("context.now < datetime(\"1970-01-01T00:00:01Z\")", "Instant(1000)".to_owned()),
        ("context.now.toTime() >= duration(\"8h\")", "TimeOfDay(0); TimeOfDay(28800000)".to_owned()),
        ("context.session.age_s < context.request.age_s", "opaque session.age_s".to_owned()),
        (
            "context.session == context.session",
            "opaque session.age_s; opaque session.idle_s; opaque session.auth_age_s".to_owned(),
        ),
        ("context.now == context.now", "opaque now".to_owned()),
        (
            "context.session has age_s && context.session.known && context.request.age_s > 5",
            "timeless".to_owned(),
        ),
    ] {
        assert_eq!(times_of(condition), expected, "{condition}");
    }
}

#[test]
fn leases_classes_and_sources_that_say_nothing_sensible_are_refused() {
    let found = faults(&[
        (
            "bundle.toml",
            "name = \"t\"\n[lease]\nmax_ms = 10\nunheld_max_ms = 20\nstream_loss_max_ms = 86400001\n
             [signals.source.edr]\nmax_silence_s = 0\n
             [[facts.class]]\nactions = [\"read\", \"no such\", \"read\"]\nrisk_max_age_s = 5\n
             [[facts.class]]\nactions = []",
        ),
        ("schema.cedarschema", SCHEMA),
    ]);
    for expected in [
        "`unheld_max_ms` is at most `max_ms`",
        "`stream_loss_max_ms` is at most 86400000 ms",
        "source `edr` would always be silent",
        "action `read` is named twice",
        "without `actions`",
        "without a limit",
    ] {
        assert!(found.iter().any(|fault| fault.contains(expected)), "{expected}: {found:?}");
    }
    let found = faults(&[
        ("bundle.toml", "name = \"t\"\n[[facts.class]]\nactions = [\"reed\"]\nrisk_max_age_s = 5"),
        ("schema.cedarschema", SCHEMA),
        ("policies/a.cedar", "permit(principal, action, resource);"),
    ]);
    assert!(found.iter().any(|fault| fault.contains("names action `reed`")), "{found:?}");
}

const BASELINES: &str = r#"{"format":"cardea-baselines/1","version":3,"approved_by":"ann","attempts":1,"baselines":
  {"Agent::\"a\"":{"month":{"runs":9,"actions":{"read":{"seen":[9,1,0],"targets":{"books":[9,1,0]}}}}}}}"#;

#[test]
fn what_was_approved_is_compiled_with_the_bundle_and_found_by_entity() {
    let dir = bundle(&[
        (
            "bundle.toml",
            "name = \"t\"\n[behavior]\nlists = [\"note\"]\nreferences = [\"note\"]\n[behavior.targets]\nread = [\"note\"]\n[behavior.classes]\nread = [\"read\"]",
        ),
        ("schema.cedarschema", SCHEMA),
        ("baselines.json", BASELINES),
    ]);
    let snapshot = directory(dir.path()).unwrap().snapshot;
    let of = |type_name: &str, task| {
        let uid = Uid::new(snapshot.type_name(type_name).unwrap(), "a");
        let found = snapshot.approvals().of(&uid, task);
        [found.task, found.identity]
            .map(|found| found.map(|baseline| (baseline.version(), baseline.is_mature())))
    };
    let approved = Some(("3 (approved by ann)", true));
    assert_eq!(of("Agent", Some("month")), [approved, approved]);
    assert_eq!(of("Agent", None), [None, approved]);
    assert_eq!(of("Table", Some("month")), [None, None], "an id is not an identity");
    let monitored = snapshot.action("", "read").unwrap().monitored();
    assert_eq!(monitored.class.name(), "read");
    let targets = monitored.targets.as_deref().unwrap();
    assert_eq!((targets[0].name.as_str(), targets[0].is_list), ("note", true));
}

#[test]
fn baselines_that_cannot_be_read_are_refused_with_place_and_remedy() {
    let with = |settings: &str, baselines: &str| {
        let settings = format!("name = \"t\"\n{settings}");
        faults(&[("bundle.toml", &settings), ("schema.cedarschema", SCHEMA), ("baselines.json", baselines)])
    };
    for (settings, baselines, expected) in [
        ("", "{\n \"format\": 1}", "baselines.json:2:"),
        ("", "{\n \"format\": 1}", "make it with `cardea monitor learn`"),
        ("", &BASELINES.replace("/1\"", "/9\""), "this version reads `cardea-baselines/1`; learn it again"),
        ("", &BASELINES.replace("Agent::\\\"a\\\"", "a"), "identity `a` is no entity"),
        ("[behavior]\nrulez = 1", BASELINES, "bundle.toml:3:1: unknown field `rulez`"),
        ("[behavior.burst]\ntick_s = 0", BASELINES, "at least one second long"),
        ("[behavior.targets]\nread = []", BASELINES, "has no fields"),
    ] {
        let found = with(settings, baselines);
        assert!(found.iter().any(|fault| fault.contains(expected)), "{expected}: {found:?}");
    }
}
