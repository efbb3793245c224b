//! Why a call gave no answer. Whatever the kind: no answer is a deny.

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not one, or does not go with the TLS settings. Configuration.
    #[error("endpoint `{address}` {fault}")]
    Endpoint {
        /// As it was given.
        address: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The address or the certificates cannot be used, or nobody answers there.
    #[error("cannot connect to `{address}`")]
    Connect {
        /// As it was given.
        address: String,
        /// What the transport says.
        #[source]
        cause: tonic::transport::Error,
    },
    /// The service refused the call, or the connection or the deadline broke it.
    #[error("the call failed: {}", .0.message())]
    Call(#[source] Box<tonic::Status>),
    /// The answer lacks what was asked for, or has more. The peer's fault.
    #[error("the answer is incomplete: {0}")]
    Incomplete(&'static str),
    /// The stream was closed.
    #[error("the stream of decisions is closed")]
    Closed,
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Call(Box::new(status))
    }
}
