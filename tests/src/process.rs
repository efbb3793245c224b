//! A child process that cannot outlive its test and keeps its output.
//!
//! Limits: the last [`LOG_LINES_MAX`] lines of each stream are kept.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, bail};

use crate::wait;

/// Lines kept of each stream.
pub const LOG_LINES_MAX: usize = 2_000;

/// See the module.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// What a finished program said.
#[derive(Debug)]
pub struct Finished {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Process {
    /// Starts a program.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {name} ({})", program.display()))?;
        let stdout = Lines::read(child.stdout.take().context("no stdout")?);
        let stderr = Lines::read(child.stderr.take().context("no stderr")?);
        Ok(Self { name: name.to_owned(), child, stdout, stderr })
    }

    /// Waits for a line on standard output that `wanted` recognises.
    ///
    /// # Errors
    /// If the process ends first, or takes too long.
    pub async fn stdout_line<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> Result<T> {
        let name = self.name.clone();
        wait::until(&format!("{name} to be ready"), async || {
            if let Some(found) = self.stdout.find(&wanted) {
                return Ok(Some(found));
            }
            self.must_run()?;
            Ok(None)
        })
        .await
    }

    /// The most memory that it ever held, in kB.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn memory_peak_kb(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    /// Fails if the process has ended.
    ///
    /// # Errors
    /// If it has.
    pub fn must_run(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.stderr.text()),
        }
    }

    /// What it wrote to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    ///
    /// # Errors
    /// If the process cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", self.child.id())).status()?;
        if !sent.success() {
            bail!("could not send SIGTERM to {}", self.name);
        }
        let name = self.name.clone();
        wait::until(&format!("{name} to end"), async || Ok(self.child.try_wait()?)).await
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "the test runner shows it for a failed test")]
    fn drop(&mut self) {
        // Both fail only if the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        eprintln!("---- {} said on standard error:\n{}----", self.name, self.stderr.text());
    }
}

#[derive(Debug, Clone)]
struct Lines(Arc<Mutex<VecDeque<String>>>);

impl Lines {
    fn read(from: impl Read + Send + 'static) -> Self {
        let lines = Self(Arc::default());
        let writer = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { return };
                let mut kept = writer.0.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == LOG_LINES_MAX {
                    kept.pop_front();
                }
                kept.push_back(String::from_utf8_lossy(&line).into_owned());
            }
        });
        lines
    }

    fn find<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find_map(|line| wanted(line))
    }

    fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }
}

/// The directory that cargo builds into: two above the test's own program.
///
/// # Errors
/// If the test runs from an unusual place.
pub fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own.ancestors().nth(3).context("the test program is not in target/PROFILE/deps")?;
    Ok(dir.to_owned())
}

/// The `cardea` program of this source tree. `tests/run` builds it beforehand; after a bare `cargo test` it may be
/// missing or older than its sources, and then cargo builds it here.
///
/// # Errors
/// If it cannot be built.
pub fn cardea_program() -> Result<PathBuf> {
    static PROGRAM: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut known = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = &*known {
        return Ok(program.clone());
    }
    let own = std::env::current_exe()?;
    let profile_dir = own.ancestors().nth(2).context("the test program is not in target/PROFILE/deps")?;
    let program = profile_dir.join("cardea");
    if !is_current(&program)? {
        build_cardea(&program)?;
    }
    *known = Some(program.clone());
    Ok(program)
}

/// Whether the program is there and none of the files that cargo made it from is newer.
fn is_current(program: &Path) -> Result<bool> {
    let Ok(made) = fs::metadata(program).and_then(|metadata| metadata.modified()) else { return Ok(false) };
    let Ok(sources) = fs::read_to_string(program.with_extension("d")) else { return Ok(false) };
    for source in sources.split_whitespace().skip(1) {
        let Ok(changed) = fs::metadata(source).and_then(|metadata| metadata.modified()) else {
            return Ok(false);
        };
        if changed > made {
            return Ok(false);
        }
    }
    Ok(true)
}

fn build_cardea(program: &Path) -> Result<()> {
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--workspace", "--bin", "cardea", "--target-dir"])
        .arg(target_dir()?)
        .status()
        .context("start cargo")?;
    if !built.success() || !program.exists() {
        bail!("`cargo build --workspace --bin cardea` did not build {}", program.display());
    }
    Ok(())
}

/// Runs a script with input in the Python that `tests/run` installs packages for; gives what it printed.
///
/// # Errors
/// If there is no such Python, or the script fails.
pub fn python(script: &str, input: &str) -> Result<String> {
    use std::io::Write as _;

    let program = target_dir()?.join("venv/bin/python");
    if !program.exists() {
        bail!("there is no {}: run tests/run, which installs it", program.display());
    }
    let mut child = Command::new(&program)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let input = input.to_owned();
    // From another thread, so that a script that prints early cannot stand still.
    let fed = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    let fed = fed.join();
    if !output.status.success() {
        bail!(
            "a script failed; does `tests/run` install what it imports?\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    fed.map_err(|_| anyhow::anyhow!("the input could not be given"))??;
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs `cardea` with arguments and input to its end.
///
/// # Errors
/// If it cannot be run.
pub fn run_cardea<A: AsRef<OsStr>>(arguments: &[A], input: &[u8]) -> Result<Finished> {
    use std::io::Write as _;

    let mut child = Command::new(cardea_program()?)
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_owned();
    // From a thread: the program may answer before it has read everything. It may also refuse early and close.
    let feeder = thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output()?;
    drop(feeder.join());
    Ok(Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
