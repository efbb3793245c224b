//! Bundles in a real OCI registry.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use cardea_server::remote::{Location, Oci, Options, Taken};
use cardea_tests::certs::{Authority, Files};
use cardea_tests::process::cardea_program;
use cardea_tests::registry::{self, PASSWORD, Registry, USER};
use cardea_tests::registry_tokens::TokenServer;
use cardea_tests::remote::{Polling, cardea, packed, quick, unsigned, write};
use serde_json::{Value, json};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

async fn plain() -> Result<Registry> {
    Registry::start(&registry::Options::default()).await
}

async fn with_tls(dir: &TempDir, password: bool) -> Result<(Registry, Files)> {
    let authority = Authority::new("registries")?;
    let files = authority.write(dir.path(), &authority.server()?)?;
    Ok((
        Registry::start(&registry::Options { tls: Some(files.clone()), password, tokens: None }).await?,
        files,
    ))
}

async fn oci(location: &str) -> Result<Oci> {
    match location.parse()? {
        Location::Oci(reference) => Ok(Oci::new(&reference, &Options::default()).await?),
        Location::Https(_) => anyhow::bail!("no reference"),
    }
}

/// Stores a manifest as it is, as another tool would; returns its digest.
async fn put_manifest(registry: &Registry, tag: &str, manifest: &Value) -> Result<()> {
    let url = format!("http://{}/v2/policy/web/manifests/{tag}", registry.address);
    let put = reqwest::Client::new().put(url).header("content-type", MANIFEST).body(manifest.to_string());
    let answer = put.send().await?;
    anyhow::ensure!(answer.status() == 201, "{}: {}", answer.status(), answer.text().await?);
    Ok(())
}

/// The manifest behind a tag, as the registry has it.
async fn manifest(registry: &Registry, tag: &str) -> Result<Value> {
    let url = format!("http://{}/v2/policy/web/manifests/{tag}", registry.address);
    let text = reqwest::Client::new().get(url).header("accept", MANIFEST).send().await?.text().await?;
    Ok(serde_json::from_str(&text)?)
}

#[tokio::test]
async fn what_is_pushed_over_tls_is_pulled_by_tag_and_by_digest() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (registry, files) = with_tls(&dir, false).await?;
    let ca = files.ca.to_str().context("a path")?;
    let file = write(dir.path(), 7)?;
    let location = registry.location("policy/team-a/web:7");
    let pushed =
        cardea(&["push", file.to_str().context("a path")?, &location, "--ca", ca, "--format", "json"])
            .await?;
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    let told: Value = serde_json::from_str(&pushed.stdout)?;
    let pinned = told["reference"].as_str().context("a reference")?;
    assert!(pinned.starts_with(&format!("{location}@sha256:")), "{told}");
    assert_eq!(told["signed"], json!(true));

    for source in [&location, pinned] {
        let out = dir.path().join("pulled.cardea");
        let pulled = cardea(&["pull", source, "--ca", ca, "-o", out.to_str().context("a path")?]).await?;
        assert_eq!(pulled.code, Some(0), "{pulled:?}");
        assert_eq!(pulled.stdout.trim(), pinned, "the address of exactly this content");
        assert_eq!(fs::read(&out)?, packed(7)?);
        fs::remove_file(out)?;
    }
    let unknown = cardea(&["pull", &location, "-o", "/nowhere/x"]).await?;
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.stderr.contains("TLS") && unknown.stderr.contains("--ca"), "{}", unknown.stderr);
    Ok(())
}

#[tokio::test]
async fn an_artifact_is_what_the_specification_says() -> Result<()> {
    let registry = plain().await?;
    let location = registry.location("policy/web:v1");
    let dir = tempfile::tempdir()?;
    let file = write(dir.path(), 3)?;
    let pushed = cardea(&["push", file.to_str().context("a path")?, &location]).await?;
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    let manifest = manifest(&registry, "v1").await?;
    assert_eq!(manifest["artifactType"], "application/vnd.cardea.bundle.v1");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.cardea.bundle.v1.tar+zstd");
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(1));
    let annotations = &manifest["annotations"];
    assert_eq!(annotations["org.opencontainers.image.title"], "web-3.cardea");
    assert_eq!(annotations["org.opencontainers.image.version"], "3");
    Ok(())
}

#[tokio::test]
async fn a_tag_that_moves_between_resolve_and_pull_does_not_change_what_is_pulled() -> Result<()> {
    let registry = plain().await?;
    let location = registry.location("policy/web:stable");
    let oci = oci(&location).await?;
    let (first, second) = (packed(1)?, packed(2)?);
    oci.push(first.clone().into(), BTreeMap::new()).await?;
    let resolved = oci.resolve().await?;
    let moved = oci.push(second.clone().into(), BTreeMap::new()).await?;
    assert_ne!(resolved, moved);
    assert_eq!(oci.pull(&resolved).await?, first);
    assert_eq!(oci.resolve().await?, moved);
    assert_eq!(oci.pull(&moved).await?, second);
    Ok(())
}

#[tokio::test]
async fn an_artifact_of_another_kind_is_refused() -> Result<()> {
    let registry = plain().await?;
    let location = registry.location("policy/web:good");
    oci(&location).await?.push(packed(1)?.into(), BTreeMap::new()).await?;
    let good = manifest(&registry, "good").await?;
    let mut other = good.clone();
    other["artifactType"] = json!("application/vnd.example.chart");
    let mut image = good.clone();
    image.as_object_mut().context("an object")?.remove("artifactType");
    let mut two = good.clone();
    two["layers"] = json!([good["layers"][0], good["layers"][0]]);
    let mut layer = good.clone();
    layer["layers"][0]["mediaType"] = json!("application/octet-stream");
    for (tag, manifest, wanted) in [
        ("other", other, "vnd.example.chart"),
        ("image", image, "artifact type is `nothing`"),
        ("two", two, "2 layers"),
        ("layer", layer, "octet-stream"),
    ] {
        put_manifest(&registry, tag, &manifest).await?;
        let location = registry.location(&format!("policy/web:{tag}"));
        let pulled = cardea(&["pull", &location, "-o", "/nowhere/x"]).await?;
        assert_eq!(pulled.code, Some(2), "{pulled:?}");
        assert!(
            pulled.stderr.contains("is not a bundle") && pulled.stderr.contains(wanted),
            "{}",
            pulled.stderr
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_was_changed_in_the_registrys_storage_is_refused_and_nothing_is_written() -> Result<()> {
    let registry = plain().await?;
    let location = registry.location("policy/web:1");
    let digest = oci(&location).await?.push(packed(1)?.into(), BTreeMap::new()).await?;
    let manifest = manifest(&registry, "1").await?;
    let layer = registry.blob(manifest["layers"][0]["digest"].as_str().context("a digest")?)?;
    let dir = tempfile::tempdir()?;
    let out = dir.path().join("out.cardea");
    let pull = async || cardea(&["pull", &location, "-o", out.to_str().context("a path")?]).await;

    let mut bytes = fs::read(&layer)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, &bytes)?;
    let pulled = pull().await?;
    assert_eq!(pulled.code, Some(2), "{pulled:?}");
    assert!(pulled.stderr.contains("does not have its digest"), "{}", pulled.stderr);

    bytes.push(0);
    fs::write(&layer, &bytes)?;
    let pulled = pull().await?;
    assert_eq!(pulled.code, Some(2), "longer than its manifest says: {pulled:?}");

    fs::write(&layer, packed(1)?)?;
    assert_eq!(pull().await?.code, Some(0), "repaired");
    fs::remove_file(&out)?;

    let of_manifest = registry.blob(&digest.to_string())?;
    let text = fs::read_to_string(&of_manifest)?;
    fs::write(&of_manifest, text.replace("bundle.v1.tar", "bundle.v2.tar"))?;
    let pulled = pull().await?;
    assert_eq!(pulled.code, Some(2), "{pulled:?}");
    assert_eq!(fs::read_dir(dir.path())?.count(), 0, "no file, not even half of one");
    Ok(())
}

#[tokio::test]
async fn a_layer_that_is_too_large_is_refused_before_it_is_asked_for() -> Result<()> {
    let registry = plain().await?;
    oci(&registry.location("policy/web:good")).await?.push(packed(1)?.into(), BTreeMap::new()).await?;
    let mut huge = manifest(&registry, "good").await?;
    huge["layers"][0]["size"] = json!(10_u64 << 30);
    put_manifest(&registry, "huge", &huge).await?;
    let pulled = cardea(&["pull", &registry.location("policy/web:huge"), "-o", "/nowhere/x"]).await?;
    assert_eq!(pulled.code, Some(2), "{pulled:?}");
    assert!(pulled.stderr.contains("is larger than 67108864 bytes"), "{}", pulled.stderr);
    let log = registry.process.stderr();
    assert!(!log.contains("GET /v2/policy/web/blobs/"), "{log}");
    Ok(())
}

#[tokio::test]
async fn credentials_come_from_options_the_environment_and_docker() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (registry, files) = with_tls(&dir, true).await?;
    let location = registry.location("policy/web:1");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let file = write(dir.path(), 1)?;
    let (file, ca, out) = (file.display().to_string(), files.ca.display().to_string(), path("out"));
    fs::write(path("password"), format!("{PASSWORD}\n"))?;
    fs::write(path("wrong"), "falsch\n")?;

    let nobody = cardea(&["push", &file, &location, "--ca", &ca]).await?;
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.stderr.contains("wants credentials (401)"), "{}", nobody.stderr);
    assert!(nobody.stderr.contains("docker login"), "the remedy: {}", nobody.stderr);
    let with =
        |password: &'static str| (["--ca", &ca, "--username", USER, "--password-file"], path(password));
    let (options, password) = with("wrong");
    let wrong = cardea(&[&["push", &file, &location][..], &options, &[&password]].concat()).await?;
    assert!(wrong.stderr.contains("other credentials than those that were sent"), "{}", wrong.stderr);
    let (options, password) = with("password");
    let right = cardea(&[&["push", &file, &location][..], &options, &[&password]].concat()).await?;
    assert_eq!(right.code, Some(0), "{right:?}");
    for said in [&nobody, &wrong, &right] {
        assert!(
            !format!("{said:?}").contains("falsch") && !format!("{said:?}").contains(PASSWORD),
            "{said:?}"
        );
    }

    let auth = "Y2k6Z2VoZWlt";
    let docker = json!({ "auths": { registry.address.to_string(): { "auth": auth } } });
    fs::create_dir(path("docker"))?;
    fs::write(path("docker/config.json"), docker.to_string())?;
    let environments: [(&[(&str, &str)], bool); 4] = [
        (&[("CARDEA_REGISTRY_USERNAME", USER), ("CARDEA_REGISTRY_PASSWORD", PASSWORD)], true),
        (&[("DOCKER_CONFIG", &path("docker"))], true),
        (&[("DOCKER_CONFIG", "/nowhere")], false),
        (&[("CARDEA_REGISTRY_USERNAME", USER)], false),
    ];
    for (variables, fine) in environments {
        let mut command = std::process::Command::new(cardea_program()?);
        command.args(["bundle", "pull", &location, "--ca", &ca, "-o", &out, "--format", "json"]);
        command.envs(variables.iter().copied());
        let pulled = tokio::task::spawn_blocking(move || command.output()).await??;
        let said: Value = serde_json::from_slice(&pulled.stdout)?;
        assert_eq!(said.get("error").is_none(), fine, "{variables:?}: {said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_registry_that_wants_tokens_gets_them_from_its_token_server() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new("registries")?;
    let identity = authority.server()?;
    let files = authority.write(dir.path(), &identity)?;
    let tokens = TokenServer::start(dir.path(), authority.server_config(&identity)?)?;
    let options = registry::Options {
        tls: Some(files.clone()),
        password: false,
        tokens: Some((tokens.realm.clone(), tokens.certificate.clone())),
    };
    let registry = Registry::start(&options).await?;
    let location = registry.location("policy/web:1");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let file = write(dir.path(), 1)?.display().to_string();
    let (ca, out) = (files.ca.display().to_string(), path("out"));
    fs::write(path("password"), PASSWORD)?;
    let password = path("password");
    let known = ["--ca", &ca, "--username", USER, "--password-file", &password];

    let nobody = cardea(&["push", &file, &location, "--ca", &ca]).await?;
    assert!(nobody.stderr.contains("wants credentials (401)"), "{}", nobody.stderr);
    let pushed = cardea(&[&["push", &file, &location][..], &known].concat()).await?;
    assert_eq!(pushed.code, Some(0), "{pushed:?}");
    let pulled = cardea(&[&["pull", &location, "-o", &out][..], &known].concat()).await?;
    assert_eq!(pulled.code, Some(0), "{pulled:?}");
    assert_eq!(fs::read(&out)?, packed(1)?);
    let scopes = tokens.scopes();
    let wanted = ["repository%3apolicy%2fweb%3apull%2cpush", "repository%3apolicy%2fweb%3apull"];
    assert_eq!(
        scopes.get(1..),
        Some(&wanted.map(str::to_owned)[..]),
        "one token each, for no more than needed"
    );
    Ok(())
}

#[tokio::test]
async fn credentials_are_not_sent_to_a_token_server_in_plain_text() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let authority = Authority::new("registries")?;
    let identity = authority.server()?;
    let files = authority.write(dir.path(), &identity)?;
    let tokens = TokenServer::start(dir.path(), authority.server_config(&identity)?)?;
    let realm = tokens.realm.replace("https://", "http://");
    let options = registry::Options {
        tls: Some(files.clone()),
        password: false,
        tokens: Some((realm, tokens.certificate.clone())),
    };
    let registry = Registry::start(&options).await?;
    fs::write(dir.path().join("password"), PASSWORD)?;
    let (ca, password) = (files.ca.display().to_string(), dir.path().join("password").display().to_string());
    let location = registry.location("policy/web:1");
    let known = ["--ca", &ca, "--username", USER, "--password-file", &password];
    let refused = cardea(&[&["pull", &location, "-o", "/nowhere/x"][..], &known].concat()).await?;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("in plain text"), "{}", refused.stderr);
    Ok(())
}

#[tokio::test]
async fn mistakes_are_named_before_anything_is_sent() -> Result<()> {
    let registry = plain().await?;
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("web.cardea");
    fs::write(&file, unsigned(1)?.bytes())?;
    let file = file.to_str().context("a path")?;
    let location = registry.location("policy/web:1");
    let refused = cardea(&["push", file, &location]).await?;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(
        refused.stderr.contains("is not signed") && refused.stderr.contains("--allow-unsigned"),
        "{refused:?}"
    );
    let allowed = cardea(&["push", file, &location, "--allow-unsigned"]).await?;
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    for (arguments, wanted) in [
        (vec!["push", file, "oci+http://registry.example/web:1", "--allow-unsigned"], "loopback"),
        (vec!["push", "/nowhere/web.cardea", &location], "cannot be read"),
        (vec!["push", "/tmp", &location], "cardea bundle build"),
        (vec!["pull", &registry.location("policy/none:1")], "does not exist"),
        (vec!["pull", &registry.location("policy/web:2")], "check the name and the tag"),
        (vec!["pull", "oci+http://127.0.0.1:1/policy/web:2"], "cannot be reached"),
        (vec!["pull", &location, "-o", "/tmp"], "is a directory"),
        (vec!["pull", "oci://u:geheim@host/web"], "carries a user name or password"),
    ] {
        let refused = cardea(&arguments).await?;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(wanted), "{}", refused.stderr);
        assert!(!refused.stderr.contains("geheim"), "{}", refused.stderr);
    }
    let pinned = format!("{location}@sha256:{}", "0".repeat(64));
    let pushed = cardea(&["push", file, &pinned, "--allow-unsigned"]).await?;
    assert!(pushed.stderr.contains("push to a tag"), "{}", pushed.stderr);
    Ok(())
}

#[tokio::test]
async fn a_node_follows_a_tag_and_downloads_each_content_once() -> Result<()> {
    let registry = plain().await?;
    let location = registry.location("policy/web:stable");
    let oci = oci(&location).await?;
    let first = oci.push(packed(1)?.into(), BTreeMap::new()).await?;
    let polling = Polling::start(&location, quick(None), Taken::Accepted)?;
    let offered = polling.offered(1).await?;
    assert_eq!(offered.bytes, packed(1)?);
    assert!(offered.origin.ends_with(&first.to_string()), "{}", offered.origin);
    tokio::time::sleep(Duration::from_millis(400)).await;
    oci.push(packed(2)?.into(), BTreeMap::new()).await?;
    assert_eq!(polling.offered(2).await?.bytes, packed(2)?);
    let blob = |line: &&str| line.contains("method=GET ") && line.contains("/v2/policy/web/blobs/sha256:");
    let downloads = || registry.process.stderr().lines().filter(blob).count();
    cardea_tests::wait::until("both downloads are in the registry's log", async || {
        Ok((downloads() >= 2).then_some(()))
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(downloads(), 2, "{}", registry.process.stderr());
    Ok(())
}
