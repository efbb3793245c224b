//! A real HTTPS server: nginx with files, ETags, PUT, and some places that behave in their own ways.
//!
//! `/` files, with PUT; `/token/` files for the bearer of [`TOKEN`]; `/client/` files for who shows a certificate;
//! `/renamed/` redirects to `/`; `/elsewhere/` to another port; `/loop/` to itself; `/busy/` answers 503 with
//! `Retry-After`.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::certs::Files;
use crate::process::Process;
use crate::registry::program;
use crate::wait;

/// The token of `/token/`.
pub const TOKEN: &str = "offen";

/// See the module.
#[derive(Debug)]
pub struct Nginx {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
    dir: TempDir,
}

impl Nginx {
    /// Starts it, with `files.ca` as the authority of its clients, and waits until it listens.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub async fn start(files: &Files) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("nginx-").tempdir()?;
        fs::create_dir(dir.path().join("www"))?;
        // nginx cannot tell which port it got, so it is given one that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        fs::write(dir.path().join("nginx.conf"), configuration(dir.path(), address, files))?;
        let process = launch(dir.path(), address).await?;
        Ok(Self { address, process, dir })
    }

    /// Kills it; its files stay.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn stop(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again, at the same address.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.process = launch(self.dir.path(), self.address).await?;
        Ok(())
    }

    /// The address of a file.
    #[must_use]
    pub fn location(&self, path: &str) -> String {
        format!("https://{}/{path}", self.address)
    }

    /// The file behind a path.
    #[must_use]
    pub fn file(&self, path: &str) -> PathBuf {
        self.dir.path().join("www").join(path)
    }

    /// Every request so far: method, path, status, bytes of the body.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn requests(&self) -> Result<Vec<String>> {
        Ok(fs::read_to_string(self.dir.path().join("access.log"))?.lines().map(str::to_owned).collect())
    }
}

async fn launch(dir: &Path, address: SocketAddr) -> Result<Process> {
    let mut command = Command::new(program("nginx")?);
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).arg("-e").arg("stderr");
    let mut process = Process::start("nginx", &mut command)?;
    wait::until("nginx to listen", async || {
        process.must_run()?;
        Ok(std::net::TcpStream::connect(address).is_ok().then_some(()))
    })
    .await?;
    Ok(process)
}

fn configuration(dir: &Path, address: SocketAddr, files: &Files) -> String {
    let (dir, cert) = (dir.display(), files.cert.display());
    let (key, ca) = (files.key.display(), files.ca.display());
    let elsewhere = SocketAddr::new(address.ip(), address.port() ^ 1);
    format!(
        "daemon off;
master_process off;
pid {dir}/pid;
error_log stderr;
events {{}}
http {{
  log_format plain '$request_method $uri $status $body_bytes_sent';
  access_log {dir}/access.log plain;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  client_max_body_size 100m;
  server {{
    listen {address} ssl http2;
    ssl_certificate {cert};
    ssl_certificate_key {key};
    ssl_client_certificate {ca};
    ssl_verify_client optional;
    root {dir}/www;
    location / {{ dav_methods PUT; create_full_put_path on; }}
    location /token/ {{ if ($http_authorization != 'Bearer {TOKEN}') {{ return 401; }} alias {dir}/www/; }}
    location /client/ {{ if ($ssl_client_verify != SUCCESS) {{ return 403; }} alias {dir}/www/; }}
    location /renamed/ {{ rewrite ^/renamed/(.*)$ /$1 permanent; }}
    location /elsewhere/ {{ return 302 https://{elsewhere}/secret?signature=geheim; }}
    location /loop/ {{ return 302 https://{address}/loop/again; }}
    location /busy/ {{ add_header Retry-After 7 always; return 503; }}
  }}
}}
"
    )
}
