//! What is an address of a bundle, and what is not.

use proptest::prelude::*;

use super::*;

const HEX: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn parse(text: &str) -> Result<Location, LocationError> {
    text.parse()
}

fn oci(text: &str) -> OciReference {
    match parse(text).unwrap() {
        Location::Oci(reference) => reference,
        Location::Https(url) => panic!("{url} is no reference"),
    }
}

#[test]
fn a_reference_is_taken_apart() {
    let reference = oci(&format!("oci://registry.example:5000/team/web:v1.2@sha256:{HEX}"));
    assert_eq!(reference.registry(), "registry.example:5000");
    assert_eq!(reference.repository(), "team/web");
    assert_eq!(reference.tag(), Some("v1.2"));
    assert_eq!(reference.digest().unwrap().to_string(), format!("sha256:{HEX}"));
    assert_eq!(oci("oci://r.example/web").tag(), Some("latest"));
    assert_eq!(oci(&format!("oci://r.example/web@sha256:{HEX}")).tag(), None);
    assert_eq!(oci("oci+http://[::1]:5000/web").registry(), "[::1]:5000");
}

#[test]
fn plain_text_is_for_loopback_only_and_the_refusal_says_why() {
    for fine in ["http://127.0.0.1:8080/b", "http://localhost/b", "http://[::1]/b", "oci+http://127.0.0.9/b"]
    {
        assert!(parse(fine).is_ok(), "{fine}");
    }
    for bad in [
        "http://example.com/b",
        "http://10.0.0.1/b",
        "http://127.0.0.1.example.com/b",
        "http://localhost.example/b",
        "http://0.0.0.0/b",
        "oci+http://registry.example/b",
        "oci+http://128.0.0.1:5000/b",
    ] {
        let refused = parse(bad).unwrap_err();
        assert!(matches!(refused, LocationError::PlainText(..)), "{bad}: {refused}");
        assert!(refused.to_string().contains("loopback"), "{refused}");
    }
}

#[test]
fn secrets_in_an_address_are_refused_and_not_repeated() {
    for bad in [
        "https://user:geheim@host/b",
        "https://host/b?sig=geheim",
        "https://host/b#geheim",
        "oci://u:geheim@host/b",
        "oci://host/b?geheim",
    ] {
        let refused = parse(bad).unwrap_err().to_string();
        assert!(!refused.contains("geheim"), "{refused}");
    }
}

#[test]
fn what_is_no_address_is_refused() {
    for bad in [
        "",
        "bundle.cardea",
        "ftp://host/b",
        "https://",
        "https://host",
        "https://host/",
        "https://host/dir/",
        "https://ho st/b",
        "https://host\\evil/b",
        "https://höst/b",
        "https://host:99999/b",
        "oci://host",
        "oci://host/",
        "oci:///b",
        "oci://host:port/b",
        "oci://host/Upper",
        "oci://host/a//b",
        "oci://host/../b",
        "oci://host/a.-b",
        "oci://host/a___b",
        "oci://host/b:",
        "oci://host/b:.tag",
        "oci://host/b:a:b",
        "oci://host/b@sha256:12",
        "oci://host/b@md5:12",
    ] {
        assert!(parse(bad).is_err(), "{bad} → {:?}", parse(bad));
    }
    let upper = format!("oci://host/b@sha256:{}", HEX.to_uppercase());
    assert!(matches!(parse(&upper), Err(LocationError::Digest(_))));
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser_and_what_is_shown_parses_to_the_same(text in "(https|http|oci|oci\\+http)://.{0,60}") {
        if let Ok(location) = parse(&text) {
            prop_assert_eq!(parse(&location.to_string()), Ok(location));
        }
    }

    #[test]
    fn every_well_formed_reference_is_read(
        host in "[a-z]{1,10}(\\.[a-z]{1,5})?",
        port in proptest::option::of(1_u16..),
        repository in "[a-z0-9]{1,8}((\\.|_|__|-{1,3}|/)[a-z0-9]{1,8}){0,4}",
        tag in proptest::option::of("[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"),
        pinned in any::<bool>(),
    ) {
        // 443 is what `https` means anyway; it is not repeated.
        let port = port.filter(|port| *port != 443).map(|port| format!(":{port}")).unwrap_or_default();
        let registry = format!("{host}{port}");
        let mut text = format!("oci://{registry}/{repository}");
        if let Some(tag) = &tag {
            text.push_str(&format!(":{tag}"));
        }
        if pinned {
            text.push_str(&format!("@sha256:{HEX}"));
        }
        let reference = oci(&text);
        prop_assert_eq!(reference.registry(), &registry);
        prop_assert_eq!(reference.repository(), &repository);
        prop_assert_eq!(reference.digest().is_some(), pinned);
        prop_assert!(reference.tag().is_some() || pinned);
    }

    #[test]
    fn plain_text_never_leaves_the_machine(text in "(http|oci\\+http)://[a-z0-9.:\\[\\]]{1,24}/b") {
        let url = match parse(&text) {
            Ok(Location::Https(url)) => url.url().clone(),
            Ok(Location::Oci(reference)) => Url::parse(&format!("http://{}/", reference.registry())).unwrap(),
            Err(_) => return Ok(()),
        };
        let host = url.host_str().unwrap();
        prop_assert!(host == "localhost" || host == "[::1]" || host.starts_with("127."), "{}", host);
    }
}
