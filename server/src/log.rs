//! Sets up the log: one subscriber, to stderr, as text or as one JSON object per line.
//!
//! Colour only when stderr is a terminal and `NO_COLOR` is unset. The filter has the syntax of
//! `tracing_subscriber::EnvFilter` and was checked with the configuration.
//! Never does: writing identities above DEBUG (the audit stream is the record), files, rotation.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::{Log, LogFormat};

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogFault {
    /// The filter does not parse.
    #[error("log filter `{filter}` cannot be read")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What the parser says.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// There is a subscriber already.
    #[error("the log was set up twice")]
    Twice(#[source] TryInitError),
}

/// Reads a filter, as the configuration does to check it.
///
/// # Errors
/// When it does not parse.
pub fn filter(text: &str) -> Result<EnvFilter, LogFault> {
    EnvFilter::builder().parse(text).map_err(|source| LogFault::Filter { filter: text.to_owned(), source })
}

/// Sets the process's log up. Call once, before the first thread.
///
/// # Errors
/// When the filter does not parse, or a subscriber is set already.
pub fn init(config: &Log) -> Result<(), LogFault> {
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter(&config.filter)?).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => builder.with_ansi(colour()).finish().try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).finish().try_init(),
    }
    .map_err(LogFault::Twice)
}

fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        assert!(filter("info,cardea=debug").is_ok());
        let fault = filter("cardea=lowd").unwrap_err();
        assert_eq!(fault.to_string(), "log filter `cardea=lowd` cannot be read");
    }

    #[test]
    fn a_second_set_up_is_refused() {
        let log = Log { format: LogFormat::Json, filter: "warn".to_owned() };
        init(&log).unwrap();
        assert!(matches!(init(&log), Err(LogFault::Twice(_))));
    }
}
