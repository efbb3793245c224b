//! Beyond loopback there is no plain text, and nobody gets in without a certificate.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Result, ensure};
use cardea_proto::v1::Decision;
use cardea_tests::attempts::attempt;
use cardea_tests::bundle;
use cardea_tests::cardea::{Cardea, Options, serve_command};
use cardea_tests::certs::{Authority, Files};
use cardea_tests::clients::Clients;

const BEYOND: &str = "0.0.0.0:0";

fn tls_section(files: &Files, client_ca: &Path) -> String {
    let path = |path: &Path| format!("{:?}", path.display().to_string());
    format!(
        "[tls]\ncert = {}\nkey = {}\nclient_ca = {}\n",
        path(&files.cert),
        path(&files.key),
        path(client_ca)
    )
}

#[tokio::test]
async fn beyond_loopback_without_tls_it_refuses_to_start_and_says_how() -> Result<()> {
    let dir = tempfile::tempdir()?;
    bundle::copy_web(&dir.path().join("bundle"))?;
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let options = Options { listen, ..Options::default() };
        let mut command = serve_command(dir.path(), &options)?;
        let output = tokio::task::spawn_blocking(move || command.output());
        let output = cardea_tests::wait::within("the refusal", output).await???;
        ensure!(!output.status.success(), "it started on {listen}");
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(said.contains("beyond loopback"), "{said}");
        for key in ["[tls]", "cert", "key", "client_ca"] {
            ensure!(said.contains(key), "`{key}` is not in: {said}");
        }
        ensure!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn only_callers_with_a_certificate_of_the_right_authority_are_served() -> Result<()> {
    let (server_dir, clients_dir) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let servers = Authority::new("servers")?;
    let callers = Authority::new("callers")?;
    let strangers = Authority::new("strangers")?;
    let files = servers.write(server_dir.path(), &servers.server()?)?;
    let caller = callers.client("spiffe://test.local/gateway")?;
    let client_ca = callers.write(clients_dir.path(), &caller)?.ca;
    let options = Options { listen: BEYOND, config: tls_section(&files, &client_ca), ..Options::default() };
    let cardea = Cardea::start_with(options).await?;
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, cardea.grpc.port()));
    let one = || attempt("Workload::spiffe", "read", "Table::orders", "");

    let mut known = Clients::tls(local, servers.client_config(Some(&caller))?)?;
    ensure!(known.decide(one()?).await?.decision() == Decision::Allow, "a known caller was not served");

    let stranger = strangers.client("spiffe://test.local/gateway")?;
    for (who, config) in [
        ("nobody", servers.client_config(None)?),
        ("a caller of another authority", servers.client_config(Some(&stranger))?),
    ] {
        let mut unknown = Clients::tls(local, config)?;
        ensure!(unknown.decide(one()?).await.is_err(), "{who} was served");
    }
    let mut plain = Clients::tcp(local)?;
    ensure!(plain.decide(one()?).await.is_err(), "plain text was served");
    ensure!(
        known.decide(one()?).await?.decision() == Decision::Allow,
        "the known caller is served no longer"
    );
    Ok(())
}
