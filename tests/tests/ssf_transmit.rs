//! Signals out: one service tells another, by push and by poll, also when either of them was killed in between.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, Result, ensure};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PUSHED: &str = "the-token-of-the-one-that-is-told";
const FETCHES: &str = "the-token-of-the-one-that-fetches";

/// Two addresses that each of two services finds the other at.
struct Place {
    dir: TempDir,
    transmits: SocketAddr,
    receives: SocketAddr,
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Place {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        for (name, content) in
            [("pushed", PUSHED), ("fetches", FETCHES), ("pushes", "Bearer from-the-transmitter")]
        {
            fs::write(dir.path().join(name), content)?;
        }
        Ok(Self { dir, transmits: free()?, receives: free()? })
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn transmitter(&self) -> Options {
        let (at, to) = (self.transmits, self.receives);
        Options::default().config(format!(
            r#"
[ssf]
listen = "{at}"
[ssf.transmitter]
issuer = "http://{at}/"
min_verification_interval_s = 0
[[ssf.transmitter.receiver]]
name = "pushed"
token_file = "{}"
audience = "https://pushed.example/"
push_hosts = ["{to}"]
[[ssf.transmitter.receiver]]
name = "fetches"
token_file = "{}"
audience = "https://fetches.example/"
"#,
            self.file("pushed"),
            self.file("fetches"),
        ))
    }

    /// A service that listens to the transmitter twice: it is told, and it fetches.
    fn receiver(&self) -> Options {
        let (from, at) = (self.transmits, self.receives);
        let subject = |name: &str| {
            format!(
                "[[ssf.receiver.{name}.subject]]\nformat = \"iss_sub\"\nentity = \"Agent\"\nid = \"{{sub}}\"\n"
            )
        };
        Options::default().config(format!(
            r#"
[ssf]
listen = "{at}"
[ssf.receiver.pushed]
issuer = "http://{from}/"
audience = ["https://pushed.example/"]
authorization_file = "{}"
stream = "keep"
events = ["session-revoked", "risk-level-change"]
endpoint_url = "http://{at}/ssf/push/pushed"
token_file = "{}"
{}
[ssf.receiver.fetches]
issuer = "http://{from}/"
audience = ["https://fetches.example/"]
delivery = "poll"
stream = "keep"
token_file = "{}"
{}
"#,
            self.file("pushes"),
            self.file("pushed"),
            subject("pushed"),
            self.file("fetches"),
            subject("fetches"),
        ))
    }

    async fn ask(&self, method: &str, path: &str, token: &str, body: &Value) -> Result<(u16, Value)> {
        let mut socket = TcpStream::connect(self.transmits).await?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        let status = answer.split(' ').nth(1).context("no status")?.parse()?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, if body.is_empty() { Value::Null } else { serde_json::from_str(body)? }))
    }

    /// The one stream of a receiver, once it is there.
    async fn stream(&self, token: &str) -> Result<Value> {
        wait::until("the stream is made", async || {
            let (_, streams) = self.ask("GET", "/ssf/streams", token, &Value::Null).await?;
            Ok(streams.get(0).cloned())
        })
        .await
    }
}

/// Waits until a counter or gauge of a service has at least this value.
async fn metric(cardea: &Cardea, name: &str, least: f64) -> Result<f64> {
    wait::until(&format!("`{name}` is {least}"), async || {
        let page = cardea.page("/metrics").await?.body;
        let shown = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        Ok(shown.filter(|shown| *shown >= least))
    })
    .await
}

#[tokio::test]
async fn one_service_tells_another_by_push_and_by_poll() -> Result<()> {
    let place = Place::new()?;
    let transmitter = Cardea::start_with(place.transmitter()).await?;
    let receiver = Cardea::start_with(place.receiver()).await?;
    // The receiver makes its streams and has them verified by itself.
    for (name, token, method) in
        [("pushed", PUSHED, "urn:ietf:rfc:8935"), ("fetches", FETCHES, "urn:ietf:rfc:8936")]
    {
        let stream = place.stream(token).await?;
        ensure!(stream["delivery"]["method"] == method, "{stream}");
        metric(&receiver, &format!("cardea_ssf_received_total{{receiver=\"{name}\"}}"), 1.0).await?;
        metric(&receiver, &format!("cardea_ssf_stream_enabled{{receiver=\"{name}\"}}"), 1.0).await?;
    }
    metric(&transmitter, "cardea_ssf_transmit_sent_total", 2.0).await?;
    metric(&transmitter, "cardea_ssf_transmit_streams", 2.0).await?;
    Ok(())
}

#[tokio::test]
async fn what_waits_survives_a_kill_of_the_transmitter_and_reaches_the_receiver_when_it_is_back() -> Result<()>
{
    let place = Place::new()?;
    let mut transmitter = Cardea::start_with(place.transmitter()).await?;
    let mut receiver = Cardea::start_with(place.receiver()).await?;
    let received = "cardea_ssf_received_total{receiver=\"pushed\"}";
    let stream = place.stream(PUSHED).await?;
    metric(&receiver, received, 1.0).await?;
    receiver.process.kill()?;
    // Answered means durable; nobody is there to take them.
    for _ in 0..3 {
        let verify = json!({ "stream_id": stream["stream_id"] });
        let (status, body) = place.ask("POST", "/ssf/verify", PUSHED, &verify).await?;
        ensure!(status == 204, "{status} {body}");
    }
    transmitter.process.kill()?;
    transmitter.start_again().await?;
    metric(&transmitter, "cardea_ssf_transmit_retried_total", 1.0).await?;
    receiver.start_again().await?;
    metric(&receiver, received, 3.0).await?;
    let again = place.stream(PUSHED).await?;
    ensure!(again["stream_id"] == stream["stream_id"], "the receiver found its stream again");
    let keys = place.ask("GET", "/ssf/jwks.json", PUSHED, &Value::Null).await?.1;
    ensure!(
        keys["keys"].as_array().is_some_and(|keys| keys.len() == 1),
        "the key is the one from before: {keys}"
    );
    Ok(())
}
