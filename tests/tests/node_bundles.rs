//! Signed bundles on a real node: what comes into force, what is refused by which rule, what survives.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::ops::BitXorAssign as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cardea_proto::v1::{self, Decision, ReasonCode};
use cardea_tests::attempts::{attempt, codes};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::process::Finished;
use cardea_tests::signed::{Publisher, accepted, in_force, refused, shown, status};
use cardea_tests::wait;
use serde_json::{Value, json};

fn json_of(finished: &Finished) -> Result<Value> {
    serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:?}"))
}

/// A read that `web` allows in the session `s`.
async fn read(clients: &mut Clients) -> Result<v1::Verdict> {
    clients.decide(attempt("Agent::biller", "read", "Table::orders", "s")?).await
}

async fn judged_by(clients: &mut Clients) -> Result<(Decision, u64)> {
    let verdict = read(clients).await?;
    let basis = verdict.basis.as_ref().context("no basis")?;
    Ok((verdict.decision(), basis.revision))
}

/// Clients, with the session `s` open.
async fn clients(cardea: &Cardea) -> Result<Clients> {
    let mut clients = cardea.clients()?;
    clients.have_session("s", "Agent::biller").await?;
    Ok(clients)
}

/// Every file below, with its content; what is logged or known of callers is left out.
fn files(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && entry.file_name() != "audit" && entry.file_name() != "state" {
                left.push(entry.path());
            } else if entry.file_type()?.is_file() {
                found.insert(entry.path(), fs::read(entry.path())?);
            }
        }
    }
    Ok(found)
}

/// The bundle with another first signature: its first bit is not what it was.
fn with_other_signature(bytes: &[u8]) -> Result<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    let signature = text.rsplit_once(r#""sig":""#).context("no signature")?.1;
    let signature = signature.split('"').next().context("no signature")?;
    let mut other = STANDARD.decode(signature)?;
    other.first_mut().context("an empty signature")?.bitxor_assign(1);
    let at = bytes.windows(signature.len()).rposition(|part| part == signature.as_bytes());
    let mut changed = bytes.to_vec();
    let at = at.context("no signature")?;
    changed.splice(at..at + signature.len(), STANDARD.encode(other).into_bytes());
    Ok(changed)
}

#[tokio::test]
async fn a_signed_bundle_serves_and_each_bad_one_is_refused_by_its_own_rule() -> Result<()> {
    let publisher = Publisher::new()?;
    let older = fs::read(publisher.signed(9, &[])?)?;
    let good = publisher.signed(10, &[])?;
    publisher.publish(&good)?;
    let cardea = Cardea::start_with(publisher.node()).await?;
    let mut clients = clients(&cardea).await?;
    let bundle = status(&mut clients).await?;
    assert_eq!((bundle.revision, bundle.floor_revision), (10, 10));
    assert_eq!(bundle.signed_by, ["ci"]);
    assert_eq!(bundle.refusal, None);
    let source = bundle.source.context("no source")?;
    assert_eq!((source.kind.as_str(), source.place), ("file", shown(&publisher.place())));
    assert_eq!(judged_by(&mut clients).await?, (Decision::Allow, 10));

    publisher.deny_reads(true)?;
    let newer = fs::read(publisher.signed(11, &[])?)?;
    let mut tampered = newer.clone();
    let quarter = tampered.len() / 4;
    tampered[quarter] ^= 1;
    let mut cut = newer.clone();
    cut.truncate(newer.len() - 100);
    let stranger = publisher.build(12, &[])?;
    publisher.sign(&stranger, "stranger")?;
    let bad = [
        ("unsigned", fs::read(publisher.build(13, &[])?)?),
        ("too_few_keys", fs::read(stranger)?),
        ("statement", tampered),
        ("bad_signature", with_other_signature(&newer)?),
        ("malformed", cut),
        ("rolled_back", older),
        ("not_yet_valid", fs::read(publisher.signed(14, &["--not-before", "2099-01-01T00:00:00Z"])?)?),
        ("expired", fs::read(publisher.signed(15, &["--expires", "2020-01-01T00:00:00Z"])?)?),
        ("revision_reused", fs::read(publisher.signed(10, &[])?)?),
    ];
    let dir = cardea.store().parent().context("no directory")?.to_owned();
    let before = files(&dir)?;
    for (rule, bytes) in bad {
        publisher.publish_bytes(&bytes)?;
        let bundle = refused(&mut clients, rule).await?;
        assert_eq!((bundle.revision, bundle.floor_revision), (10, 10), "{rule}");
        assert_eq!(judged_by(&mut clients).await?, (Decision::Allow, 10), "{rule}");
    }
    assert!(files(&dir)? == before, "what was refused changed something on disk");

    publisher.publish_bytes(&newer)?;
    accepted(&mut clients, 11).await?;
    assert_eq!(judged_by(&mut clients).await?, (Decision::Deny, 11));
    let changed: Vec<_> =
        files(&dir)?.into_iter().filter(|(path, was)| before.get(path) != Some(was)).collect();
    assert!(
        !changed.is_empty() && changed.iter().all(|(path, _)| path.starts_with(cardea.store())),
        "{changed:?}"
    );
    Ok(())
}

#[tokio::test]
async fn with_a_threshold_of_two_one_key_is_too_few() -> Result<()> {
    let publisher = Publisher::new()?;
    publisher.trust(2, &["ci", "second"])?;
    let file = publisher.signed(1, &[])?;
    publisher.publish(&file)?;
    let cardea = Cardea::start_with(publisher.node()).await?;
    let mut clients = cardea.clients()?;
    let bundle = refused(&mut clients, "too_few_keys").await?;
    assert_eq!(bundle.revision, 0);
    assert_eq!(codes(&read(&mut clients).await?), [ReasonCode::NoPolicy]);
    assert_eq!(cardea.page("/readyz").await?.status, 503);

    publisher.sign(&file, "ci")?;
    publisher.publish(&file)?;
    publisher.sign(&file, "second")?;
    publisher.publish(&file)?;
    let bundle = in_force(&mut clients, 1).await?;
    assert_eq!(bundle.signed_by, ["ci", "second"]);
    clients.open_session("s", "Agent::biller").await?;
    assert_eq!(judged_by(&mut clients).await?, (Decision::Allow, 1));
    assert_eq!(cardea.page("/readyz").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn what_was_refused_is_taken_once_its_time_comes_or_trust_changes() -> Result<()> {
    let publisher = Publisher::new()?;
    publisher.publish(&publisher.signed(1, &[])?)?;
    let mut cardea = Cardea::start_with(publisher.node()).await?;
    let mut clients = clients(&cardea).await?;
    publisher.deny_reads(true)?;
    let start = std::time::UNIX_EPOCH.elapsed()?.as_secs() + 6;
    publisher.publish(&publisher.signed(2, &["--not-before", &time_text(start)?])?)?;
    refused(&mut clients, "not_yet_valid").await?;
    assert_eq!(judged_by(&mut clients).await?, (Decision::Allow, 1));
    accepted(&mut clients, 2).await?;
    assert!(std::time::UNIX_EPOCH.elapsed()?.as_secs() >= start, "it served before its time");
    assert_eq!(judged_by(&mut clients).await?, (Decision::Deny, 2));

    let other = publisher.build(3, &[])?;
    publisher.sign(&other, "second")?;
    publisher.publish(&other)?;
    refused(&mut clients, "too_few_keys").await?;
    publisher.trust(1, &["ci", "second"])?;
    assert_eq!(in_force(&mut clients, 3).await?.signed_by, ["second"]);

    // The same bundle with one more signature: nothing to swap, and it counts at the next start.
    publisher.sign(&other, "ci")?;
    publisher.publish(&other)?;
    wait::until("the signature to be told", async || {
        Ok((status(&mut clients).await?.signed_by == ["ci", "second"]).then_some(()))
    })
    .await?;
    assert_eq!(status(&mut clients).await?.reloads, 3);
    publisher.trust(2, &["ci", "second"])?;
    fs::remove_file(publisher.place())?;
    cardea.process.kill()?;
    cardea.start_again().await?;
    assert_eq!(in_force(&mut cardea.clients()?, 3).await?.signed_by, ["ci", "second"]);
    Ok(())
}

#[tokio::test]
async fn renames_link_swaps_and_bursts_of_writes_are_noticed() -> Result<()> {
    let publisher = Publisher::new()?;
    let revisions: Vec<PathBuf> =
        (1..=8).map(|revision| publisher.signed(revision, &[])).collect::<Result<_>>()?;
    let of = |revision: usize| -> Result<&Path> { Ok(revisions.get(revision - 1).context("not built")?) };
    // As Kubernetes lays out a ConfigMap: the file is a link through `..data`, and that is swapped.
    let volume = publisher.path("volume");
    let put = |name: &str, revision: usize| -> Result<()> {
        fs::create_dir_all(volume.join(name))?;
        fs::copy(of(revision)?, volume.join(name).join("web.cardea"))?;
        symlink(name, volume.join("..data_tmp"))?;
        Ok(fs::rename(volume.join("..data_tmp"), volume.join("..data"))?)
    };
    put("..2026_1", 1)?;
    symlink("..data/web.cardea", volume.join("web.cardea"))?;
    let linked = Options::default().signed(shown(&volume.join("web.cardea")), publisher.path("trust.toml"));
    let linked = Cardea::start_with(linked).await?;
    publisher.publish(of(1)?)?;
    let renamed = Cardea::start_with(publisher.node()).await?;
    let (mut linked, mut renamed) = (clients(&linked).await?, clients(&renamed).await?);
    for clients in [&mut linked, &mut renamed] {
        in_force(clients, 1).await?;
    }

    put("..2026_2", 2)?;
    fs::remove_dir_all(volume.join("..2026_1"))?;
    publisher.publish(of(2)?)?;
    in_force(&mut linked, 2).await?;
    in_force(&mut renamed, 2).await?;
    put("..2026_3", 3)?;
    in_force(&mut linked, 3).await?;

    // Written in place, piece by piece, again and again: what counts is what stands there in the end.
    for revision in 3..=8 {
        let bytes = fs::read(of(revision)?)?;
        let mut file = fs::File::create(publisher.place())?;
        for piece in bytes.chunks(bytes.len() / 5 + 1) {
            file.write_all(piece)?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    in_force(&mut renamed, 8).await?;
    assert_eq!(judged_by(&mut renamed).await?, (Decision::Allow, 8));
    Ok(())
}

#[tokio::test]
async fn without_its_source_a_node_starts_with_the_last_good_and_never_goes_below_it() -> Result<()> {
    let publisher = Publisher::new()?;
    let older = publisher.signed(4, &[])?;
    publisher.publish(&publisher.signed(5, &[])?)?;
    let mut cardea = Cardea::start_with(publisher.node()).await?;
    in_force(&mut cardea.clients()?, 5).await?;
    fs::remove_file(publisher.place())?;
    assert_eq!(cardea.process.terminate().await?.code(), Some(0));
    cardea.start_again().await?;
    let mut again = clients(&cardea).await?;
    let bundle = in_force(&mut again, 5).await?;
    assert_eq!((bundle.signed_by, bundle.floor_revision), (vec!["ci".to_owned()], 5));
    let source = bundle.source.context("no source")?;
    assert_eq!(source.kind, "file");
    assert!(source.last_error.contains("cannot be read") && source.consecutive_failures > 0, "{source:?}");
    assert_eq!(judged_by(&mut again).await?, (Decision::Allow, 5));

    publisher.publish(&older)?;
    refused(&mut again, "rolled_back").await?;
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut again = clients(&cardea).await?;
    let bundle = refused(&mut again, "rolled_back").await?;
    assert_eq!((bundle.revision, bundle.floor_revision), (5, 5));
    assert_eq!(judged_by(&mut again).await?, (Decision::Allow, 5));

    // Whom trust.toml does not name any more is not believed at a start either.
    publisher.trust(1, &["second"])?;
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut again = cardea.clients()?;
    assert_eq!(refused(&mut again, "too_few_keys").await?.revision, 0);
    assert_eq!(codes(&read(&mut again).await?), [ReasonCode::NoPolicy]);
    Ok(())
}

#[tokio::test]
async fn a_stale_bundle_is_said_and_denies_where_that_was_chosen() -> Result<()> {
    let publisher = Publisher::new()?;
    publisher.publish(&publisher.signed(1, &[])?)?;
    let deny = Cardea::start_with(publisher.node().config("[bundle]\nwhen_stale = \"deny\"\n")).await?;
    let mut serve = Cardea::start_with(publisher.node().config("[bundle]\nwhen_stale = \"serve\"\n")).await?;
    let (mut denying, mut serving) = (clients(&deny).await?, clients(&serve).await?);
    let later = publisher.signed(3, &[])?;
    let end = std::time::UNIX_EPOCH.elapsed()?.as_secs() + 12;
    let end_text = time_text(end)?;
    publisher.publish(&publisher.signed(2, &["--expires", &end_text])?)?;
    for clients in [&mut denying, &mut serving] {
        let bundle = in_force(clients, 2).await?;
        assert_eq!(bundle.expires_at.map(|at| at.seconds), Some(i64::try_from(end)?));
        assert!(!bundle.stale, "too slow a machine: the end passed before the bundle was in force");
        assert_eq!(judged_by(clients).await?, (Decision::Allow, 2));
    }
    let verdict = wait::until("the end of the bundle", async || {
        let verdict = read(&mut denying).await?;
        Ok((verdict.decision() == Decision::Deny).then_some(verdict))
    })
    .await?;
    assert!(std::time::UNIX_EPOCH.elapsed()?.as_secs() >= end, "it denied before the end");
    assert_eq!(codes(&verdict), [ReasonCode::PolicyStale]);
    assert_eq!(judged_by(&mut serving).await?, (Decision::Allow, 2));
    for (cardea, clients) in [(&deny, &mut denying), (&serve, &mut serving)] {
        wait::until("Status to say stale", async || Ok(status(clients).await?.stale.then_some(()))).await?;
        let page = cardea.page("/metrics").await?.body;
        assert!(page.lines().any(|line| line == "cardea_snapshot_stale 1"), "{page}");
    }

    // Past its end it is the last good one all the same.
    serve.process.kill()?;
    serve.start_again().await?;
    let mut serving = clients(&serve).await?;
    assert_eq!(judged_by(&mut serving).await?, (Decision::Allow, 2));
    assert!(status(&mut serving).await?.stale);

    publisher.publish(&later)?;
    for (cardea, clients) in [(&deny, &mut denying), (&serve, &mut serving)] {
        assert!(!in_force(clients, 3).await?.stale);
        assert_eq!(judged_by(clients).await?, (Decision::Allow, 3));
        wait::until("the metric to fall", async || {
            let page = cardea.page("/metrics").await?.body;
            Ok(page.lines().any(|line| line == "cardea_snapshot_stale 0").then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Seconds since 1970 as the command line takes a time.
fn time_text(unix_s: u64) -> Result<String> {
    let stamp = cardea_policy_store::stamp::Stamp::from_unix_s(i64::try_from(unix_s)?);
    Ok(stamp.context("no time")?.to_string())
}

#[tokio::test]
async fn a_rollback_is_a_higher_revision_that_survives_and_must_be_topped() -> Result<()> {
    let publisher = Publisher::new()?;
    publisher.publish(&publisher.signed(1, &[])?)?;
    let mut cardea = Cardea::start_with(publisher.node()).await?;
    let mut before = clients(&cardea).await?;
    let first = in_force(&mut before, 1).await?;
    publisher.deny_reads(true)?;
    publisher.publish(&publisher.signed(2, &[])?)?;
    in_force(&mut before, 2).await?;
    assert_eq!(judged_by(&mut before).await?, (Decision::Deny, 2));

    let low = cardea.command(&["activate", "1", "--reason", "back"]).await?;
    assert_eq!(low.code, Some(1), "{low:?}");
    let unknown = cardea.command(&["rollback", "--to", "77", "--reason", "back"]).await?;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    let back = cardea
        .command(&["rollback", "--to", "1", "--reason", "reads were denied", "--format", "json"])
        .await?;
    assert_eq!(back.code, Some(0), "{back:?}");
    assert_eq!(json_of(&back)?.pointer("/revision/revision"), Some(&json!(3)));
    assert_eq!(judged_by(&mut before).await?, (Decision::Allow, 3));
    let bundle = status(&mut before).await?;
    assert_eq!((bundle.revision, bundle.floor_revision, &bundle.digest), (3, 3, &first.digest));

    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut after = clients(&cardea).await?;
    // The file still holds revision 2.
    refused(&mut after, "rolled_back").await?;
    assert_eq!(judged_by(&mut after).await?, (Decision::Allow, 3));
    let listed = cardea.command(&["list", "--format", "json"]).await?;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let revisions =
        json_of(&listed)?.get("revisions").and_then(Value::as_array).cloned().context("no list")?;
    let told: BTreeMap<u64, &str> = revisions
        .iter()
        .filter_map(|one| Some((one.get("revision")?.as_u64()?, one.get("state")?.as_str()?)))
        .collect();
    assert_eq!(told, [(1, "stored"), (2, "stored"), (3, "in force")].into(), "{revisions:?}");
    assert!(revisions.iter().all(|one| one.get("signed_by") == Some(&json!(["ci"]))), "{revisions:?}");

    publisher.publish(&publisher.signed(3, &[])?)?;
    refused(&mut after, "revision_reused").await?;
    publisher.publish(&publisher.signed(4, &[])?)?;
    in_force(&mut after, 4).await?;
    assert_eq!(judged_by(&mut after).await?, (Decision::Deny, 4));
    Ok(())
}

#[tokio::test]
async fn a_packed_candidate_is_compared_on_live_attempts_and_promoted() -> Result<()> {
    let publisher = Publisher::new()?;
    publisher.publish(&publisher.signed(1, &[])?)?;
    let mut cardea = Cardea::start_with(publisher.node()).await?;
    let mut clients = clients(&cardea).await?;
    publisher.deny_reads(true)?;
    let unsigned = shown(&publisher.build(2, &[])?);
    let refused = cardea.command(&["shadow", "start", &unsigned]).await?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("[unsigned]"), "{refused:?}");
    publisher.sign(Path::new(&unsigned), "ci")?;
    let started =
        cardea.command(&["shadow", "start", &unsigned, "--reason", "try", "--format", "json"]).await?;
    assert_eq!(started.code, Some(0), "{started:?}");
    let digest = json_of(&started)?.pointer("/shadow/digest").and_then(Value::as_str).map(str::to_owned);
    let digest = digest.context("no digest")?;

    for _ in 0..5 {
        assert_eq!(judged_by(&mut clients).await?, (Decision::Allow, 1));
    }
    wait::until("the differences to be counted", async || {
        let status = json_of(&cardea.command(&["shadow", "status", "--format", "json"]).await?)?;
        let change = status.pointer("/shadow/changes/0").context("no change yet");
        let Ok(change) = change else { return Ok(None) };
        ensure!(change.get("effect") == Some(&json!("tightened")), "{status}");
        Ok((change.get("count") == Some(&json!(5))).then_some(()))
    })
    .await?;
    let difference = cardea.command(&["shadow", "status", "--fail-on", "difference"]).await?;
    assert_eq!(difference.code, Some(1), "{difference:?}");
    let widening = cardea.command(&["shadow", "status", "--fail-on", "widening"]).await?;
    assert_eq!(widening.code, Some(0), "{widening:?}");

    let promoted = cardea.command(&["promote", &digest, "--reason", "wanted", "--format", "json"]).await?;
    assert_eq!(promoted.code, Some(0), "{promoted:?}");
    assert_eq!(json_of(&promoted)?.pointer("/revision/revision"), Some(&json!(2)));
    assert_eq!(judged_by(&mut clients).await?, (Decision::Deny, 2));
    assert_eq!(cardea.command(&["shadow", "status"]).await?.code, Some(1), "the shadow is still on");

    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut again = cardea.clients()?;
    let bundle = in_force(&mut again, 2).await?;
    assert_eq!((bundle.digest, bundle.signed_by), (digest, vec!["ci".to_owned()]));
    Ok(())
}
