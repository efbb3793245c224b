//! The configuration as its users meet it: the reference file, every kind of fault, all faults at once.

use miette::{GraphicalReportHandler, GraphicalTheme};

use super::*;

const REFERENCE: &str = include_str!("../../../docs/cardea.toml");

fn parse(text: &str) -> Result<Config, Faults> {
    Config::parse("cardea.toml", text, Path::new(""), &Overrides::default())
}

fn faults(text: &str) -> Vec<String> {
    parse(text).unwrap_err().all().iter().map(|fault| format!("{fault} | {}", fault.remedy())).collect()
}

/// The reference file with the keys that have no default switched on.
fn uncommented() -> String {
    let switch_on = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.is_empty() && !key.starts_with(' ') => key.to_owned(),
        _ => line.to_owned(),
    };
    REFERENCE.lines().map(switch_on).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_reference_file_equals_the_defaults() {
    assert_eq!(parse(REFERENCE).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
}

#[test]
fn the_reference_file_shows_every_key() {
    let text = uncommented();
    let config = parse(&text).unwrap();
    assert!(config.tls.is_some() && config.listen.uds.is_some());
    let table: toml::Table = text.parse().unwrap();
    for (section, keys) in read::KEYS {
        for key in *keys {
            assert!(
                table.get(*section).and_then(|table| table.get(key)).is_some(),
                "`{section}.{key}` is not shown"
            );
        }
    }
    assert_eq!(table.len(), read::KEYS.len());
}

#[test]
fn the_effective_values_name_every_key() {
    let shown: Vec<&str> = Config::default().effective().into_iter().map(|(key, _)| key).collect();
    let known: Vec<String> = read::KEYS
        .iter()
        .flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")))
        .collect();
    assert_eq!(shown, known);
}

#[test]
fn every_fault_is_reported_at_once_with_place_and_remedy() {
    let text = r#"[bundle]
sourc = "bundle"
allow_unsigned = "yes"

[listen]
grpc = ["0.0.0.0:7411", "localhost:7411"]
http = "127.0.0.1"

[worker]
count = 2

[audit]
when_full = "denny"
queue_max = 0

[log]
filter = "info,cardea=lowd"
"#;
    let faults = parse(text).unwrap_err();
    let mut rendered = String::new();
    GraphicalReportHandler::new_themed(GraphicalTheme::none())
        .with_width(110)
        .render_report(&mut rendered, &faults)
        .unwrap();
    let rendered = rendered.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    let expected = include_str!("faults.txt");
    if rendered.trim() != expected.trim() {
        println!("{rendered}");
    }
    assert_eq!(rendered.trim(), expected.trim());
    let places: Vec<_> =
        faults.all().iter().map(|fault| fault.place(text).map(|place| (place.line, place.column))).collect();
    assert_eq!(
        places,
        [(2, 1), (3, 18), (6, 9), (6, 25), (7, 8), (9, 2), (13, 13), (14, 13), (17, 10)].map(Some)
    );
}

#[test]
fn beyond_loopback_tls_is_required() {
    for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1"] {
        let found = faults(&format!("[listen]\ngrpc = [\"{address}\"]"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("beyond loopback") && found[0].contains("[tls]"), "{found:?}");
    }
    for address in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(parse(&format!("[listen]\ngrpc = [\"{address}\"]")).is_ok(), "{address}");
    }
    let with_tls = "[listen]\ngrpc = [\"0.0.0.0:1\"]\n[tls]\ncert = \"c\"\nkey = \"k\"\nclient_ca = \"a\"";
    assert!(parse(with_tls).is_ok());
}

#[test]
fn an_incomplete_tls_section_names_each_missing_key() {
    let found = faults("[tls]\ncert = 7");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().any(|fault| fault.starts_with("`tls.cert` has the wrong type")));
    assert!(found.iter().any(|fault| fault.starts_with("`tls.key` is missing")));
    assert!(found.iter().any(|fault| fault.starts_with("`tls.client_ca` is missing")));
}

#[test]
fn nothing_to_listen_on_is_a_fault() {
    assert!(faults("[listen]\ngrpc = []")[0].starts_with("there is nothing to listen on"));
    assert!(parse("[listen]\ngrpc = []\nuds = \"/tmp/x.sock\"").is_ok());
}

#[test]
fn addresses_that_collide_are_faults() {
    assert!(faults("[listen]\ngrpc = [\"127.0.0.1:1\", \"127.0.0.1:1\"]")[0].contains("twice"));
    assert!(faults("[listen]\nhttp = \"127.0.0.1:7411\"")[0].contains("different ports"));
    assert!(parse("[listen]\ngrpc = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nhttp = \"127.0.0.1:0\"").is_ok());
    assert_eq!(parse("[listen]\nhttp = \"\"").unwrap().listen.http, None);
}

#[test]
fn a_key_in_the_wrong_section_is_sent_home() {
    assert!(faults("[bundle]\nqueue_max = 7")[0].contains("belongs below [audit]"));
    assert!(faults("queue_max = 7")[0].contains("belongs below [audit]"));
    assert!(faults("listen = 7")[0].contains("[listen]"));
}

#[test]
fn broken_syntax_does_not_hide_other_faults() {
    let found = faults("[bundle]\nsource = \n[audit]\nqueue_maxx = 7");
    assert!(found.iter().any(|fault| fault.starts_with("this is not TOML")), "{found:?}");
    assert!(found.iter().any(|fault| fault.contains("did you mean `queue_max`?")), "{found:?}");
}

#[test]
fn numbers_in_every_notation_are_read_and_bounded() {
    assert_eq!(parse("[audit]\nqueue_max = 0x1_00").unwrap().audit.queue_max, 256);
    for bad in ["-1", "0", "16777217", "99999999999999999999999999", "1.5"] {
        let found = faults(&format!("[audit]\nqueue_max = {bad}"));
        assert_eq!(found.len(), 1, "{bad}: {found:?}");
    }
}

#[test]
fn flags_override_the_file_and_their_faults_are_reported_beside_its() {
    let flags = Overrides {
        bundle: Some("other".into()),
        store: Some("kept".into()),
        trust: None,
        allow_unsigned: true,
        grpc: vec!["127.0.0.1:9".into()],
        uds: Some("x.sock".into()),
        http: Some("127.0.0.1:10".into()),
        workers: Some(3),
        audit_dir: Some("records".into()),
        state_dir: Some("known".into()),
        log_format: Some("json".into()),
        log_filter: Some("debug".into()),
    };
    let text = "[bundle]\nsource = \"b\"\n[workers]\ncount = 1";
    let config = Config::parse("cardea.toml", text, Path::new("/etc/cardea"), &flags).unwrap();
    assert_eq!(config.bundle.source, Source::Local("other".into()));
    assert!(config.bundle.allow_unsigned);
    assert_eq!(config.bundle.store, PathBuf::from("kept"));
    assert_eq!(config.listen.grpc, ["127.0.0.1:9".parse().unwrap()]);
    assert_eq!(config.listen.uds, Some("x.sock".into()));
    assert_eq!(config.listen.http, Some("127.0.0.1:10".parse().unwrap()));
    assert_eq!((config.workers.count, config.workers.threads()), (3, 3));
    assert_eq!(config.audit.dir, PathBuf::from("records"));
    assert_eq!(config.log, Log { format: LogFormat::Json, filter: "debug".into() });

    let flags = Overrides {
        grpc: vec!["0.0.0.0:9".into(), "x".into()],
        workers: Some(1000),
        log_format: Some("jso".into()),
        ..Overrides::default()
    };
    let faults = Config::parse("cardea.toml", "[audit]\nwhen_full = 1", Path::new(""), &flags).unwrap_err();
    assert_eq!(faults.all().len(), 5, "{:?}", faults.all());
}

#[test]
fn a_source_is_a_path_or_a_place_on_the_network() {
    let source = |text: &str| {
        let text = format!("[bundle]\nsource = \"{text}\"");
        Config::parse("c", &text, Path::new("/etc/cardea"), &Overrides::default()).unwrap().bundle.source
    };
    assert_eq!(source("b.cardea"), Source::Local("/etc/cardea/b.cardea".into()));
    assert_eq!(source("/b"), Source::Local("/b".into()));
    assert_eq!(source("https://h/b"), Source::Remote("https://h/b".into()));
    assert_eq!(source("oci://h/b:1"), Source::Remote("oci://h/b:1".into()));
    assert_eq!(source("oci+http://h/b:1"), Source::Remote("oci+http://h/b:1".into()));
}

#[test]
fn signatures_are_asked_for_or_they_are_not() {
    let both = "[bundle]\ntrust = \"trust.toml\"\nallow_unsigned = true";
    let faults = Config::parse("c", both, Path::new(""), &Overrides::default()).unwrap_err();
    assert!(faults.all()[0].to_string().contains("are both set"), "{faults}");
}

#[test]
fn paths_are_relative_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cardea.toml");
    std::fs::write(&file, "[audit]\ndir = \"/var/records\"").unwrap();
    let config = Config::load(&file, &Overrides::default()).unwrap();
    assert_eq!(config.bundle.source, Source::Local(dir.path().join("bundle")));
    assert_eq!(config.bundle.store, dir.path().join("bundle-store"));
    assert_eq!(config.audit.dir, PathBuf::from("/var/records"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str| Config::load(&dir.path().join(name), &Overrides::default()).unwrap_err();
    assert!(load("missing.toml").all()[0].to_string().contains("cannot be read"));
    std::fs::write(dir.path().join("latin1.toml"), b"[log]\nfilter = \"\xe9\"").unwrap();
    assert!(load("latin1.toml").all()[0].to_string().contains("not UTF-8"));
    std::fs::write(dir.path().join("big.toml"), vec![b'\n'; 300 * 1024]).unwrap();
    assert!(load("big.toml").all()[0].to_string().contains("larger than"));
}
