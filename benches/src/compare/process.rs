//! The processes of a comparison: pinned to their cores, and gone when the comparison is.
//!
//! Each child is killed when its guard is dropped, and by the kernel when this process dies in any other way
//! (`setpriv --pdeathsig`; the signal follows the thread that started the child, so one thread starts them all).
//! Needs `setpriv`, `taskset` and `chrt` of util-linux.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::sync_channel,
    thread,
    time::Duration,
};

use serde::Deserialize;
use thiserror::Error;

use crate::record::Report;

/// How long a server may take until it is ready.
const READY_MAX: Duration = Duration::from_secs(30);
/// Lines of a failed server's log that are shown.
const LOG_LINES_SHOWN: usize = 20;

/// Why a process did not do its part.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("cannot start `{what}`; setpriv, taskset and chrt come with util-linux")]
    Start {
        /// The program.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A server ended or fell silent before it was ready.
    #[error("`{what}` did not become ready; the end of its log:\n{log}")]
    NotReady {
        /// The program.
        what: String,
        /// The last lines that it wrote.
        log: String,
    },
    /// The load generator failed, or calls failed.
    #[error("the load on {server} failed: {why}")]
    Load {
        /// Which server was under load.
        server: &'static str,
        /// What it said.
        why: String,
    },
    /// The canary said nothing readable.
    #[error("the canary said `{0}`")]
    Canary(String),
}

/// A running child; dropping it kills it and waits for its end.
#[derive(Debug)]
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that is ready.
#[derive(Debug)]
pub struct Server {
    process: Running,
    /// Name for messages.
    pub name: &'static str,
    /// Where it listens for gRPC.
    pub addr: SocketAddr,
}

impl Server {
    /// Starts `program` on `core`, and waits for the line that says it is ready. Its log goes to a file in `dir`.
    ///
    /// # Errors
    /// When it cannot be started, or is not ready within 30 s.
    pub fn start(
        name: &'static str,
        core: u32,
        program: &Path,
        args: &[String],
        dir: &Path,
    ) -> Result<Self, ProcessError> {
        let what = program.display().to_string();
        let log = dir.join(format!("{name}.log"));
        let failed = |source| ProcessError::Start { what: what.clone(), source };
        let stderr = File::create(&log).map_err(failed)?;
        let mut child = pinned(core, program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take();
        let process = Running(child);
        let lines = stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
        let (found, ready) = sync_channel(1);
        let reader = move || {
            // Reading goes on to the end, so that the server never waits for its own output.
            for line in lines.map_while(Result::ok) {
                if let Some(addr) = ready_address(&line) {
                    let _ = found.try_send(addr);
                }
            }
        };
        thread::Builder::new().name(format!("{name}-stdout")).spawn(reader).map_err(failed)?;
        match ready.recv_timeout(READY_MAX) {
            Ok(addr) => Ok(Self { process, name, addr }),
            Err(_silent_or_gone) => Err(ProcessError::NotReady { what, log: tail(&log) }),
        }
    }

    /// The process, whose CPU time is read.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }
}

/// Starts a spinner on `core` that runs only when nothing else wants to, so that the core never idles.
///
/// # Errors
/// When it cannot be started.
pub fn start_spinner(core: u32, compare: &Path) -> Result<Running, ProcessError> {
    let failed = |source| ProcessError::Start { what: "chrt".to_owned(), source };
    let child = pinned(core, Path::new("chrt"))
        .args(["-i", "0"])
        .arg(compare)
        .arg("spin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(failed)?;
    Ok(Running(child))
}

/// Runs the canary on `core` and returns the largest gap that it saw, in microseconds.
///
/// # Errors
/// When it cannot be run or read.
pub fn canary_gap_us(core: u32, compare: &Path) -> Result<f64, ProcessError> {
    let failed = |source| ProcessError::Start { what: compare.display().to_string(), source };
    let output = pinned(core, compare).arg("canary").stdin(Stdio::null()).output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    text.parse().map_err(|_error| ProcessError::Canary(text))
}

/// Runs the load generator on `core` against `server` and returns its report.
///
/// # Errors
/// When it cannot be run, or any call failed.
pub fn run_load(core: u32, load: &Path, server: &Server, args: &[String]) -> Result<Report, ProcessError> {
    let failed = |source| ProcessError::Start { what: load.display().to_string(), source };
    let output = pinned(core, load)
        .args(["--format", "json", "--connect", &server.addr.to_string()])
        .args(["--server-pid", &server.pid().to_string()])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    let wrong = |why: String| ProcessError::Load { server: server.name, why };
    let Ok(report) = serde_json::from_slice::<Report>(&output.stdout) else {
        return Err(wrong(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    };
    if output.status.success() {
        Ok(report)
    } else {
        Err(wrong(report.first_fault.unwrap_or_else(|| "no call was answered".to_owned())))
    }
}

/// A command for `program` on `core` that does not outlive this process.
fn pinned(core: u32, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "taskset", "-c", &core.to_string()]).arg(program);
    command
}

/// The first gRPC address in the line that a server prints when it is ready.
fn ready_address(line: &str) -> Option<SocketAddr> {
    #[derive(Deserialize)]
    struct Ready {
        event: String,
        grpc: Vec<String>,
    }
    let ready: Ready = serde_json::from_str(line).ok()?;
    if ready.event == "ready" { ready.grpc.iter().find_map(|addr| addr.parse().ok()) } else { None }
}

fn tail(log: &PathBuf) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LOG_LINES_SHOWN)).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ready_line_tells_the_address() {
        let line = r#"{"event":"ready","grpc":["unix:/run/x","127.0.0.1:81"],"http":"127.0.0.1:80"}"#;
        assert_eq!(ready_address(line), Some("127.0.0.1:81".parse().unwrap()));
        assert_eq!(ready_address(r#"{"event":"starting","grpc":["127.0.0.1:81"]}"#), None);
        assert_eq!(ready_address("plain text"), None);
    }

    #[test]
    fn a_server_that_ends_at_once_is_reported_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c", "echo no such bundle >&2; exit 1"].map(str::to_owned);
        let refused = Server::start("sh", 0, Path::new("sh"), &args, dir.path()).unwrap_err();
        assert!(refused.to_string().contains("no such bundle"), "{refused}");
    }

    #[test]
    fn a_dropped_server_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let script = r#"echo '{"event":"ready","grpc":["127.0.0.1:9"]}'; exec sleep 60"#;
        let server =
            Server::start("sh", 0, Path::new("sh"), &["-c".to_owned(), script.to_owned()], dir.path())
                .unwrap();
        let proc = PathBuf::from(format!("/proc/{}", server.pid()));
        assert!(proc.exists());
        drop(server);
        assert!(!proc.exists());
    }
}
