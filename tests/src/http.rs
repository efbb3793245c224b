//! A small HTTP/1.1 client that sends exactly what a test says: it neither normalises nor refuses a target.
//!
//! One connection per request, or one that is kept ([`Kept`]). Limits: [`wait::LIMIT`] for an answer, [`ANSWER_BYTES_MAX`] of it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::wait;

/// Largest answer that is read, in bytes; the metrics page is the largest.
pub const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    target: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names in lower case and values, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Request {
    /// A request with this method and target.
    #[must_use]
    pub fn new(method: &str, target: impl Into<Vec<u8>>) -> Self {
        Self { method: method.to_owned(), target: target.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A GET.
    #[must_use]
    pub fn get(target: impl Into<Vec<u8>>) -> Self {
        Self::new("GET", target)
    }

    /// With a header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a body of a type.
    #[must_use]
    pub fn body(self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { body, ..self.header("content-type", kind) }
    }

    /// With a bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Sends it.
    ///
    /// # Errors
    /// If there is no answer that can be read.
    pub async fn send(&self, to: SocketAddr) -> Result<Answer> {
        let exchange = async {
            let socket = TcpStream::connect(to).await.with_context(|| format!("connect to {to}"))?;
            self.exchange(socket).await
        };
        wait::within("an HTTP answer", exchange).await?
    }

    /// Sends it over TLS.
    ///
    /// # Errors
    /// If there is no answer that can be read.
    pub async fn send_tls(&self, to: SocketAddr, config: Arc<rustls::ClientConfig>) -> Result<Answer> {
        let exchange = async {
            let socket = TcpStream::connect(to).await.with_context(|| format!("connect to {to}"))?;
            let name = ServerName::from(to.ip());
            let stream = TlsConnector::from(config).connect(name, socket).await.context("TLS handshake")?;
            self.exchange(stream).await
        };
        wait::within("an HTTP answer over TLS", exchange).await?
    }

    fn bytes(&self, connection: &str) -> Vec<u8> {
        let mut bytes = [self.method.as_bytes(), b" ", &self.target, b" HTTP/1.1\r\n"].concat();
        bytes.extend_from_slice(format!("host: api.test\r\nconnection: {connection}\r\n").as_bytes());
        bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        for (name, value) in &self.headers {
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    async fn exchange(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Answer> {
        stream.write_all(&self.bytes("close")).await?;
        let mut answer = Vec::new();
        let read = stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await;
        // A peer that refuses early may reset the connection after its answer.
        if answer.is_empty() {
            read?;
            bail!("the connection was closed without an answer");
        }
        parse(&answer)
    }
}

/// A connection that stays open from one request to the next.
#[derive(Debug)]
pub struct Kept(TcpStream);

impl Kept {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn open(to: SocketAddr) -> Result<Self> {
        Ok(Self(TcpStream::connect(to).await.with_context(|| format!("connect to {to}"))?))
    }

    /// Sends a request and reads its answer, to its `content-length`.
    ///
    /// # Errors
    /// If the other side closed the connection, or there is no answer that can be read.
    pub async fn send(&mut self, request: &Request) -> Result<Answer> {
        wait::within("an HTTP answer", self.exchange(request)).await?
    }

    async fn exchange(&mut self, request: &Request) -> Result<Answer> {
        self.0.write_all(&request.bytes("keep-alive")).await?;
        let mut bytes = Vec::new();
        loop {
            if bytes.windows(4).any(|four| four == b"\r\n\r\n") {
                let answer = parse(&bytes)?;
                if answer.body.len() >= answer.header("content-length")?.parse()? {
                    return Ok(answer);
                }
            }
            if self.0.read_buf(&mut bytes).await? == 0 {
                bail!("the connection was closed after {} bytes", bytes.len());
            }
        }
    }
}

impl Answer {
    /// The one value of a header.
    ///
    /// # Errors
    /// If the header is missing or repeated.
    pub fn header(&self, name: &str) -> Result<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let value = values.next().with_context(|| format!("the answer has no `{name}`: {self:?}"))?;
        if values.next().is_some() {
            bail!("the answer has `{name}` twice: {self:?}");
        }
        Ok(value)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it is something else.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("the body is not JSON: {self:?}"))
    }
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) =
        text.split_once("\r\n\r\n").with_context(|| format!("no end of headers in {text:?}"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?;
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if chunked { dechunk(body)? } else { body.to_owned() };
    Ok(Answer { status: status.parse()?, headers, body })
}

fn dechunk(mut text: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, after) = text.split_once("\r\n").context("a chunk has no size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        let (chunk, next) = after.split_at_checked(size).context("a chunk is cut short")?;
        body.push_str(chunk);
        text = next.strip_prefix("\r\n").context("a chunk has no end")?;
    }
}
