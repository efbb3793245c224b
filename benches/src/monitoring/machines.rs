//! Machines and accounts: Kubernetes audit events and CloudTrail.

use std::collections::{BTreeMap, BTreeSet};

use cardea_core::behavior::{Assessment, Flag};

use super::data::{Labelled, Places, attempts, is_abuse, is_stopped, learned, scorer};
use super::table::{Bar, Row};

/// How often a flagged call is made again.
const REPLAYS: usize = 1_000;

/// Kubernetes: the first half of the audit log is approved, the second half is new.
///
/// # Errors
///
/// The data cannot be read.
pub fn kubernetes(places: &Places) -> Result<Option<Vec<Row>>, String> {
    let Some(path) = places.file("k8s_audit/benign.jsonl.gz") else { return Ok(None) };
    let config = places.config("kubernetes.toml")?;
    let all = attempts(&path)?;
    let (first, second) = all.split_at_checked(all.len() / 2).unwrap_or_default();
    let known: BTreeSet<&str> = first.iter().map(|one| one.recorded.principal.as_str()).collect();
    let kept = learned(&config, first);
    let mut benign = scorer(&config, &kept, None)?;
    let (mut events, mut stopped, mut incidents) = (0, 0, 0);
    let mut flagged = None;
    for one in second.iter().filter(|one| known.contains(one.recorded.principal.as_str())) {
        let said = benign.deviation(&one.recorded);
        events += 1;
        stopped += usize::from(is_stopped(&said));
        incidents += usize::from(is_stopped(&said) && !said.flags.has(Flag::Again));
        flagged = flagged.or_else(|| (is_stopped(&said) && said.flags.has(Flag::NewAction)).then_some(one));
    }
    let mut rows = vec![
        Row::share("Kubernetes: events that are a new incident", incidents, events, Bar::Most(0.5)),
        Row::share("Kubernetes: events stopped, repetitions included", stopped, events, Bar::None),
    ];
    rows.extend(masquerade(&config, &kept, second, &known)?);
    let mut replay = scorer(&config, &kept, None)?;
    let again = flagged
        .map_or(0, |one| (0..REPLAYS).filter(|_| is_stopped(&replay.deviation(&one.recorded))).count());
    rows.push(Row::share(
        "Kubernetes: a flagged call made again 1,000 times is flagged",
        again,
        REPLAYS,
        Bar::Least(100.0),
    ));
    let kept = learned(&config, &all);
    let mut denials = scorer(&config, &kept, None)?;
    let said: Vec<_> = all.iter().map(|one| (one, denials.deviation(&one.recorded).assessment)).collect();
    let denied: Vec<_> = said.iter().filter(|(_, said)| *said != Assessment::None).collect();
    let broken = denied.iter().filter(|(_, said)| *said == Assessment::Misconfiguration).count();
    let abuse = said.iter().filter(|(_, said)| *said == Assessment::Abuse).count();
    rows.push(Row::share(
        "Kubernetes: benign denials called misconfiguration",
        broken,
        denied.len(),
        Bar::None,
    ));
    rows.push(Row::share("Kubernetes: benign events called abuse", abuse, said.len(), Bar::Most(0.0)));
    Ok(Some(rows))
}

/// Other service accounts' real calls under a victim's identity: each distinct call of each other account once.
fn masquerade(
    config: &cardea_server::monitor::config::Config,
    kept: &cardea_core::behavior::Kept,
    second: &[Labelled],
    known: &BTreeSet<&str>,
) -> Result<Vec<Row>, String> {
    let is_account = |name: &str| name.starts_with("system:serviceaccount");
    let mut calls: BTreeMap<&str, BTreeMap<&str, &Labelled>> = BTreeMap::new();
    for one in second.iter().filter(|one| is_account(&one.recorded.principal)) {
        calls.entry(&one.recorded.principal).or_default().insert(&one.recorded.action, one);
    }
    let (mut made, mut caught, mut pairs, mut pairs_caught) = (0, 0, 0, 0);
    let mut scorer = scorer(config, kept, None)?;
    for victim in known.iter().filter(|name| is_account(name)) {
        for (_, calls) in calls.iter().filter(|(name, _)| *name != victim) {
            let mut seen = false;
            for call in calls.values() {
                let mut recorded = call.recorded.clone();
                (*victim).clone_into(&mut recorded.principal);
                recorded.context.remove("rbac_deny");
                let is_caught = is_stopped(&scorer.deviation(&recorded));
                made += 1;
                caught += usize::from(is_caught);
                seen |= is_caught;
            }
            pairs += 1;
            pairs_caught += usize::from(seen);
        }
    }
    Ok(vec![
        Row::share("Kubernetes: masquerade, calls stopped", caught, made, Bar::Least(88.0)),
        Row::share("Kubernetes: masquerade, pairs of accounts caught", pairs_caught, pairs, Bar::None),
    ])
}

/// CloudTrail: the first half of the benign events is approved; all events are scored.
///
/// # Errors
///
/// The data cannot be read.
pub fn cloudtrail(places: &Places) -> Result<Option<Vec<Row>>, String> {
    let Some(path) = places.file("cloudtrail/invictus.stream.jsonl.gz") else { return Ok(None) };
    let config = places.config("cloudtrail.toml")?;
    let all = attempts(&path)?;
    let benign: Vec<_> = all.iter().filter(|one| !one.is_attack).collect();
    let kept = learned(&config, benign.iter().take(benign.len() / 2).copied());
    let is_lateral = |one: &&Labelled| {
        let context = &one.recorded.context;
        let age = context.get("token_age_s").and_then(serde_json::Value::as_u64);
        one.is_attack
            && context.get("rbac_deny").is_some_and(|denied| denied == true)
            && age.is_some_and(|age| age <= 60)
    };
    let lateral: BTreeSet<_> =
        all.iter().filter(is_lateral).map(|one| one.recorded.session.as_str()).collect();
    let mut scorer = scorer(&config, &kept, None)?;
    let said: Vec<_> = all.iter().map(|one| (one, scorer.deviation(&one.recorded))).collect();
    let abuse = || said.iter().filter(|(_, said)| is_abuse(said)).map(|(one, _)| *one);
    let caught: BTreeSet<_> =
        abuse().map(|one| one.recorded.session.as_str()).filter(|of| lateral.contains(of)).collect();
    let stopped =
        |attack: bool| said.iter().filter(|(one, said)| one.is_attack == attack && is_stopped(said)).count();
    Ok(Some(vec![
        Row::share(
            "CloudTrail: sessions of fresh tokens, denied, called abuse",
            caught.len(),
            lateral.len(),
            Bar::Least(100.0),
        ),
        Row::share(
            "CloudTrail: benign events called abuse",
            abuse().filter(|one| !one.is_attack).count(),
            benign.len(),
            Bar::Most(0.0),
        ),
        Row::share("CloudTrail: attack events stopped", stopped(true), all.len() - benign.len(), Bar::None),
        Row::share("CloudTrail: benign events stopped", stopped(false), benign.len(), Bar::None),
    ]))
}
