//! Recorded attempts with their labels. Labels stay on this side: what is learned from and scored is a [`Recorded`] without them.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use cardea_core::behavior::Kept;
use cardea_core::behavior::{Assessment, Deviation, Response};
use cardea_server::monitor::attempts::Recorded;
use cardea_server::monitor::config::Config;
use cardea_server::monitor::declared::Declared;
use cardea_server::monitor::fresh_key;
use cardea_server::monitor::learn::Learner;
use cardea_server::monitor::score::Scorer;
use flate2::bufread::MultiGzDecoder;
use flate2::read::DeflateDecoder;
use serde_json::Value;

/// Where data and configurations lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// The data of monitoring.
    pub data: PathBuf,
    /// `examples/monitoring`.
    pub examples: PathBuf,
}

/// One attempt and the truth about it.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The attempt.
    pub recorded: Recorded,
    /// Whether it carries out an attack.
    pub is_attack: bool,
    /// What it is for an attack, if anything.
    pub role: Option<String>,
    /// Model and defence of the agent, or nothing.
    pub build: String,
}

impl Labelled {
    /// The task that it names, or nothing.
    #[must_use]
    pub fn task(&self) -> &str {
        self.recorded.context.get("task").and_then(Value::as_str).unwrap_or_default()
    }
}

impl Places {
    /// A file of the data, if it is there.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.data.join(name)).filter(|path| path.exists())
    }

    /// A configuration.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn config(&self, name: &str) -> Result<Config, String> {
        Config::read(&self.examples.join(name)).map_err(|fault| fault.to_string())
    }
}

/// Reads attempts with their labels.
///
/// # Errors
///
/// The file cannot be read, or a line is no attempt.
pub fn attempts(path: &Path) -> Result<Vec<Labelled>, String> {
    let read = File::open(path).map_err(|error| error.to_string())?;
    let lines = BufReader::new(MultiGzDecoder::new(BufReader::new(read))).lines();
    lines.map(|line| labelled(&line.map_err(|error| error.to_string())?)).collect()
}

fn labelled(line: &str) -> Result<Labelled, String> {
    let truth: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let text = |pointer| truth.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    Ok(Labelled {
        recorded: serde_json::from_str(line).map_err(|error| error.to_string())?,
        is_attack: text("/label").is_some_and(|label| label == "attack"),
        role: text("/meta/role"),
        build: text("/context/agent_build").unwrap_or_default(),
    })
}

/// The only file of a zip archive.
///
/// # Errors
///
/// The file cannot be read, or is no such archive.
pub fn unzipped(path: &Path) -> io::Result<impl io::BufRead> {
    let mut file = BufReader::new(File::open(path)?);
    let mut head = [0; 30];
    file.read_exact(&mut head)?;
    // Local file header: signature at 0, method at 8 (8: deflate), lengths of name and extra field at 26 and 28.
    let [0x50, 0x4b, 3, 4, _, _, _, _, 8, 0, .., n0, n1, x0, x1] = head else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no zip archive of one deflated file"));
    };
    let skipped = u64::from(u16::from_le_bytes([n0, n1])) + u64::from(u16::from_le_bytes([x0, x1]));
    io::copy(&mut (&mut file).take(skipped), &mut io::sink())?;
    Ok(BufReader::with_capacity(1 << 16, DeflateDecoder::new(file)))
}

/// Learns from attempts that somebody approved.
#[must_use]
pub fn learned<'a>(config: &Config, approved: impl IntoIterator<Item = &'a Labelled>) -> Kept {
    let mut learner = Learner::new(config, Kept::new("bench"));
    for one in approved {
        learner.learn(&one.recorded);
    }
    learner.finish().0
}

/// A scorer of baselines.
///
/// # Errors
///
/// The machine has no randomness, or the file of tasks cannot be read.
pub fn scorer<'c>(config: &'c Config, kept: &Kept, tasks: Option<&Path>) -> Result<Scorer<'c>, String> {
    let key = fresh_key().map_err(|fault| fault.to_string())?;
    let declared = tasks.map(Declared::read).transpose().map_err(|fault| fault.to_string())?;
    let compiled = kept.compile(&key, &config.rules);
    Ok(Scorer::new(config, key, compiled, declared))
}

/// Whether the monitor would not let it happen.
#[must_use]
pub fn is_stopped(deviation: &Deviation) -> bool {
    deviation.response != Response::Allow
}

/// Whether it is called abuse.
#[must_use]
pub fn is_abuse(deviation: &Deviation) -> bool {
    deviation.assessment == Assessment::Abuse
}

/// Groups what is said of attempts by session, in order.
#[must_use]
pub fn sessions<'a, T>(attempts: impl IntoIterator<Item = (&'a Labelled, T)>) -> Vec<Vec<(&'a Labelled, T)>> {
    let mut places = std::collections::BTreeMap::new();
    let mut sessions: Vec<Vec<_>> = Vec::new();
    for (attempt, said) in attempts {
        let place = *places.entry(attempt.recorded.session.as_str()).or_insert(sessions.len());
        if place == sessions.len() {
            sessions.push(Vec::new());
        }
        if let Some(session) = sessions.get_mut(place) {
            session.push((attempt, said));
        }
    }
    sessions
}

/// Random numbers that are the same everywhere: SplitMix64.
#[derive(Clone, Copy, Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    /// Puts things in a random order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for at in (1..things.len()).rev() {
            things.swap(at, self.below(at + 1));
        }
    }
}
