//! The shell from the outside: real sockets, real TLS handshakes, a real gRPC service and a real gRPC client.

// `cfg(test)` always holds here; it tells the lints that helpers are test code too.
#[cfg(test)]
mod harness;
#[cfg(test)]
mod serving;
#[cfg(test)]
mod stopping;
#[cfg(test)]
mod tls;
