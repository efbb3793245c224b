//! What an enforcement point relies on without a service: only an explicit allow opens, and bad endpoints fail.

use std::error::Error as _;

use super::*;

fn verdict(decision: i32, obligations: &[&str]) -> v1::Verdict {
    let obligations = obligations.iter().map(|&text| text.to_owned()).collect();
    v1::Verdict { decision, obligations, ..v1::Verdict::default() }
}

#[test]
fn only_an_explicit_allow_opens() {
    assert!(verdict(v1::Decision::Allow.into(), &[]).is_allowed());
    for closed in [v1::Decision::Unspecified, v1::Decision::StepUp, v1::Decision::Deny] {
        assert!(!verdict(closed.into(), &[]).is_allowed(), "{closed:?}");
        assert!(!verdict(closed.into(), &[]).is_allowed_with(|_| true), "{closed:?}");
    }
    assert!(!v1::Verdict::default().is_allowed());
}

#[test]
fn a_decision_of_a_newer_service_does_not_open() {
    for unknown in [-1, 4, 99, i32::MAX] {
        assert!(!verdict(unknown, &[]).is_allowed_with(|_| true), "{unknown}");
    }
}

#[test]
fn an_allow_whose_obligations_cannot_be_carried_out_does_not_open() {
    let obliged = verdict(v1::Decision::Allow.into(), &["watermark", "notify"]);
    assert!(!obliged.is_allowed());
    assert!(!obliged.is_allowed_with(|obligation| obligation == "watermark"));
    assert!(obliged.is_allowed_with(|obligation| ["watermark", "notify"].contains(&obligation)));
}

#[test]
fn requirements_are_told_for_a_step_up_only() {
    let mut asked = verdict(v1::Decision::StepUp.into(), &[]);
    asked.step_up.push(v1::StepUpRequirement { name: "fresh_login".into(), ..Default::default() });
    assert_eq!(asked.step_up_requirements().map(<[_]>::len), Some(1));
    asked.decision = v1::Decision::Deny.into();
    assert!(asked.step_up_requirements().is_none());
}

#[tokio::test]
async fn addresses_and_tls_settings_that_do_not_go_together_are_refused() {
    let tls = || Tls::new("no certificate");
    for (endpoint, says) in [
        (Endpoint::new("127.0.0.1:7411"), "has no known scheme"),
        (Endpoint::new("https://127.0.0.1:7411"), "needs TLS settings"),
        (Endpoint::new("http://127.0.0.1:7411").with_tls(tls()), "only `https://` uses"),
        (Endpoint::new("unix:/run/x.sock").with_tls(tls()), "only `https://` uses"),
    ] {
        let error = Client::connect(endpoint).await.expect_err(says);
        assert!(matches!(&error, Error::Endpoint { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn nobody_there_is_an_error_with_its_cause() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [format!("http://{free}"), "unix:/nonexistent/cardea.sock".to_owned()] {
        let error = Client::connect(address.as_str()).await.expect_err(&address);
        assert!(error.to_string().contains(&address), "{error}");
        assert!(error.source().is_some());
    }
}

#[test]
fn debug_output_shows_no_key() {
    let tls = Tls::new("authority").with_identity("chain", "-----PRIVATE-----");
    let shown = format!("{:?}", Endpoint::new("https://h").with_tls(tls));
    assert!(!shown.contains("PRIVATE") && !shown.contains("80, 82, 73"), "{shown}");
}
