//! Reads the HTTP/2 connection preface before HTTP/2 begins.
//!
//! hyper waits for the preface without end; reading it here puts it under the handshake's timeout, and says in the
//! log what a peer that speaks something else seems to speak. The bytes are then given back to hyper.
//! Limits: 24 bytes.
//! Never does: reading past the preface.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// RFC 9113 3.4.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes look like when they are not HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotHttp2 {
    #[error("the peer speaks TLS and this listener does not")]
    Tls,
    #[error("the peer does not speak HTTP/2 with prior knowledge, as gRPC needs")]
    Other,
}

/// A connection whose preface was read and checked; gives it back first.
#[derive(Debug)]
pub(crate) struct Prefaced<IO> {
    io: IO,
    /// What of the preface has not been given back.
    rest: &'static [u8],
}

/// Reads the preface; refuses at the first byte that differs.
pub(crate) async fn read_preface<IO: AsyncRead + Unpin>(
    mut io: IO,
) -> io::Result<Result<Prefaced<IO>, NotHttp2>> {
    let mut awaited: &'static [u8] = PREFACE;
    let mut buffer = [0_u8; PREFACE.len()];
    while !awaited.is_empty() {
        let Some(room) = buffer.get_mut(..awaited.len()) else { break };
        let count = io.read(room).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (Some(got), Some((wanted, later))) = (buffer.get(..count), awaited.split_at_checked(count))
        else {
            break;
        };
        if got != wanted {
            // A TLS record begins with its type, 22 for a handshake, and the major version 3.
            let tls = awaited.len() == PREFACE.len() && got.starts_with(&[22, 3]);
            return Ok(Err(if tls { NotHttp2::Tls } else { NotHttp2::Other }));
        }
        awaited = later;
    }
    Ok(Ok(Prefaced { io, rest: PREFACE }))
}

impl<IO: AsyncRead + Unpin> AsyncRead for Prefaced<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = buf.remaining().min(self.rest.len());
        if let Some((given, rest)) = self.rest.split_at_checked(count) {
            buf.put_slice(given);
            self.rest = rest;
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Prefaced<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> io::Result<Result<Prefaced<&[u8]>, NotHttp2>> {
        read_preface(bytes).await
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_preface_is_given_back_whole() {
        let bytes = [PREFACE.as_slice(), b"settings"].concat();
        let mut prefaced = read(&bytes).await.unwrap().unwrap();
        let mut back = Vec::new();
        prefaced.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, bytes);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn other_protocols_are_told_apart_at_once() {
        assert_eq!(read(b"GET / HTTP/1.1\r\n\r\n").await.unwrap().unwrap_err(), NotHttp2::Other);
        assert_eq!(read(&[22, 3, 1, 2, 0]).await.unwrap().unwrap_err(), NotHttp2::Tls);
        assert_eq!(read(b"PRI * HTTP/2.0\r\n\r\nXX").await.unwrap().unwrap_err(), NotHttp2::Other);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_peer_that_leaves_early_is_an_error() {
        assert_eq!(read(b"PRI *").await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
