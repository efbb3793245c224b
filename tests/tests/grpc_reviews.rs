//! A step-up of kind approval opens a review, and approving it opens exactly what was asked, until the end.

use anyhow::{Context as _, Result, ensure};
use cardea_proto::v1;
use cardea_proto::v1::{Decision, ReviewStatus};
use cardea_tests::attempts::{attempt, entity, long};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use cardea_tests::hold::{Point, decision, held};
use cardea_tests::{audit, wait};
use tokio::task::JoinSet;
use tonic::Code;

const REVIEWER: &str = "Team::duty-officers";

/// Writes at a raised risk need an approval.
fn options() -> Options {
    let meets =
        "when { context.risk.score >= 30 && !context.session.grants.contains(\"second_pair_of_eyes\") };";
    Options::default().with_invoices().edit(
        "policies/guards.cedar",
        "when { context.risk.score >= 30 };",
        meets,
    )
}

async fn started() -> Result<(Cardea, Clients)> {
    let cardea = Cardea::start_with(options()).await?;
    let mut clients = cardea.clients()?;
    prepare(&mut clients).await?;
    Ok((cardea, clients))
}

async fn prepare(clients: &mut Clients) -> Result<()> {
    clients.open_session("s", "Agent::biller").await?;
    clients.report_risk("Agent::biller", 40).await?;
    Ok(())
}

fn write(table: &str) -> Result<v1::Attempt> {
    attempt("Agent::biller", "write", &format!("Table::{table}"), "s")
}

/// The review that a step-up names, once it is there.
async fn review(clients: &mut Clients, verdict: &v1::Verdict) -> Result<v1::Review> {
    ensure!(verdict.decision() == Decision::StepUp, "{verdict:?}");
    let id = verdict.step_up.first().context("no requirement")?.review_id.clone();
    ensure!(id.len() == 64, "{id}");
    wait::until("the review", async || {
        match clients.review.get(v1::GetReviewRequest { id: id.clone() }).await {
            Ok(answer) => Ok(answer.into_inner().review),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    })
    .await
}

fn approval(review: &v1::Review) -> Result<v1::ApproveReviewRequest> {
    Ok(v1::ApproveReviewRequest {
        id: review.id.clone(),
        round: review.round,
        reviewer: Some(entity(REVIEWER)?),
        reason: "as planned".to_owned(),
        ..v1::ApproveReviewRequest::default()
    })
}

fn rejection(review: &v1::Review) -> Result<v1::RejectReviewRequest> {
    Ok(v1::RejectReviewRequest {
        id: review.id.clone(),
        round: review.round,
        reviewer: Some(entity(REVIEWER)?),
        reason: "not now".to_owned(),
        ..v1::RejectReviewRequest::default()
    })
}

async fn all(clients: &mut Clients) -> Result<Vec<v1::Review>> {
    Ok(clients.review.list(v1::ListReviewsRequest::default()).await?.into_inner().reviews)
}

#[tokio::test]
async fn a_hundred_callers_at_once_open_one_review() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let mut clients = clients.clone();
        asking.spawn(async move { clients.decide(write("orders")?).await });
    }
    let mut ids = Vec::new();
    while let Some(verdict) = asking.join_next().await {
        let verdict = verdict??;
        ensure!(verdict.decision() == Decision::StepUp, "{verdict:?}");
        ids.push(verdict.step_up.first().context("no requirement")?.review_id.clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let review = wait::until("a hundred attempts", async || {
        // Opened shortly after the verdicts, but never twice.
        let mut reviews = all(&mut clients).await?;
        ensure!(reviews.len() <= 1, "{reviews:?}");
        Ok(reviews.pop().filter(|review| review.attempts == 100))
    })
    .await?;
    assert_eq!((review.status(), review.round), (ReviewStatus::Pending, 1));
    let ask = review.ask.context("nothing is asked")?;
    assert_eq!(ask.requirement, "second_pair_of_eyes");
    assert_eq!(
        (ask.principal, ask.resource),
        (Some(entity("Agent::biller")?), Some(entity("Table::orders")?))
    );
    assert_eq!(review.reviewers, ["Team::\"duty-officers\""]);
    Ok(())
}

#[tokio::test]
async fn an_approval_opens_exactly_what_was_asked() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let asked = || -> Result<v1::Attempt> {
        Ok(v1::Attempt { context: [("limit".to_owned(), long(5))].into(), ..write("orders")? })
    };
    let verdict = clients.decide(asked()?).await?;
    let pending = review(&mut clients, &verdict).await?;
    assert_eq!(pending.ask.as_ref().context("nothing is asked")?.arguments.get("limit"), Some(&long(5)));

    let answer = clients.review.approve(approval(&pending)?).await?.into_inner();
    let approved = answer.review.context("no review")?;
    assert_eq!(approved.status(), ReviewStatus::Approved);
    let at_least = |asked: v1::Attempt| v1::Attempt { at_least_version: answer.state_version, ..asked };
    assert_eq!(clients.decide(at_least(asked()?)).await?.decision(), Decision::Allow);

    let other_argument = v1::Attempt { context: [("limit".to_owned(), long(6))].into(), ..write("orders")? };
    let other_action = attempt("Agent::biller", "drop", "Table::orders", "s")?;
    let on_behalf = v1::Attempt { delegation: vec![entity("User::alice")?], ..asked()? };
    for (attempt, expected) in [
        (other_argument, Decision::StepUp),
        (write("orders")?, Decision::StepUp),
        (v1::Attempt { resource: Some(entity("Table::invoices")?), ..asked()? }, Decision::StepUp),
        (other_action, Decision::Deny),
    ] {
        let verdict = clients.decide(at_least(attempt)).await?;
        assert_eq!(verdict.decision(), expected, "{verdict:?}");
    }
    assert_ne!(clients.decide(at_least(on_behalf)).await?.decision(), Decision::Allow);
    // The same again, its answer lost: nothing changes. A rejection takes the approval back.
    let again = clients.review.approve(approval(&pending)?).await?.into_inner();
    assert_eq!(again.review.context("no review")?.decided_at, approved.decided_at);
    clients.review.reject(rejection(&pending)?).await?;
    let verdict = clients.decide(asked()?).await?;
    assert_eq!(verdict.decision(), Decision::StepUp);
    assert_eq!(review(&mut clients, &verdict).await?.status(), ReviewStatus::Rejected);
    Ok(())
}

#[tokio::test]
async fn a_grant_ends_and_the_next_attempt_asks_anew() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let verdict = clients.decide(write("orders")?).await?;
    let pending = review(&mut clients, &verdict).await?;
    let ends_at = Some(cardea_tests::attempts::wall_time(5)?);
    clients.review.approve(v1::ApproveReviewRequest { ends_at, ..approval(&pending)? }).await?;
    assert_eq!(clients.decide(write("orders")?).await?.decision(), Decision::Allow);
    let verdict = wait::until("the end of the grant", async || {
        let verdict = clients.decide(write("orders")?).await?;
        Ok((verdict.decision() == Decision::StepUp).then_some(verdict))
    })
    .await?;
    let next = wait::until("the next round", async || {
        let next = review(&mut clients, &verdict).await?;
        Ok((next.round == 2).then_some(next))
    })
    .await?;
    assert_eq!((next.id, next.status), (pending.id.clone(), ReviewStatus::Pending.into()));
    // Who looked at the first round does not approve the second one unseen.
    let status = clients.review.approve(approval(&pending)?).await.err().context("it was approved")?;
    assert_eq!(status.code(), Code::FailedPrecondition);
    Ok(())
}

#[tokio::test]
async fn a_rejection_stays_until_it_is_over() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let verdict = clients.decide(write("orders")?).await?;
    let pending = review(&mut clients, &verdict).await?;
    clients.review.reject(rejection(&pending)?).await?;
    for _ in 0..20 {
        let verdict = clients.decide(write("orders")?).await?;
        let rejected = review(&mut clients, &verdict).await?;
        assert_eq!((rejected.status(), rejected.round), (ReviewStatus::Rejected, 1));
    }
    let status = clients.review.approve(approval(&pending)?).await.err().context("it was approved")?;
    assert_eq!(status.code(), Code::FailedPrecondition);
    Ok(())
}

#[tokio::test]
async fn what_is_no_proper_approval_is_refused_and_changes_nothing() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let verdict = clients.decide(write("orders")?).await?;
    let pending = review(&mut clients, &verdict).await?;
    let scope = |actions: &[&str], resources: &[&str]| {
        Some(v1::ReviewScope {
            actions: actions.iter().map(ToString::to_string).collect(),
            resources: resources.iter().map(ToString::to_string).collect(),
            this_session_only: false,
        })
    };
    let good = approval(&pending)?;
    let with = |change: &dyn Fn(&mut v1::ApproveReviewRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let (biller, stranger, other) =
        (entity("Agent::biller")?, entity("User::alice")?, entity("Team::billing")?);
    let late = cardea_tests::attempts::wall_time(901)?;
    let past = cardea_tests::attempts::wall_time(-1)?;
    for (request, code) in [
        (with(&|one| one.reviewer = Some(biller.clone())), Code::PermissionDenied),
        (with(&|one| one.reviewer = Some(stranger.clone())), Code::PermissionDenied),
        (with(&|one| one.reviewer = Some(other.clone())), Code::PermissionDenied),
        (with(&|one| one.reviewer = None), Code::InvalidArgument),
        (with(&|one| one.round = 2), Code::FailedPrecondition),
        (with(&|one| one.round = 0), Code::FailedPrecondition),
        (with(&|one| one.ends_at = Some(late)), Code::InvalidArgument),
        (with(&|one| one.ends_at = Some(past)), Code::InvalidArgument),
        (with(&|one| one.scope = scope(&["write", "drop"], &[])), Code::InvalidArgument),
        (with(&|one| one.scope = scope(&[], &["Table::\"*\""])), Code::InvalidArgument),
        (with(&|one| one.scope = scope(&[], &["Table::\"orders\"", "Table::\"x\""])), Code::InvalidArgument),
        (with(&|one| one.reason = "x".repeat(257)), Code::InvalidArgument),
        (with(&|one| one.id = "no digest".to_owned()), Code::InvalidArgument),
        (with(&|one| one.id = "0".repeat(64)), Code::NotFound),
    ] {
        let status = clients.review.approve(request.clone()).await.err();
        let status = status.with_context(|| format!("{request:?} was approved"))?;
        assert_eq!(status.code(), code, "{request:?}: {status:?}");
        assert_eq!(clients.decide(write("orders")?).await?.decision(), Decision::StepUp);
    }
    clients.review.approve(with(&|one| one.scope = scope(&["write"], &["Table::\"orders\""]))).await?;
    assert_eq!(clients.decide(write("orders")?).await?.decision(), Decision::Allow);
    Ok(())
}

#[tokio::test]
async fn a_reviewer_who_is_disabled_approves_nothing() -> Result<()> {
    let reviewers = r#"reviewers = ["Team::\"duty-officers\""]"#;
    let with_alice = r#"reviewers = ["Team::\"duty-officers\"", "User::\"alice\""]"#;
    let cardea = Cardea::start_with(options().edit("bundle.toml", reviewers, with_alice)).await?;
    let mut clients = cardea.clients()?;
    prepare(&mut clients).await?;
    let verdict = clients.decide(write("orders")?).await?;
    let pending = review(&mut clients, &verdict).await?;
    let disabled = v1::signal::Change::PrincipalDisabled(v1::PrincipalDisabled::default());
    clients.report(Some("User::alice"), disabled).await?;
    let by_alice = v1::ApproveReviewRequest { reviewer: Some(entity("User::alice")?), ..approval(&pending)? };
    let refused = clients.review.approve(by_alice).await.err().context("approved")?;
    ensure!(refused.code() == Code::PermissionDenied && refused.message().contains("disabled"), "{refused}");
    let rejected = v1::RejectReviewRequest { reviewer: Some(entity("User::alice")?), ..rejection(&pending)? };
    clients.review.reject(rejected).await?;
    Ok(())
}

#[tokio::test]
async fn arguments_that_nobody_would_read_open_no_review() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let text = v1::Value { kind: Some(v1::value::Kind::String("x".repeat(20_000))) };
    let large = v1::Attempt { context: [("tenant".to_owned(), text)].into(), ..write("orders")? };
    let verdict = clients.decide(large).await?;
    assert_eq!(verdict.decision(), Decision::StepUp);
    assert_eq!(verdict.step_up.first().context("no requirement")?.review_id, "");
    Ok(())
}

#[tokio::test]
async fn reviews_and_grants_survive_kill_9() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    let verdict = clients.decide(write("orders")?).await?;
    let approved = review(&mut clients, &verdict).await?;
    let verdict = clients.decide(write("invoices")?).await?;
    let rejected = review(&mut clients, &verdict).await?;
    clients.review.approve(approval(&approved)?).await?;
    clients.review.reject(rejection(&rejected)?).await?;
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    assert_eq!(clients.decide(write("orders")?).await?.decision(), Decision::Allow);
    let verdict = clients.decide(write("invoices")?).await?;
    assert_eq!(review(&mut clients, &verdict).await?.status(), ReviewStatus::Rejected);
    let reviews = all(&mut clients).await?;
    assert_eq!(reviews.len(), 2, "{reviews:?}");
    Ok(())
}

#[tokio::test]
async fn the_records_tell_the_story_in_order() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let verdict = clients.decide(write("orders")?).await?;
    let pending = review(&mut clients, &verdict).await?;
    clients.review.approve(approval(&pending)?).await?;
    clients.review.reject(rejection(&pending)?).await?;
    let filter =
        v1::RecordFilter { kinds: vec![v1::RecordKind::Review.into()], ..v1::RecordFilter::default() };
    let request = v1::StreamRecordsRequest { from_sequence: 1, filter: Some(filter), from_time: None };
    let mut stream = clients.audit.stream(request).await?.into_inner();
    let mut told = Vec::new();
    while told.len() < 3 {
        let response = wait::within("the records", stream.message()).await??.context("the stream ended")?;
        for record in response.records {
            let Some(v1::record::Entry::Review(review)) = record.entry else { continue };
            ensure!(
                review.review_id == pending.id && review.decision_id == verdict.decision_id,
                "{review:?}"
            );
            told.push((review.change, review.reason));
        }
    }
    let told: Vec<(&str, &str)> = told.iter().map(|(change, why)| (change.as_str(), why.as_str())).collect();
    assert_eq!(told, [("opened", ""), ("approved", "as planned"), ("revoked", "not now")]);
    Ok(())
}

#[tokio::test]
async fn reviews_are_listed_and_decided_from_the_command_line() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let verdict = clients.decide(write("orders")?).await?;
    let pending = review(&mut clients, &verdict).await?;
    let listed = cardea.run(&["review", "list", "--format", "json"]).await?;
    let listed: serde_json::Value = serde_json::from_str(&listed.stdout)?;
    assert_eq!(listed["reviews"][0]["id"], pending.id);
    assert_eq!(listed["reviews"][0]["status"], "pending");
    let wrong = cardea.run(&["review", "approve", &pending.id, "--as", "Agent::\"biller\""]).await?;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    let reviewer = ["--as", "Team::\"duty-officers\"", "--ends", "5m", "--reason", "as planned"];
    let approved = cardea.run(&[&["review", "approve", pending.id.as_str()][..], &reviewer].concat()).await?;
    assert_eq!(approved.code, Some(0), "{approved:?}");
    assert_eq!(clients.decide(write("orders")?).await?.decision(), Decision::Allow);
    let shown = cardea.run(&["review", "show", &pending.id]).await?;
    assert!(shown.stdout.contains("approved, round 1") && shown.stdout.contains("as planned"), "{shown:?}");
    let rejected = cardea.run(&["review", "reject", &pending.id, "--as", "Team::\"duty-officers\""]).await?;
    assert_eq!(rejected.code, Some(0), "{rejected:?}");
    assert_eq!(clients.decide(write("orders")?).await?.decision(), Decision::StepUp);
    Ok(())
}

#[tokio::test]
async fn a_grant_for_one_attempt_opens_no_hold_is_used_once_and_stays_used_after_kill_9() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    let verdict = clients.decide(write("orders")?).await?;
    let pending = review(&mut clients, &verdict).await?;
    clients.review.approve(v1::ApproveReviewRequest { once: true, ..approval(&pending)? }).await?;
    // Whoever only wants to hold it neither gets it nor uses it up.
    let mut point = Point::open(&mut clients, None).await?;
    point.add(vec![held(1, write("orders")?)]).await?;
    assert_eq!(decision(&point.answer().await?), Decision::StepUp);
    assert_eq!(clients.decide(write("orders")?).await?.decision(), Decision::Allow);
    let used = audit::find(&mut clients, "the record of its use", |record| match &record.entry {
        Some(v1::record::Entry::Review(review)) if review.change == "used" => {
            Some((review.round, review.once))
        }
        _ => None,
    });
    assert_eq!(used.await?, (1, true));
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    let verdict = clients.decide(write("orders")?).await?;
    let next = review(&mut clients, &verdict).await?;
    assert_eq!((next.status(), next.round), (ReviewStatus::Pending, 2));
    Ok(())
}
