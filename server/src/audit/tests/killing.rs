//! What only a process of its own can show: kill -9 while records are written, and a file system that refuses
//! in the middle of a write.

use std::{
    env, fs,
    process::{Child, Command, Stdio},
};

use tempfile::tempdir;

use super::*;

/// Tells the child process where to write.
const DIR_VARIABLE: &str = "CARDEA_TEST_AUDIT_DIR";

/// Not a test of its own: the process that the test below kills. Without the variable it does nothing.
#[test]
#[ignore = "started by the kill test as its child process"]
fn writes_until_killed() {
    let Ok(dir) = env::var(DIR_VARIABLE) else { return };
    let mut config = config(Path::new(&dir), 256, WhenFull::Deny);
    config.segment_bytes_max = 64 * 1024;
    let audit = open(&config);
    for n in 0_usize.. {
        if let Ok(place) = audit.reserve() {
            place.fill_entry(2_000, numbered(n));
        } else {
            thread::yield_now();
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        self.0.wait().unwrap();
    }
}

#[test]
fn after_kill_9_the_records_are_whole_and_the_sequence_goes_on() {
    let dir = tempdir().unwrap();
    let config = config(dir.path(), 64, WhenFull::Deny);
    let mut expected_least = 0;
    for _ in 0..5 {
        let segments_before = segments(dir.path()).len();
        let child = Command::new(env::current_exe().unwrap())
            .args(["audit::tests::killing::writes_until_killed", "--exact", "--ignored"])
            .env(DIR_VARIABLE, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let killed = Killed(child);
        wait_until("the child has written", || segments(dir.path()).len() > segments_before + 2);
        drop(killed);

        let audit = open(&config);
        let last = audit.stats().last_sequence;
        assert!(last > expected_least, "{last} records after the kill, {expected_least} before");
        put(&audit, 1_000_000);
        audit.close().unwrap();
        let records = on_disk(dir.path());
        assert_eq!(records.len() as u64, last + 2);
        let gap = gap_of(&records[records.len() - 2]).unwrap();
        assert_eq!((gap.cause(), gap.lost, gap.lost_max), (v1::gap_record::Cause::UncleanStop, 0, 64));
        assert!(gap.since.is_some());
        assert_eq!(records.last().and_then(number), Some(1_000_000));
        expected_least = last + 2;
    }
    assert!(fs::metadata(dir.path().join("LOCK")).is_ok());
}

/// Not a test of its own: fills the queue against the file size limit, says so, and ends well once the limit
/// is lifted. Without the variable it does nothing.
#[test]
#[ignore = "started by the size limit test as its child process"]
fn writes_against_a_size_limit() {
    let Ok(dir) = env::var(DIR_VARIABLE) else { return };
    let mut config = config(Path::new(&dir), 256, WhenFull::Deny);
    config.segment_bytes_max = 1024 * 1024;
    let audit = open(&config);
    let mut filled = 0;
    while audit.fault().is_none() || audit.stats().queued < 256 {
        if let Ok(place) = audit.reserve() {
            place.fill_entry(2_000, numbered(filled));
            filled += 1;
        }
    }
    fs::write(Path::new(&dir).join("faulted"), filled.to_string()).unwrap();
    wait_until("the limit is lifted", || audit.fault().is_none());
    audit.close().unwrap();
}

#[test]
fn a_write_that_the_system_cuts_short_is_made_good_once_there_is_room() {
    let dir = tempdir().unwrap();
    // 40 blocks of 512 or 1024 bytes; with the signal ignored, a write beyond them is cut short, then refused.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 40; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["audit::tests::killing::writes_against_a_size_limit", "--exact", "--ignored"])
        .env(DIR_VARIABLE, dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let faulted = dir.path().join("faulted");
    wait_until("the queue is full", || fs::read_to_string(&faulted).is_ok_and(|text| !text.is_empty()));
    let lifted = Command::new("prlimit")
        .args(["--pid", &child.0.id().to_string(), "--fsize=unlimited:"])
        .status()
        .unwrap();
    assert!(lifted.success());
    assert!(child.0.wait().unwrap().success());
    let filled: usize = fs::read_to_string(&faulted).unwrap().parse().unwrap();
    assert_eq!(numbers(&on_disk(dir.path())), (0..filled).collect::<Vec<_>>());
}
