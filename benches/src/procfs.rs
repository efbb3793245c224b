//! What the kernel knows of a process and of the host: CPU time in nanoseconds, steal.
//!
//! CPU time is the sum over the threads that live at the moment of reading; a thread that ended takes its share
//! with it, so a process under measurement must keep its threads. A thread that runs while it is read may lag
//! by one scheduler tick (1 to 4 ms): read when the server is drained.

use std::{fs, io, path::PathBuf};

use thiserror::Error;

/// Why a reading from `/proc` failed.
#[derive(Debug, Error)]
pub enum ProcError {
    /// The file is not there: no such process, or a kernel without scheduler statistics.
    #[error("cannot read `{path}`")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not have the form that the kernel documents.
    #[error("`{path}` has an unexpected form")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// CPU time that the threads of `pid` have used, in nanoseconds.
///
/// # Errors
/// When the process is gone or the kernel keeps no scheduler statistics.
pub fn cpu_ns(pid: u32) -> Result<u64, ProcError> {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let unreadable = |source| ProcError::Unreadable { path: tasks.clone(), source };
    let (mut total, mut threads) = (0_u64, 0_u32);
    for entry in fs::read_dir(&tasks).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path().join("schedstat");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // The thread ended between the listing and the reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound && threads > 0 => continue,
            Err(source) => return Err(ProcError::Unreadable { path, source }),
        };
        let on_cpu = text.split_ascii_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        total += on_cpu.ok_or(ProcError::Malformed { path })?;
        threads += 1;
    }
    Ok(total)
}

/// Time of all cores together, in clock ticks since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostTicks {
    /// Taken by the hypervisor while this machine wanted to run.
    pub steal: u64,
    /// All of it, idle included.
    pub total: u64,
}

impl HostTicks {
    /// Reads the present values.
    ///
    /// # Errors
    /// When `/proc/stat` cannot be read or understood.
    pub fn read() -> Result<Self, ProcError> {
        let path = PathBuf::from("/proc/stat");
        let text = fs::read_to_string(&path)
            .map_err(|source| ProcError::Unreadable { path: path.clone(), source })?;
        Self::parse(&text).ok_or(ProcError::Malformed { path })
    }

    /// Share of steal between `earlier` and this reading, in percent.
    #[must_use]
    pub fn steal_percent_since(self, earlier: Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        if total == 0 {
            return 0.0;
        }
        100.0 * self.steal.saturating_sub(earlier.steal) as f64 / total as f64
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        // user nice system idle iowait irq softirq steal; guest time is already inside user.
        let fields: Vec<u64> =
            line.split_ascii_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { steal: *fields.get(7)?, total: fields.iter().sum() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mono;

    #[test]
    fn cpu_time_of_this_process_rises_while_it_spins() {
        let before = cpu_ns(std::process::id()).unwrap();
        let _ = mono::largest_gap(Duration::from_millis(60));
        let used = cpu_ns(std::process::id()).unwrap() - before;
        assert!(used > 5_000_000, "spun for 60 ms, counted {used} ns");
    }

    #[test]
    fn a_process_that_does_not_exist_is_an_error() {
        assert!(matches!(cpu_ns(u32::MAX), Err(ProcError::Unreadable { .. })));
    }

    #[test]
    fn steal_is_the_eighth_field() {
        let earlier = HostTicks::parse("cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 1").unwrap();
        let later = HostTicks::parse("cpu  20 0 20 150 0 0 5 5 7 0\n").unwrap();
        assert_eq!(later, HostTicks { steal: 5, total: 200 });
        assert!((later.steal_percent_since(earlier) - 5.0).abs() < 1e-9);
        assert_eq!(HostTicks::parse("intr 1 2"), None);
    }
}
