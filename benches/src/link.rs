//! One HTTP/2 connection of the load generator, on the `h2` crate itself: a full gRPC client costs twice what
//! the server under test costs, and would be what is measured.
//!
//! Owns the connection's settings, the request head, and the reading of gRPC statuses.

use std::{future::poll_fn, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request, StatusCode, header};
use thiserror::Error;
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    answer::{ANSWER_BYTES_MAX, next_message},
    call::PREFIX_BYTES,
    record::Fault,
};

/// Receive window of a stream, in bytes: an answer of the largest batch fits without waiting.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Receive window of the connection, in bytes: many such answers at once.
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Allowance for the overhead of small DATA frames, in bytes; answers of a fast server come as many small ones.
const SMALL_FRAMES_BYTES: usize = 64 << 20;

/// Why a connection could not be made.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The TCP connection.
    #[error("cannot connect to {addr}")]
    Connect {
        /// Where to.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP/2 preface.
    #[error("the server does not speak HTTP/2")]
    Handshake(#[from] h2::Error),
    /// The request head.
    #[error("the request head is not valid")]
    Head(#[from] http::Error),
}

/// A connection, ready for calls to one path. Clones share it.
#[derive(Clone, Debug)]
pub struct Link {
    send: SendRequest<Bytes>,
    head: Request<()>,
}

impl Link {
    /// Connects, and starts the task that drives the connection among `drivers`.
    ///
    /// # Errors
    /// When there is no listener, or it does not speak HTTP/2.
    pub async fn open(addr: SocketAddr, path: &str, drivers: &mut JoinSet<()>) -> Result<Self, LinkError> {
        let connect = |source| LinkError::Connect { addr, source };
        let socket = TcpStream::connect(addr).await.map_err(connect)?;
        socket.set_nodelay(true).map_err(connect)?;
        let mut settings = Builder::new();
        settings
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .data_frame_budget(SMALL_FRAMES_BYTES);
        let (send, connection) = settings.handshake(socket).await?;
        // A broken connection shows in each call on it, so its own error adds nothing.
        drivers.spawn(async move {
            let _ = connection.await;
        });
        let head = Request::post(format!("http://{addr}{path}"))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())?;
        Ok(Self { send, head })
    }

    /// Makes a unary call with an encoded frame and returns the answer's message.
    ///
    /// # Errors
    /// A broken connection, a status other than OK, or an answer that is not one whole message.
    pub async fn call(&mut self, frame: Bytes) -> Result<Bytes, Fault> {
        let (response, mut send) = self.begin().await?;
        send.send_data(frame, true).map_err(transport)?;
        let mut body = head_of(response).await?;
        let mut bytes = BytesMut::new();
        while let Some(chunk) = next_chunk(&mut body).await? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX + PREFIX_BYTES {
                return Err(Fault::Answer("the answer is longer than the maximum".to_owned()));
            }
            if bytes.is_empty() {
                // One chunk is the rule; taking it over costs no copy.
                bytes = BytesMut::from(chunk);
            } else {
                bytes.extend_from_slice(&chunk);
            }
        }
        finish(&mut body).await?;
        match next_message(&mut bytes) {
            Ok(Some(message)) if bytes.is_empty() => Ok(message),
            Ok(_) => Err(Fault::Answer("the answer is not one whole message".to_owned())),
            Err(error) => Err(Fault::Answer(error.to_string())),
        }
    }

    /// Starts a call without sending anything but its head.
    ///
    /// # Errors
    /// A broken connection.
    pub async fn begin(&mut self) -> Result<(ResponseFuture, SendStream<Bytes>), Fault> {
        poll_fn(|cx| self.send.poll_ready(cx)).await.map_err(transport)?;
        self.send.send_request(self.head.clone(), false).map_err(transport)
    }
}

/// Waits for the answer's head and returns its body.
///
/// # Errors
/// A broken connection, an HTTP status other than 200, or a gRPC status other than OK in the head.
pub async fn head_of(response: ResponseFuture) -> Result<RecvStream, Fault> {
    let (head, body) = response.await.map_err(transport)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(Fault::Status(format!("http status {}", head.status)));
    }
    grpc_status(&head.headers).unwrap_or(Ok(()))?;
    Ok(body)
}

/// The next bytes of a body; `None` at its end.
///
/// # Errors
/// A broken connection.
pub async fn next_chunk(body: &mut RecvStream) -> Result<Option<Bytes>, Fault> {
    let Some(chunk) = body.data().await else { return Ok(None) };
    let chunk = chunk.map_err(transport)?;
    body.flow_control().release_capacity(chunk.len()).map_err(transport)?;
    Ok(Some(chunk))
}

/// Reads the trailers at the end of a body.
///
/// # Errors
/// A broken connection, no gRPC status, or one other than OK.
pub async fn finish(body: &mut RecvStream) -> Result<(), Fault> {
    let trailers = body.trailers().await.map_err(transport)?;
    let missing = || Err(Fault::Status("no grpc-status".to_owned()));
    trailers.as_ref().and_then(grpc_status).unwrap_or_else(missing)
}

/// A fault of the connection or the stream.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
pub(crate) fn transport(error: h2::Error) -> Fault {
    Fault::Transport(error.to_string())
}

fn grpc_status(headers: &HeaderMap) -> Option<Result<(), Fault>> {
    let code = headers.get("grpc-status")?;
    if code.as_bytes() == b"0" {
        return Some(Ok(()));
    }
    let message = headers.get("grpc-message").map_or("", |text| text.to_str().unwrap_or(""));
    Some(Err(Fault::Status(format!("grpc-status {}: {message}", code.to_str().unwrap_or("unreadable")))))
}
