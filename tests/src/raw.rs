//! gRPC calls below the generated clients: any bytes, any headers.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::wait;

/// What came back.
#[derive(Debug)]
pub struct RawAnswer {
    /// HTTP status.
    pub status: u16,
    /// `grpc-status`, from headers or trailers.
    pub grpc_status: Option<i32>,
    /// The body, frames and all.
    pub body: Bytes,
}

/// `message` as one uncompressed gRPC frame.
#[must_use]
pub fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// Posts `body` to `path` (`/package.Service/Method`) over a connection of its own.
///
/// # Errors
/// If the peer gives no HTTP answer: it closed the stream or the connection.
pub async fn call(to: SocketAddr, path: &str, headers: &[(&str, String)], body: Bytes) -> Result<RawAnswer> {
    let exchange = async {
        let socket = TcpStream::connect(to).await?;
        let (mut sender, connection) =
            http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(socket)).await?;
        let mut request = http::Request::post(format!("http://{to}{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(body))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            let collected = body.collect().await?;
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let grpc = head.headers.get("grpc-status").or_else(|| trailers.get("grpc-status"));
            let grpc_status = grpc.and_then(|value| value.to_str().ok()?.parse().ok());
            Ok(RawAnswer { status: head.status.as_u16(), grpc_status, body: collected.to_bytes() })
        };
        tokio::select! {
            answer = answer => answer,
            ended = connection => {
                ended?;
                anyhow::bail!("the connection ended before the answer")
            }
        }
    };
    wait::within("a raw gRPC answer", exchange).await?.context("raw gRPC call")
}
