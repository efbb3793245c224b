//! The demo against a real service: every story comes out as told, twice in a row, and every attempt is recorded.
#![expect(
    clippy::unwrap_used,
    reason = "test code; clippy allows it in test functions only, not in what they call"
)]

use cardea_client::Client;
use cardea_client::v1::RecordFilter;
use cardea_client::v1::RecordKind;
use cardea_server::cli::demo::{Unpacked, play};
use cardea_server::config::{Config, Overrides};
use cardea_server::serve::Service;

fn service(unpacked: &Unpacked) -> Service {
    let overrides = Overrides {
        bundle: Some(unpacked.bundle().display().to_string()),
        store: Some(unpacked.root().join("store")),
        allow_unsigned: true,
        grpc: vec!["127.0.0.1:0".to_owned()],
        http: Some("127.0.0.1:0".to_owned()),
        audit_dir: Some(unpacked.root().join("audit")),
        state_dir: Some(unpacked.root().join("state")),
        ..Overrides::default()
    };
    Service::prepare(Config::from_flags(&overrides).unwrap()).unwrap()
}

#[tokio::test]
async fn the_stories_come_out_as_told_over_the_wire_again_and_again() {
    let unpacked = Unpacked::new().unwrap();
    let service = service(&unpacked);
    let (address, shutdown) = (service.grpc[0], service.shutdown.clone());
    let playing = async {
        let mut client = Client::connect(format!("http://{address}")).await.unwrap();
        let mut asked = 0;
        for _ in 0..2 {
            let mut out = Vec::new();
            let outcome = play(&mut client, &mut out, false).await.unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(outcome.is_as_told(), "{text}");
            assert!(outcome.allowed > 0 && outcome.stepped_up > 0 && outcome.denied > 0, "{outcome:?}");
            assert!(!text.contains('\x1b'), "{text}");
            asked += outcome.allowed + outcome.stepped_up + outcome.denied;
        }
        let decisions = RecordFilter { kinds: vec![RecordKind::Decision.into()], ..RecordFilter::default() };
        let mut records = client.audit_from(1, Some(decisions)).await.unwrap();
        let mut seen = 0;
        while seen < asked {
            seen += records.receive().await.unwrap().expect("the stream goes on").len();
        }
        assert_eq!(seen, asked);
        shutdown.drain();
    };
    let (served, ()) = tokio::join!(service.run(), playing);
    served.unwrap();
}
