//! Records that a sink refuses for good, whole, with the reason.
//!
//! Owns: one file of JSON Lines, made with the first of them.
//! Limits: [`limits::SINK_DEAD_BYTES_MAX`]: beyond it the sink waits instead, so that nothing is lost and the disk is not filled.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;

use serde::Serialize;

use super::format::Event;
use crate::limits;

/// See the module.
#[derive(Debug)]
pub(super) struct DeadLetters {
    path: PathBuf,
    count: u64,
}

#[derive(Serialize)]
struct Letter<'e> {
    id: &'e str,
    sequence: u64,
    why: &'e str,
    record: &'e cardea_proto::v1::Record,
}

impl DeadLetters {
    pub(super) fn open(path: PathBuf) -> Result<Self, String> {
        let fault = |error: std::io::Error| format!("`{}` cannot be read: {error}", path.display());
        let mut count = 0;
        match File::open(&path) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    line.map_err(fault)?;
                    count += 1;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(error)),
        }
        Ok(Self { path, count })
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Adds one, so that it survives a crash of the machine.
    pub(super) fn add(&mut self, event: &Event, why: &str) -> std::io::Result<()> {
        let letter = Letter { id: &event.id, sequence: event.record.sequence, why, record: &event.record };
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        let mut file = OpenOptions::new().create(true).read(true).append(true).open(&self.path)?;
        let there = file.metadata()?.len();
        if there == 0 {
            // It was moved away.
            self.count = 0;
        }
        if there + line.len() as u64 > limits::SINK_DEAD_BYTES_MAX {
            return Err(std::io::Error::other(format!(
                "`{}` has {} MiB of records that were refused; look into them and move the file away",
                self.path.display(),
                limits::SINK_DEAD_BYTES_MAX / (1024 * 1024)
            )));
        }
        file.write_all(&line)?;
        file.sync_all()?;
        self.count += 1;
        Ok(())
    }
}
