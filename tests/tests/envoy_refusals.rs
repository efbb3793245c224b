//! What must never reach the upstream through a real Envoy.

use anyhow::Result;
use cardea_tests::cardea::Options;
use cardea_tests::envoy::{self, Authz, Envoy};
use cardea_tests::http::Request;
use cardea_tests::stack::{Over, Stack};
use cardea_tests::token::Idp;
use cardea_tests::upstream::Upstream;
use cardea_tests::wait;

#[tokio::test]
async fn where_cardea_never_was_envoy_refuses() -> Result<()> {
    let upstream = Upstream::start()?;
    let idp = Idp::new()?;
    let nowhere = Authz::Uds("/nonexistent/cardea.sock".into());
    let mut options = envoy::Options::new(nowhere, upstream.address);
    options.jwks = Some(idp.jwks()?);
    let envoy = Envoy::start(&options).await?;
    let bad = Request::get("/tables/orders").bearer("not.a.token").send(envoy.address).await?;
    assert_eq!(bad.status, 401, "Envoy itself refuses a bad token: {bad:?}");
    let good = idp.token("biller", "s")?;
    for request in [Request::get("/tables/orders").bearer(&good), Request::get("/tables/orders")] {
        let answer = request.send(envoy.address).await?;
        assert!([403, 503].contains(&answer.status), "{answer:?}");
    }
    assert_eq!(upstream.count(), 0);
    Ok(())
}

#[tokio::test]
async fn without_cardea_envoy_refuses_and_with_it_again_goes_on() -> Result<()> {
    let mut stack = Stack::start_with(Options::default(), Over::Uds, |_| {}).await?;
    stack.allowed(Request::get("/tables/orders")).await?;
    for round in 0..2 {
        if round == 0 {
            stack.cardea.process.kill()?;
        } else {
            let status = stack.cardea.process.terminate().await?;
            assert!(status.success(), "{status}");
        }
        for _ in 0..3 {
            let before = stack.upstream.count();
            let answer = stack.send(Request::get("/tables/orders")).await?;
            assert!([403, 503].contains(&answer.status), "{answer:?}");
            assert_eq!(stack.upstream.count(), before);
        }
        stack.cardea.start_again().await?;
        // The session outlived the process.
        // Envoy waits a little between two attempts to connect.
        wait::until("Envoy to find cardea again", async || {
            let answer = stack.send(Request::get("/tables/orders")).await?;
            Ok((answer.status == 200).then_some(()))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_request_without_a_route_is_denied() -> Result<()> {
    let stack = Stack::start().await?;
    let unrouted = [
        ("GET", "/"),
        ("GET", "/tables"),
        ("GET", "/tables/orders/rows"),
        ("GET", "/tables/orders/"),
        ("GET", "/TABLES/orders"),
        ("PATCH", "/tables/orders"),
        ("get", "/tables/orders"),
        ("GET", "/admin"),
    ];
    for (method, target) in unrouted {
        let before = stack.upstream.count();
        let answer = stack.send(Request::new(method, target)).await?;
        assert!([400, 403].contains(&answer.status), "{method} {target}: {answer:?}");
        assert_eq!(stack.upstream.count(), before, "{method} {target} reached the upstream");
    }
    let answer = stack.stopped(Request::get("/admin"), 403).await?;
    assert_eq!(answer.json()?.get("reason").and_then(|reason| reason.as_str()), Some("no_route"));
    Ok(())
}

#[tokio::test]
async fn a_path_that_two_readers_could_read_differently_never_reaches_the_upstream() -> Result<()> {
    let hostile: [&[u8]; 22] = [
        b"/tables/../tables/orders",
        b"/x/../tables/orders",
        b"/tables/orders/..",
        b"/tables/./orders",
        b"/./tables/orders",
        b"//tables/orders",
        b"/tables//orders",
        b"/tables/orders//",
        b"/tables/x%2f..%2forders",
        b"/tables%2forders",
        b"/tables%2Forders",
        b"/tables/%2e%2e/tables/orders",
        b"/%2e/tables/orders",
        b"/tables/orders%00",
        b"/tables/orders\x00",
        b"/tables/orders\\..\\salaries",
        b"/tables/orders%5c",
        b"/tables/%ff%fe",
        b"/tables/\xff\xfe",
        b"/tables/%c0%af",
        b"/tables/orders%",
        b"/tables/orders%zz",
    ];
    for raw_headers in [true, false] {
        let stack = Stack::start_with(Options::default(), Over::Tcp, |front| {
            front.raw_headers = raw_headers;
        })
        .await?;
        for target in hostile {
            let shown = target.escape_ascii();
            match stack.send(Request::get(target)).await {
                Ok(answer) => {
                    assert!([400, 403].contains(&answer.status), "{shown}: {answer:?}");
                }
                // Envoy may also just close the connection.
                Err(error) => assert!(error.to_string().contains("without an answer"), "{shown}: {error:#}"),
            }
            assert_eq!(stack.upstream.count(), 0, "{shown} reached the upstream");
        }
        // The one path in normal form still passes: the refusals above are not an outage.
        stack.allowed(Request::get("/tables/orders")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn headers_that_are_too_many_too_large_or_ambiguous_never_reach_the_upstream() -> Result<()> {
    let stack = Stack::start().await?;
    let many = (0..99).fold(Request::get("/tables/orders"), |request, number| {
        request.header(&format!("x-filler-{number}"), "1")
    });
    let large = Request::get("/tables/orders").header("x-filler", "a".repeat(100_000));
    let repeated = Request::get("/tables/orders").header("x-tenant", "a").header("x-tenant", "b");
    let lookalike = Request::get("/tables/orders").header("x_tenant", "b");
    let not_utf8 = Request::get("/tables/orders").header("x-tenant", &b"\xff\xfe"[..]);
    for (what, request) in [
        ("too many headers", many),
        ("too large a header", large),
        ("a header twice that policy reads", repeated),
        ("a header in another spelling that policy reads", lookalike),
        ("a header that policy reads and that is not UTF-8", not_utf8),
    ] {
        let answer = stack.send(request).await?;
        assert!((400..500).contains(&answer.status), "{what}: {answer:?}");
        assert_eq!(stack.upstream.count(), 0, "{what} reached the upstream");
    }
    stack.allowed(Request::get("/tables/orders").header("x-tenant", "acme")).await?;
    Ok(())
}
