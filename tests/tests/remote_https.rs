//! Bundles on a real HTTPS server, and on one that behaves badly on purpose.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use cardea_server::remote::{Options, Taken};
use cardea_tests::certs::{Authority, Files};
use cardea_tests::nginx::{Nginx, TOKEN};
use cardea_tests::remote::{Polling, cardea, packed, quick, write};
use cardea_tests::scripted::{Scripted, Step};
use cardea_tests::wait;
use tempfile::TempDir;

struct Place {
    dir: TempDir,
    authority: Authority,
    files: Files,
}

impl Place {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new("servers")?;
        let files = authority.write(dir.path(), &authority.server()?)?;
        Ok(Self { dir, authority, files })
    }

    async fn nginx(&self) -> Result<Nginx> {
        Nginx::start(&self.files).await
    }

    fn scripted(&self, script: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Result<Scripted> {
        Scripted::start(self.authority.server_config(&self.authority.server()?)?, script)
    }

    /// `cardea bundle pull` into `out`.
    async fn pull(&self, source: &str, more: &[&str]) -> Result<cardea_tests::process::Finished> {
        let (ca, out) = (self.files.ca.display().to_string(), self.out());
        cardea(&[&["pull", source, "--ca", &ca, "-o", &out][..], more].concat()).await
    }

    fn out(&self) -> String {
        self.dir.path().join("out.cardea").display().to_string()
    }

    fn quick(&self) -> Options {
        quick(Some(&self.files.ca))
    }
}

fn head(status: &str, headers: &str) -> Step {
    Step::Send(format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n").into_bytes())
}

fn whole(headers: &str, body: &[u8]) -> Vec<Step> {
    vec![head("200 OK", &format!("{headers}content-length: {}\r\n", body.len())), Step::Send(body.to_vec())]
}

/// Puts a file in its place at once.
static PUBLISHED: AtomicU64 = AtomicU64::new(0);

fn publish(nginx: &Nginx, name: &str, bytes: &[u8]) -> Result<()> {
    let beside = nginx.file(".beside");
    fs::write(&beside, bytes)?;
    // nginx makes an ETag of length and second: each content gets a second of its own.
    let second = PUBLISHED.fetch_add(1, Ordering::Relaxed);
    let at = std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second);
    fs::File::options().write(true).open(&beside)?.set_modified(at)?;
    Ok(fs::rename(beside, nginx.file(name))?)
}

#[tokio::test]
async fn what_is_pushed_is_pulled_and_replaced_only_when_told() -> Result<()> {
    let place = Place::new()?;
    let nginx = place.nginx().await?;
    let ca = place.files.ca.display().to_string();
    let location = nginx.location("policy/web.cardea");
    let (one, two) = (write(place.dir.path(), 1)?, write(place.dir.path(), 2)?);
    let (one, two) = (one.display().to_string(), two.display().to_string());
    let pushed = cardea(&["push", &one, &location, "--ca", &ca]).await?;
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    assert_eq!(place.pull(&location, &[]).await?.code, Some(0));
    assert_eq!(fs::read(place.out())?, packed(1)?);

    let refused = cardea(&["push", &two, &location, "--ca", &ca]).await?;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("exists already") && refused.stderr.contains("--overwrite"),
        "{refused:?}"
    );
    assert_eq!(fs::read(nginx.file("policy/web.cardea"))?, packed(1)?);
    let replaced = cardea(&["push", &two, &location, "--ca", &ca, "--overwrite"]).await?;
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    assert_eq!(place.pull(&location, &[]).await?.code, Some(0));
    assert_eq!(fs::read(place.out())?, packed(2)?);
    Ok(())
}

#[tokio::test]
async fn a_change_between_look_and_put_is_noticed_by_a_server_that_honours_conditions() -> Result<()> {
    let place = Place::new()?;
    let server = place.scripted(|head_of_request| {
        if head_of_request.starts_with("head") {
            vec![head("200 OK", "etag: \"seen\"\r\ncontent-length: 5\r\n")]
        } else {
            vec![head("412 Precondition Failed", "content-length: 0\r\n")]
        }
    })?;
    let file = write(place.dir.path(), 1)?.display().to_string();
    let ca = place.files.ca.display().to_string();
    let pushed = cardea(&["push", &file, &server.location("b"), "--ca", &ca, "--overwrite"]).await?;
    assert!(pushed.stderr.contains("changed by somebody else"), "{pushed:?}");
    let put = server.heads().pop().context("a PUT")?;
    assert!(put.starts_with("put ") && put.contains("if-match: \"seen\""), "{put}");
    Ok(())
}

#[tokio::test]
async fn each_mistake_names_its_remedy_and_writes_nothing() -> Result<()> {
    let place = Place::new()?;
    let nginx = place.nginx().await?;
    fs::write(nginx.file("web.cardea"), packed(1)?)?;
    fs::write(nginx.file("page.html"), "<html>log in</html>")?;
    let untrusted = cardea(&["pull", &nginx.location("web.cardea"), "-o", &place.out()]).await?;
    assert_eq!(untrusted.code, Some(2), "{untrusted:?}");
    assert!(untrusted.stderr.contains("TLS") && untrusted.stderr.contains("--ca"), "{untrusted:?}");
    for (path, wanted) in [
        ("none.cardea", "does not exist"),
        ("token/web.cardea", "--token-file"),
        ("client/web.cardea", "(403)"),
        ("elsewhere/web.cardea", "which is another server"),
        ("loop/web.cardea", "more than 3 in a row"),
        ("busy/web.cardea", "answers 503"),
        ("page.html", "does not begin with a zstd frame"),
    ] {
        let refused = place.pull(&nginx.location(path), &[]).await?;
        assert_eq!(refused.code, Some(2), "{path}: {refused:?}");
        assert!(refused.stderr.contains(wanted), "{path}: {}", refused.stderr);
        assert!(!refused.stderr.contains("geheim"), "{}", refused.stderr);
    }
    assert!(!fs::exists(place.out())?);
    let loops = nginx.requests()?.iter().filter(|line| line.contains("/loop/")).count();
    assert_eq!(loops, 4, "the first and three redirects");
    Ok(())
}

#[tokio::test]
async fn tokens_client_certificates_and_redirects_on_the_server_work() -> Result<()> {
    let place = Place::new()?;
    let nginx = place.nginx().await?;
    fs::write(nginx.file("web.cardea"), packed(1)?)?;
    let token = place.dir.path().join("token");
    fs::write(&token, format!("{TOKEN}\n"))?;
    let token = token.display().to_string();
    let found = place.pull(&nginx.location("token/web.cardea"), &["--token-file", &token]).await?;
    assert_eq!(found.code, Some(0), "{found:?}");

    let mine = place.dir.path().join("client");
    fs::create_dir(&mine)?;
    let client = place.authority.write(&mine, &place.authority.client("spiffe://example.org/node")?)?;
    let (cert, key) = (client.cert.display().to_string(), client.key.display().to_string());
    let shown = ["--client-cert", &cert, "--client-key", &key];
    let found = place.pull(&nginx.location("client/web.cardea"), &shown).await?;
    assert_eq!(found.code, Some(0), "{found:?}");

    let found = place.pull(&nginx.location("renamed/web.cardea"), &[]).await?;
    assert_eq!(found.code, Some(0), "{found:?}");
    assert_eq!(fs::read(place.out())?, packed(1)?);
    Ok(())
}

#[tokio::test]
async fn broken_answers_are_refused_within_their_bounds() -> Result<()> {
    let place = Place::new()?;
    let server = place.scripted(|head_of_request| {
        let path = head_of_request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/truncated" => vec![head("200 OK", "content-length: 1000\r\n"), Step::Send(vec![b'x'; 10])],
            "/cut-chunk" => {
                vec![head("200 OK", "transfer-encoding: chunked\r\n"), Step::Send(b"64\r\nabc".to_vec())]
            }
            "/endless-chunks" => {
                let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
                vec![head("200 OK", "transfer-encoding: chunked\r\n"), Step::Flood(chunk)]
            }
            "/ten-gigabytes" => {
                vec![head("200 OK", "content-length: 10737418240\r\n"), Step::Flood(vec![0; 65536])]
            }
            "/until-close" => vec![head("200 OK", ""), Step::Send(b"who knows whether this is all".to_vec())],
            "/drip" => {
                vec![head("200 OK", "content-length: 100000\r\n"), Step::Drip(Duration::from_millis(50))]
            }
            "/not-modified" => vec![head("304 Not Modified", "")],
            "/partial" => vec![head("206 Partial Content", "content-length: 1\r\n"), Step::Send(vec![b'x'])],
            "/down" => vec![head("302 Found", "location: http://127.0.0.1:9/b\r\ncontent-length: 0\r\n")],
            _ => Vec::new(),
        }
    })?;
    let cases = [
        ("truncated", "cut off after 10 bytes of 1000"),
        ("cut-chunk", "cut off after"),
        ("endless-chunks", "is larger than 67108864 bytes"),
        ("ten-gigabytes", "is larger than 67108864 bytes"),
        ("until-close", "a cut would not show"),
        ("drip", "took longer than 2s to send it all"),
        ("not-modified", "304 to a request without a condition"),
        ("partial", "206"),
        ("down", "which is another server"),
        ("nothing", "cannot be reached"),
    ];
    for (path, wanted) in cases {
        let seconds = if path == "drip" { "2" } else { "60" };
        let refused = place.pull(&server.location(path), &["--timeout", seconds]).await?;
        assert_eq!(refused.code, Some(2), "{path}: {refused:?}");
        assert!(refused.stderr.contains(wanted), "{path}: {}", refused.stderr);
    }
    assert!(!fs::exists(place.out())?);
    Ok(())
}

#[tokio::test]
async fn what_is_not_modified_is_not_sent_again() -> Result<()> {
    let place = Place::new()?;
    let nginx = place.nginx().await?;
    publish(&nginx, "web.cardea", &packed(1)?)?;
    let polling = Polling::start(&nginx.location("web.cardea"), place.quick(), Taken::Accepted)?;
    assert_eq!(polling.offered(1).await?.bytes, packed(1)?);
    wait::until("three looks", async || Ok((nginx.requests()?.len() >= 4).then_some(()))).await?;
    for line in nginx.requests()?.iter().skip(1) {
        assert_eq!(line, "GET /web.cardea 304 0");
    }
    publish(&nginx, "web.cardea", &packed(2)?)?;
    let second = polling.offered(2).await?;
    assert_eq!(second.bytes, packed(2)?);
    assert!(second.origin.starts_with(&nginx.location("web.cardea \"")), "with its ETag: {}", second.origin);
    let state = polling.status.read();
    assert!(state.contact_ms.is_some() && state.error.is_none() && state.failures == 0, "{state:?}");
    Ok(())
}

#[tokio::test]
async fn what_was_refused_is_not_downloaded_again() -> Result<()> {
    let place = Place::new()?;
    let nginx = place.nginx().await?;
    publish(&nginx, "web.cardea", b"not a bundle at all")?;
    let polling = Polling::start(&nginx.location("web.cardea"), place.quick(), Taken::Refused)?;
    polling.offered(1).await?;
    wait::until("more looks", async || Ok((nginx.requests()?.len() >= 5).then_some(()))).await?;
    assert_eq!(polling.offers().len(), 1);
    let bodies = nginx.requests()?.iter().filter(|line| line.contains(" 200 ")).count();
    assert_eq!(bodies, 1);
    let (origin, taken) = polling.status.read().offered.context("an offer")?;
    assert_eq!(taken, Taken::Refused, "{origin}");
    Ok(())
}

#[tokio::test]
async fn a_source_that_was_down_is_found_again() -> Result<()> {
    let place = Place::new()?;
    let mut nginx = place.nginx().await?;
    publish(&nginx, "web.cardea", &packed(1)?)?;
    let polling = Polling::start(&nginx.location("web.cardea"), place.quick(), Taken::Accepted)?;
    polling.offered(1).await?;
    nginx.stop()?;
    let state = wait::until("two failures", async || {
        let state = polling.status.read();
        Ok((state.failures >= 2).then_some(state))
    })
    .await?;
    let (_, why) = state.error.context("an error")?;
    assert!(why.contains("cannot be reached"), "{why}");
    publish(&nginx, "web.cardea", &packed(2)?)?;
    nginx.restart().await?;
    assert_eq!(polling.offered(2).await?.bytes, packed(2)?);
    assert_eq!(polling.status.read().failures, 0);
    Ok(())
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is() -> Result<()> {
    let place = Place::new()?;
    let nginx = place.nginx().await?;
    let polling = Polling::start(&nginx.location("busy/web.cardea"), place.quick(), Taken::Accepted)?;
    wait::until("the answer", async || Ok((polling.status.read().failures == 1).then_some(()))).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        nginx.requests()?.len(),
        1,
        "it said 7 seconds; back-off alone would have asked again after 1"
    );
    Ok(())
}

#[tokio::test]
async fn a_long_poll_brings_a_change_at_once() -> Result<()> {
    let place = Place::new()?;
    let changed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&changed);
    let (one, two) = (packed(1)?, packed(2)?);
    let server = place.scripted(move |request| {
        let applied = "preference-applied: wait\r\n";
        if !request.contains("if-none-match: \"1\"") {
            let (etag, body) = if seen.load(Ordering::Acquire) { (2, &two) } else { (1, &one) };
            return whole(&format!("{applied}etag: \"{etag}\"\r\n"), body);
        }
        assert!(request.contains("prefer: wait=20"), "{request}");
        let mut steps = vec![Step::Await(Arc::clone(&seen), Duration::from_secs(20))];
        steps.extend(whole(&format!("{applied}etag: \"2\"\r\n"), &two));
        steps
    })?;
    // With an interval that would be far too long.
    let slow = Duration::from_secs(3600);
    let options = Options { wait: Some(Duration::from_secs(20)), poll_interval: slow, ..place.quick() };
    let polling = Polling::start(&server.location("web.cardea"), options, Taken::Accepted)?;
    polling.offered(1).await?;
    let waiting = wait::until("the long poll", async || {
        Ok(server.heads().iter().any(|head| head.contains("prefer: wait")).then_some(()))
    });
    waiting.await?;
    #[expect(clippy::disallowed_methods, reason = "a test measures how long it takes")]
    let started = Instant::now();
    changed.store(true, Ordering::Release);
    assert_eq!(polling.offered(2).await?.bytes, packed(2)?);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_server_that_only_says_that_it_waits_is_not_hammered() -> Result<()> {
    let place = Place::new()?;
    let body = packed(1)?;
    let server = place.scripted(move |request| {
        if request.contains("if-none-match") {
            vec![head("304 Not Modified", "preference-applied: wait\r\netag: \"1\"\r\n")]
        } else {
            whole("etag: \"1\"\r\npreference-applied: wait\r\n", &body)
        }
    })?;
    let interval = Duration::from_millis(700);
    let options = Options { wait: Some(Duration::from_secs(20)), poll_interval: interval, ..place.quick() };
    let polling = Polling::start(&server.location("web.cardea"), options, Taken::Accepted)?;
    polling.offered(1).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked = server.heads().len();
    assert!((3..=6).contains(&asked), "{asked} requests in 3 s at an interval of 0.7 s");
    Ok(())
}

#[tokio::test]
async fn a_server_without_etags_is_compared_by_content() -> Result<()> {
    let place = Place::new()?;
    let (one, two) = (packed(1)?, packed(2)?);
    let changed = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&changed);
    let server =
        place.scripted(move |_| whole("", if seen.load(Ordering::Acquire) { &two } else { &one }))?;
    let polling = Polling::start(&server.location("web.cardea"), place.quick(), Taken::Accepted)?;
    polling.offered(1).await?;
    wait::until("more looks", async || Ok((server.heads().len() >= 4).then_some(()))).await?;
    assert_eq!(polling.offers().len(), 1, "the same content is offered once");
    changed.store(true, Ordering::Release);
    assert_eq!(polling.offered(2).await?.bytes, packed(2)?);
    Ok(())
}
