//! Who the caller is, through a real Envoy: verified tokens, forwarded certificates, and the connection's own.

use std::sync::Arc;

use anyhow::Result;
use cardea_tests::attempts::wall_time;
use cardea_tests::cardea::Options;
use cardea_tests::certs::{Authority, Identity};
use cardea_tests::envoy::Xfcc;
use cardea_tests::http::{Answer, Request};
use cardea_tests::stack::{Over, SESSION, Stack};
use serde_json::{Value, json};
use tempfile::TempDir;

const ORDERS: &str = "/tables/orders";
const TRUST: &str = "[ext_authz]\ntrust_xfcc = true\n";

fn reason(answer: &Answer) -> Result<String> {
    Ok(answer.json()?.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_request_without_identity_gets_401_and_a_bad_token_goes_no_further() -> Result<()> {
    let stack = Stack::start().await?;
    let answer = Request::get(ORDERS).send(stack.envoy.address).await?;
    assert_eq!((answer.status, answer.header("www-authenticate")?), (401, "Bearer"), "{answer:?}");
    assert_eq!(reason(&answer)?, "no_identity");

    let stranger = cardea_tests::token::Idp::new()?.token("biller", SESSION)?;
    let answer = Request::get(ORDERS).bearer(&stranger).send(stack.envoy.address).await?;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(stack.upstream.count(), 0);
    Ok(())
}

#[tokio::test]
async fn the_claims_of_a_verified_token_name_agent_session_and_those_it_acts_for() -> Result<()> {
    let mut stack = Stack::start().await?;
    stack.clients.open_session("session-of-ann", "User::ann").await?;
    // Another agent, another's session, and no session: none may read.
    for claims in [
        json!({ "sub": "stranger", "sid": SESSION }),
        json!({ "sub": "biller", "sid": "session-of-ann" }),
        json!({ "sub": "biller" }),
        json!({ "sub": "biller", "sid": 7 }),
        json!({ "sub": "", "sid": SESSION }),
        json!({ "sid": SESSION }),
    ] {
        let token = stack.idp.token_with(claims.clone())?;
        let answer = Request::get(ORDERS).bearer(&token).send(stack.envoy.address).await?;
        assert_eq!(answer.status, 403, "{claims}: {answer:?}");
    }
    assert_eq!(stack.upstream.count(), 0);

    // ann may read, and biller acts for her; bob may not, so neither may biller for him.
    let ann = json!({ "sub": "ann", "sid": "session-of-ann", "act": { "sub": "biller" } });
    let token = stack.idp.token_with(ann)?;
    let answer = Request::get(ORDERS).bearer(&token).send(stack.envoy.address).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = stack.upstream.seen();
    assert_eq!(seen.last().map(|seen| seen.all("x-cardea-principal")), Some(vec!["Agent::\"biller\""]));

    let bob = json!({ "sub": "bob", "sid": SESSION, "act": { "sub": "biller" } });
    let token = stack.idp.token_with(bob)?;
    let answer = Request::get(ORDERS).bearer(&token).send(stack.envoy.address).await?;
    assert_eq!((answer.status, reason(&answer)?.as_str()), (403, "no_permit"), "{answer:?}");
    assert_eq!(stack.upstream.count(), 1);
    Ok(())
}

#[tokio::test]
async fn with_sessions_opened_from_tokens_the_first_request_suffices_until_the_session_ends() -> Result<()> {
    let options = Options::default().edit("bundle.toml", "[sessions]", "[sessions]\nopen_from_token = true");
    let mut stack = Stack::start_with(options, Over::Tcp, |_| {}).await?;
    let token = stack.idp.token("biller", "never-opened")?;
    let request = Request::get(ORDERS).bearer(&token);
    assert_eq!(request.send(stack.envoy.address).await?.status, 200);
    let got =
        stack.clients.session.get(cardea_proto::v1::GetSessionRequest { id: "never-opened".to_owned() });
    let session = got.await?.into_inner().session.unwrap_or_default();
    assert_eq!(session.principal.map(|principal| principal.id), Some("biller".to_owned()));

    // The token's login counts as the session's.
    let transfer = Request::new("POST", "/accounts/a-1/transfers");
    let answer = transfer.clone().bearer(&token).send(stack.envoy.address).await?;
    assert_eq!(answer.status, 401, "{answer:?}");
    let login = json!({ "sub": "biller", "sid": "logged-in", "acr": "urn:example:acr:mfa",
        "auth_time": wall_time(-60)?.seconds });
    let fresh = stack.idp.token_with(login)?;
    let answer = transfer.bearer(&fresh).send(stack.envoy.address).await?;
    assert_eq!(answer.status, 200, "{answer:?}");

    // A token older than a session's longest life opens none: the memory of an end may be gone by then.
    let old = json!({ "sub": "biller", "sid": "long-ago", "iat": wall_time(-3700)?.seconds });
    let old = stack.idp.token_with(old)?;
    let answer = Request::get(ORDERS).bearer(&old).send(stack.envoy.address).await?;
    assert_eq!((answer.status, reason(&answer)?.as_str()), (403, "no_permit"), "{answer:?}");

    stack.clients.end_session("never-opened").await?;
    let answer = request.send(stack.envoy.address).await?;
    assert_eq!((answer.status, reason(&answer)?.as_str()), (403, "session_revoked"), "{answer:?}");
    Ok(())
}

/// Envoy with mutual TLS in front of a bundle whose only source of identity is `source`.
struct Mutual {
    stack: Stack,
    authority: Authority,
    _dir: TempDir,
}

impl Mutual {
    async fn start(source: &str, config: &str, xfcc: Xfcc) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let authority = Authority::new("test authority")?;
        let files = authority.write(dir.path(), &authority.server()?)?;
        let table = |name: &str| {
            format!("[identity.{name}]\ntype = \"Workload\"\ntrust_domains = [\"test.local\"]\n")
        };
        let other = if source == "xfcc" { "mtls" } else { "xfcc" };
        let options = Options::default()
            .config(config)
            .edit(
                "routes.toml",
                "sources = [\"jwt\", \"xfcc\", \"mtls\"]",
                format!("sources = [\"{source}\"]"),
            )
            .edit("routes.toml", table(other), "")
            .edit("routes.toml", jwt_table()?, "");
        let stack = Stack::start_with(options, Over::Tcp, |front| {
            front.tls = Some(files);
            front.xfcc = xfcc;
            front.jwks = None;
        })
        .await?;
        Ok(Self { stack, authority, _dir: dir })
    }

    async fn send(&self, identity: &Identity, request: Request) -> Result<Answer> {
        let config = Arc::new(self.authority.client_config(Some(identity))?);
        request.send_tls(self.stack.envoy.address, config).await
    }
}

fn jwt_table() -> Result<String> {
    let text = std::fs::read_to_string(cardea_tests::bundle::web().join("routes.toml"))?;
    let start = text.find("[identity.jwt]").unwrap_or_default();
    let end = text.find("[identity.xfcc]").unwrap_or_default();
    Ok(text.get(start..end).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_certificate_of_the_connection_names_the_workload() -> Result<()> {
    let mutual = Mutual::start("mtls", "", Xfcc::Sanitize).await?;
    let good = mutual.authority.client("spiffe://test.local/reader")?;
    let forged = Request::get(ORDERS).header("x-forwarded-client-cert", "URI=spiffe://test.local/other");
    let answer = mutual.send(&good, forged).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = mutual.stack.upstream.seen();
    let principal = seen.last().map(|seen| seen.all("x-cardea-principal"));
    assert_eq!(principal, Some(vec!["Workload::\"spiffe://test.local/reader\""]));

    let foreign = mutual.authority.client("spiffe://elsewhere/reader")?;
    let answer = mutual.send(&foreign, Request::get(ORDERS)).await?;
    assert_eq!((answer.status, reason(&answer)?.as_str()), (403, "no_identity"), "{answer:?}");
    assert_eq!(mutual.stack.upstream.count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_forwarded_certificate_names_the_workload_only_where_it_is_trusted() -> Result<()> {
    let trusted = Mutual::start("xfcc", TRUST, Xfcc::SanitizeSet).await?;
    let good = trusted.authority.client("spiffe://test.local/reader")?;
    // Envoy replaces what the client claims by what its certificate proves.
    let forged = Request::get(ORDERS).header("x-forwarded-client-cert", "URI=spiffe://test.local/other");
    let answer = trusted.send(&good, forged).await?;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = trusted.stack.upstream.seen();
    let principal = seen.last().map(|seen| seen.all("x-cardea-principal"));
    assert_eq!(principal, Some(vec!["Workload::\"spiffe://test.local/reader\""]));

    let untrusted = Mutual::start("xfcc", "", Xfcc::SanitizeSet).await?;
    let good = untrusted.authority.client("spiffe://test.local/reader")?;
    let answer = untrusted.send(&good, Request::get(ORDERS)).await?;
    assert!([401, 403].contains(&answer.status), "{answer:?}");
    assert_eq!(reason(&answer)?, "no_identity");
    assert_eq!(untrusted.stack.upstream.count(), 0);
    Ok(())
}

#[tokio::test]
async fn a_forwarded_certificate_that_the_client_wrote_itself_is_not_believed_by_default() -> Result<()> {
    let open = Mutual::start("xfcc", "", Xfcc::Forward).await?;
    let nobody = open.authority.client("spiffe://elsewhere/nobody")?;
    let forged = Request::get(ORDERS).header("x-forwarded-client-cert", "URI=spiffe://test.local/reader");
    let answer = open.send(&nobody, forged).await?;
    assert!([401, 403].contains(&answer.status), "{answer:?}");
    assert_eq!(open.stack.upstream.count(), 0);
    Ok(())
}
