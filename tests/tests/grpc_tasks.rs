//! Approved tasks over the wire: narrowing and ending take effect at once, for everybody who refers to them.

use anyhow::{Context as _, Result};
use cardea_proto::v1;
use cardea_proto::v1::{Decision, TaskStatus};
use cardea_tests::attempts::{attempt, entity, wall_time};
use cardea_tests::cardea::{Cardea, Options};
use cardea_tests::clients::Clients;
use tonic::Code;

/// Reading takes a task that covers it.
fn options() -> Options {
    let policy = "\n@id(\"reads_need_a_task\")\nforbid (principal is Agent, action == Action::\"read\", resource)\n\
                  unless { context.task.active && context.task.in_scope };\n\n@id(\"high_risk_stops\")";
    Options::default()
        .with_invoices()
        .edit("schema.cedarschema", "risk: Cardea::Risk,", "risk: Cardea::Risk,\n  task: Cardea::Task,")
        .edit("policies/guards.cedar", "\n@id(\"high_risk_stops\")", policy)
}

async fn started() -> Result<(Cardea, Clients)> {
    let cardea = Cardea::start_with(options()).await?;
    let clients = cardea.clients()?;
    Ok((cardea, clients))
}

fn approval(id: &str) -> Result<v1::ApproveTaskRequest> {
    Ok(v1::ApproveTaskRequest {
        task: Some(v1::Task {
            id: id.to_owned(),
            purpose: "month end".to_owned(),
            not_before: None,
            not_after: Some(wall_time(3600)?),
            actions: vec!["read".to_owned(), "write".to_owned()],
            resources: vec!["Table::\"*\"".to_owned()],
        }),
        agent: Some(entity("Agent::biller")?),
        on_behalf_of: None,
        approved_by: Some(entity("User::alice")?),
        latest_end: Some(wall_time(7200)?),
    })
}

fn read(table: &str, session: &str, task: &str) -> Result<v1::Attempt> {
    let asked = attempt("Agent::biller", "read", &format!("Table::{table}"), session)?;
    Ok(v1::Attempt { task_id: task.to_owned(), ..asked })
}

async fn open(clients: &mut Clients, id: &str, task: &str, parent: &str) -> Result<(), tonic::Status> {
    let session = v1::Session {
        id: id.to_owned(),
        principal: entity("Agent::biller").ok(),
        task_id: task.to_owned(),
        parent_session_id: parent.to_owned(),
        ..v1::Session::default()
    };
    clients.session.open(v1::OpenSessionRequest { session: Some(session) }).await.map(|_| ())
}

fn by() -> Result<Option<v1::EntityRef>> {
    Ok(Some(entity("User::alice")?))
}

#[tokio::test]
async fn what_is_taken_from_a_task_is_gone_at_once() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    clients.task.approve(approval("t")?).await?;
    open(&mut clients, "s", "t", "").await?;
    let mut decided =
        async |asked: v1::Attempt| -> Result<Decision> { Ok(clients.decide(asked).await?.decision()) };
    assert_eq!(decided(read("orders", "s", "")?).await?, Decision::Allow);
    assert_eq!(decided(read("invoices", "s", "")?).await?, Decision::Allow);
    assert_eq!(decided(read("orders", "s", "other")?).await?, Decision::Deny);
    assert_eq!(decided(read("orders", "", "unknown")?).await?, Decision::Deny);

    let narrow = v1::NarrowTaskRequest {
        id: "t".to_owned(),
        resources: vec!["Table::\"ord*\"".to_owned()],
        by: by()?,
        reason: "only orders are left".to_owned(),
        ..v1::NarrowTaskRequest::default()
    };
    let narrowed = clients.task.narrow(narrow.clone()).await?.into_inner();
    let at_least = |asked: v1::Attempt| v1::Attempt { at_least_version: narrowed.state_version, ..asked };
    assert_eq!(clients.decide(at_least(read("orders", "s", "")?)).await?.decision(), Decision::Allow);
    assert_eq!(clients.decide(at_least(read("invoices", "s", "")?)).await?.decision(), Decision::Deny);

    // Nothing comes back.
    let wider = v1::NarrowTaskRequest { resources: vec!["Table::\"*\"".to_owned()], ..narrow };
    let status = clients.task.narrow(wider).await.err().context("it was widened")?;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");

    let end = v1::EndTaskRequest { id: "t".to_owned(), by: by()?, reason: "done".to_owned() };
    clients.task.end(end.clone()).await?;
    assert_eq!(clients.decide(read("orders", "s", "")?).await?.decision(), Decision::Deny);
    let ended = clients.task.end(end).await?.into_inner().task.context("no task")?;
    assert_eq!((ended.status(), ended.changes.len()), (TaskStatus::Ended, 2));
    let extend = v1::ExtendTaskRequest {
        id: "t".to_owned(),
        not_after: Some(wall_time(4000)?),
        by: by()?,
        reason: String::new(),
    };
    let status = clients.task.extend(extend).await.err().context("it was extended")?;
    assert_eq!(status.code(), Code::FailedPrecondition);
    Ok(())
}

#[tokio::test]
async fn only_its_agent_uses_a_task() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let for_alice = v1::ApproveTaskRequest { on_behalf_of: by()?, ..approval("for-alice")? };
    let for_alice = v1::ApproveTaskRequest { approved_by: Some(entity("User::bob")?), ..for_alice };
    clients.task.approve(for_alice).await?;
    clients.task.approve(approval("own")?).await?;
    clients.open_session("s", "Agent::biller").await?;
    assert_eq!(clients.decide(read("orders", "s", "own")?).await?.decision(), Decision::Allow);
    // It was approved for work on behalf of alice, who is not in the chain.
    assert_eq!(clients.decide(read("orders", "s", "for-alice")?).await?.decision(), Decision::Deny);
    let stranger =
        v1::Attempt { task_id: "own".to_owned(), ..attempt("Agent::stranger", "read", "Table::orders", "")? };
    let verdict = clients.decide(stranger).await?;
    assert_eq!(verdict.determining_policies, ["reads_need_a_task"], "{verdict:?}");
    Ok(())
}

#[tokio::test]
async fn what_is_no_proper_task_is_refused() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    let first = clients.task.approve(approval("t")?).await?.into_inner().task;
    // A repeated call, its answer lost, is the same; another task of that id is not.
    let request =
        v1::ApproveTaskRequest { task: first.as_ref().and_then(|one| one.task.clone()), ..approval("t")? };
    let request =
        v1::ApproveTaskRequest { latest_end: first.as_ref().and_then(|one| one.latest_end), ..request };
    assert_eq!(clients.task.approve(request).await?.into_inner().task, first);
    let good = approval("new")?;
    let with = |change: &dyn Fn(&mut v1::ApproveTaskRequest, &mut v1::Task)| {
        let mut request = good.clone();
        let mut task = request.task.take().unwrap_or_default();
        change(&mut request, &mut task);
        request.task = Some(task);
        request
    };
    let (past, far, agent) = (wall_time(-1)?, wall_time(100 * 86_400)?, entity("Agent::biller")?);
    for (request, code) in [
        (with(&|_, task| task.id = "t".to_owned()), Code::AlreadyExists),
        (with(&|_, task| task.id = String::new()), Code::InvalidArgument),
        (with(&|_, task| task.id = "x".repeat(129)), Code::InvalidArgument),
        (with(&|_, task| task.actions.clear()), Code::InvalidArgument),
        (with(&|_, task| task.actions = vec!["Action::\"read\"".to_owned()]), Code::InvalidArgument),
        (with(&|_, task| task.actions = vec![String::new()]), Code::InvalidArgument),
        (with(&|_, task| task.not_after = None), Code::InvalidArgument),
        (with(&|_, task| task.not_after = Some(past)), Code::InvalidArgument),
        (with(&|_, task| task.not_after = Some(far)), Code::InvalidArgument),
        (with(&|request, _| request.latest_end = Some(far)), Code::InvalidArgument),
        (with(&|_, task| task.resources = vec!["Table".to_owned()]), Code::InvalidArgument),
        (with(&|_, task| task.actions = vec!["x".repeat(257)]), Code::InvalidArgument),
        (with(&|_, task| task.actions = vec!["x".to_owned(); 257]), Code::InvalidArgument),
        (with(&|request, _| request.agent = None), Code::InvalidArgument),
        (with(&|request, _| request.approved_by = None), Code::InvalidArgument),
        (with(&|request, _| request.approved_by = Some(agent.clone())), Code::PermissionDenied),
    ] {
        let status = clients.task.approve(request.clone()).await.err();
        let status = status.with_context(|| format!("{request:?} was approved"))?;
        assert_eq!(status.code(), code, "{request:?}: {status:?}");
    }
    let status = open(&mut clients, "s", "unknown", "").await.err().context("it was opened")?;
    assert_eq!(status.code(), Code::NotFound);
    Ok(())
}

#[tokio::test]
async fn whoever_is_disabled_opens_nothing_and_still_closes() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    clients.task.approve(approval("t")?).await?;
    let disabled = v1::signal::Change::PrincipalDisabled(v1::PrincipalDisabled::default());
    clients.report(Some("User::alice"), disabled).await?;
    let (id, alice) = ("t".to_owned(), Some(entity("User::alice")?));
    let extended = v1::ExtendTaskRequest {
        id: id.clone(),
        not_after: Some(wall_time(7000)?),
        by: alice.clone(),
        reason: String::new(),
    };
    for refused in
        [clients.task.approve(approval("other")?).await.err(), clients.task.extend(extended).await.err()]
    {
        let status = refused.context("done by somebody who is disabled")?;
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    }
    clients.task.end(v1::EndTaskRequest { id, by: alice, reason: String::new() }).await?;
    Ok(())
}

#[tokio::test]
async fn ending_a_session_ends_what_runs_under_it() -> Result<()> {
    let (_cardea, mut clients) = started().await?;
    clients.task.approve(approval("t")?).await?;
    open(&mut clients, "root", "t", "").await?;
    open(&mut clients, "middle", "t", "root").await?;
    open(&mut clients, "leaf", "t", "middle").await?;
    assert_eq!(clients.decide(read("orders", "leaf", "")?).await?.decision(), Decision::Allow);
    let version = clients.end_session("root").await?;
    for session in ["leaf", "middle", "root"] {
        let asked = v1::Attempt { at_least_version: version, ..read("orders", session, "")? };
        let verdict = clients.decide(asked).await?;
        assert_eq!(
            cardea_tests::attempts::codes(&verdict),
            [v1::ReasonCode::SessionRevoked],
            "{session}: {verdict:?}"
        );
    }
    let shown = clients.session.get(v1::GetSessionRequest { id: "leaf".to_owned() }).await?.into_inner();
    assert_eq!(shown.session.context("no session")?.status(), v1::SessionStatus::Revoked);
    let status = open(&mut clients, "late", "t", "middle").await.err().context("it was opened")?;
    assert_eq!(status.code(), Code::FailedPrecondition);
    let status = open(&mut clients, "orphan", "t", "nobody").await.err().context("it was opened")?;
    assert_eq!(status.code(), Code::NotFound);
    let mut parent = String::new();
    for depth in 0..9 {
        let id = format!("d{depth}");
        let opened = open(&mut clients, &id, "t", &parent).await;
        assert_eq!(opened.is_ok(), depth < 8, "{depth}: {opened:?}");
        parent = id;
    }
    Ok(())
}

#[tokio::test]
async fn tasks_survive_kill_9() -> Result<()> {
    let (mut cardea, mut clients) = started().await?;
    for id in ["narrowed", "ended"] {
        clients.task.approve(approval(id)?).await?;
    }
    let narrow = v1::NarrowTaskRequest {
        id: "narrowed".to_owned(),
        resources: vec!["Table::\"orders\"".to_owned()],
        by: by()?,
        ..v1::NarrowTaskRequest::default()
    };
    clients.task.narrow(narrow).await?;
    clients.task.end(v1::EndTaskRequest { id: "ended".to_owned(), by: by()?, reason: String::new() }).await?;
    open(&mut clients, "s", "narrowed", "").await?;
    let before = clients.task.list(v1::ListTasksRequest::default()).await?.into_inner().tasks;
    cardea.process.kill()?;
    cardea.start_again().await?;
    let mut clients = cardea.clients()?;
    let after = clients.task.list(v1::ListTasksRequest::default()).await?.into_inner().tasks;
    assert_eq!(after, before);
    assert_eq!(clients.decide(read("orders", "s", "")?).await?.decision(), Decision::Allow);
    assert_eq!(clients.decide(read("invoices", "s", "")?).await?.decision(), Decision::Deny);
    Ok(())
}

#[tokio::test]
async fn tasks_are_worked_with_from_the_command_line() -> Result<()> {
    let (cardea, mut clients) = started().await?;
    let words = [
        "task",
        "approve",
        "t",
        "--agent",
        "Agent::\"biller\"",
        "--action",
        "read",
        "--resource",
        "Table::\"*\"",
        "--ends",
        "1h",
        "--latest-end",
        "4h",
        "--by",
        "User::\"alice\"",
        "--purpose",
        "month end",
    ];
    let approved = cardea.run(&words).await?;
    assert_eq!(approved.code, Some(0), "{approved:?}");
    assert!(approved.stdout.contains("t (active)"), "{approved:?}");
    open(&mut clients, "s", "t", "").await?;
    assert_eq!(clients.decide(read("orders", "s", "")?).await?.decision(), Decision::Allow);
    let by = ["--by", "User::\"alice\"", "--format", "json"];
    let told = async |words: &[&str]| -> Result<serde_json::Value> {
        let finished = cardea.run(&[words, &by].concat()).await?;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        Ok(serde_json::from_str(&finished.stdout)?)
    };
    let narrowed = told(&["task", "narrow", "t", "--resource", "Table::\"orders\""]).await?;
    assert_eq!(narrowed["task"]["resources"], serde_json::json!(["Table::\"orders\""]));
    let extended = told(&["task", "extend", "t", "--ends", "2h"]).await?;
    assert_eq!(extended["task"]["changes"][1]["change"], "extended");
    let refused = cardea.run(&["task", "extend", "t", "--ends", "9h", "--by", "User::\"alice\""]).await?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let ended = told(&["task", "end", "t"]).await?;
    assert_eq!(ended["task"]["status"], "ended");
    let listed = cardea.run(&["task", "list"]).await?;
    assert!(listed.stdout.contains("ended"), "{listed:?}");
    let unknown = cardea.run(&["task", "show", "other"]).await?;
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    Ok(())
}
