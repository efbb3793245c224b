//! A node whose bundles come over the network: a registry, an HTTPS server. What is pushed comes into force; when the
//! place is gone, the node serves on.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use cardea_proto::v1::{self, Decision};
use cardea_tests::attempts::attempt;
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::certs::{Authority, Files};
use cardea_tests::clients::Clients;
use cardea_tests::nginx::Nginx;
use cardea_tests::registry::{self, Registry};
use cardea_tests::remote;
use cardea_tests::signed::{Publisher, accepted, in_force, refused, shown, status};
use cardea_tests::wait;

async fn decide(clients: &mut Clients) -> Result<(Decision, u64)> {
    let verdict = clients.decide(attempt("Agent::biller", "read", "Table::orders", "s")?).await?;
    Ok((verdict.decision(), verdict.basis.context("no basis")?.revision))
}

/// Waits until a revision is in force, and opens the session `s`.
async fn serving(cardea: &Cardea, revision: u64) -> Result<(Clients, v1::BundleStatus)> {
    let mut clients = cardea.clients()?;
    let bundle = in_force(&mut clients, revision).await?;
    clients.have_session("s", "Agent::biller").await?;
    Ok((clients, bundle))
}

/// Waits until Status tells that the source fails.
async fn failing(clients: &mut Clients) -> Result<v1::BundleSource> {
    wait::until("the source to fail", async || {
        let source = status(clients).await?.source.context("no source")?;
        Ok((source.consecutive_failures > 0).then_some(source))
    })
    .await
}

async fn push(file: &Path, location: &str, more: &[&str]) -> Result<()> {
    let pushed = remote::cardea(&[&["push", &shown(file), location], more].concat()).await?;
    anyhow::ensure!(pushed.code == Some(0), "{pushed:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_pushed_to_a_registry_comes_into_force_and_serves_on_without_it() -> Result<()> {
    let publisher = Publisher::new()?;
    let mut registry = Registry::start(&registry::Options::default()).await?;
    let location = registry.location("policy/web:live");
    push(&publisher.signed(1, &[])?, &location, &[]).await?;
    let options = Options::default().config("[bundle]\npoll_s = 1\n");
    let mut cardea = Cardea::start_with(options.signed(&location, publisher.path("trust.toml"))).await?;
    let (mut first, bundle) = serving(&cardea, 1).await?;
    assert_eq!(bundle.signed_by, ["ci"]);
    let source = bundle.source.context("no source")?;
    assert_eq!((source.kind.as_str(), source.place.as_str()), ("oci", location.as_str()));
    assert_eq!(decide(&mut first).await?, (Decision::Allow, 1));

    publisher.deny_reads(true)?;
    let stranger = publisher.build(2, &[])?;
    publisher.sign(&stranger, "stranger")?;
    push(&stranger, &location, &[]).await?;
    refused(&mut first, "too_few_keys").await?;
    assert_eq!(decide(&mut first).await?, (Decision::Allow, 1));
    push(&publisher.signed(3, &[])?, &location, &[]).await?;
    accepted(&mut first, 3).await?;
    assert_eq!(decide(&mut first).await?, (Decision::Deny, 3));

    registry.process.kill()?;
    let source = failing(&mut first).await?;
    assert!(!source.last_error.is_empty(), "{source:?}");
    assert_eq!(decide(&mut first).await?, (Decision::Deny, 3));
    cardea.process.kill()?;
    cardea.start_again().await?;
    let (mut again, bundle) = serving(&cardea, 3).await?;
    assert_eq!(bundle.signed_by, ["ci"]);
    assert_eq!(decide(&mut again).await?, (Decision::Deny, 3));
    failing(&mut again).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_put_on_an_https_server_comes_into_force_and_serves_on_without_it() -> Result<()> {
    let publisher = Publisher::new()?;
    let authority = Authority::new("servers")?;
    let files: Files = authority.write(publisher.path("").as_path(), &authority.server()?)?;
    let mut nginx = Nginx::start(&files).await?;
    let location = nginx.location("web.cardea");
    fs::copy(publisher.signed(1, &[])?, nginx.file("web.cardea"))?;
    let config = format!("[bundle]\npoll_s = 1\nca = \"{}\"\n", files.ca.display());
    let options = Options::default().config(config).signed(&location, publisher.path("trust.toml"));
    let mut cardea = Cardea::start_with(options).await?;
    let (mut first, bundle) = serving(&cardea, 1).await?;
    let source = bundle.source.context("no source")?;
    assert_eq!((source.kind.as_str(), source.place.as_str()), ("https", location.as_str()));
    publisher.deny_reads(true)?;
    push(&publisher.signed(2, &[])?, &location, &["--ca", &shown(&files.ca), "--overwrite"]).await?;
    in_force(&mut first, 2).await?;
    assert_eq!(decide(&mut first).await?, (Decision::Deny, 2));

    nginx.stop()?;
    failing(&mut first).await?;
    assert_eq!(decide(&mut first).await?, (Decision::Deny, 2));
    cardea.process.kill()?;
    cardea.start_again().await?;
    let (mut again, _) = serving(&cardea, 2).await?;
    failing(&mut again).await?;

    // Back again, with something new: nobody has to tell the node.
    publisher.deny_reads(false)?;
    fs::copy(publisher.signed(3, &[])?, nginx.file(".beside"))?;
    fs::rename(nginx.file(".beside"), nginx.file("web.cardea"))?;
    nginx.restart().await?;
    let bundle = in_force(&mut again, 3).await?;
    assert_eq!(bundle.source.context("no source")?.last_error, "");
    assert_eq!(decide(&mut again).await?, (Decision::Allow, 3));
    Ok(())
}
