//! `cardea serve`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command speaks on its standard streams")]

use std::io::Write as _;
use std::process::ExitCode;

use miette::{GraphicalReportHandler, GraphicalTheme};
use serde::Serialize;

use super::{Format, ServeArgs, exit};
use crate::config::{Config, Overrides};
use crate::log;
use crate::serve::Service;

#[derive(Serialize)]
struct Ready<'s> {
    event: &'static str,
    grpc: &'s [std::net::SocketAddr],
    uds: Option<&'s std::path::Path>,
    http: Option<std::net::SocketAddr>,
    ssf: Option<std::net::SocketAddr>,
}

pub(super) fn run(args: &ServeArgs) -> ExitCode {
    let overrides = Overrides {
        bundle: args.bundle.clone(),
        store: args.store.clone(),
        trust: args.trust.clone(),
        allow_unsigned: args.allow_unsigned,
        grpc: args.grpc.clone(),
        uds: args.uds.clone(),
        http: args.http.clone(),
        workers: args.workers,
        audit_dir: args.audit_dir.clone(),
        state_dir: args.state_dir.clone(),
        log_format: args.log_format.clone(),
        log_filter: args.log_filter.clone(),
    };
    let config = match &args.config {
        Some(path) => Config::load(path, &overrides),
        None => Config::from_flags(&overrides),
    };
    let config = match config {
        Ok(config) => config,
        Err(faults) => {
            let mut text = String::new();
            let drawn = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
                .render_report(&mut text, &faults);
            eprintln!("{}", if drawn.is_ok() { text } else { faults.to_string() });
            return ExitCode::from(exit::COULD_NOT_RUN);
        }
    };
    if let Err(fault) = log::init(&config.log) {
        eprintln!("{fault}");
        return ExitCode::from(exit::COULD_NOT_RUN);
    }
    match serve(config, args.format) {
        Ok(()) => ExitCode::from(exit::FINE),
        Err(error) => {
            eprintln!("cannot serve: {error:#}");
            ExitCode::from(exit::COULD_NOT_RUN)
        }
    }
}

fn serve(config: Config, format: Format) -> anyhow::Result<()> {
    config.announce();
    let service = Service::prepare(config)?;
    if format == Format::Json {
        let ready = Ready {
            event: "ready",
            grpc: &service.grpc,
            uds: service.uds.as_deref(),
            http: service.http,
            ssf: service.ssf,
        };
        println!("{}", serde_json::to_string(&ready)?);
        std::io::stdout().flush()?;
    }
    tracing::info!(grpc = ?service.grpc, uds = ?service.uds, http = ?service.http, ssf = ?service.ssf, "serving");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        service.end_on_signals()?;
        service.run().await
    })
}
