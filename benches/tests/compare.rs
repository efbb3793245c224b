//! The comparison with itself, end to end: it measures every row, and leaves no process behind, however it ends.
//!
//! One test, because it looks for processes of these binaries; it needs cores 0 and 1.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use cardea_benches::{
    compare::Comparison,
    record::Shape::{InFlight, PerSecond},
};

const COMPARE: &str = env!("CARGO_BIN_EXE_compare");

fn compare(args: &[&str]) -> Command {
    let mut command = Command::new(COMPARE);
    command
        .args(["--self-check", "--rounds", "1", "--reruns", "0", "--in-flight", "2", "--format", "json"])
        .args(args);
    command
}

/// Processes that run one of the comparison's programs.
fn processes() -> Vec<String> {
    let ours = [COMPARE, env!("CARGO_BIN_EXE_noop"), env!("CARGO_BIN_EXE_load")].map(Path::new);
    let runs_ours = |pid: &String| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| ours.contains(&exe.as_path()))
    };
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(runs_ours).collect()
}

fn assert_none_left() {
    // The kernel's kill needs a moment.
    for _ in 0..100 {
        if processes().is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(processes(), Vec::<String>::new());
}

#[test]
fn compares_every_row_and_leaves_no_process_behind() {
    let output =
        compare(&["--modes", "unary,stream,check", "--seconds", "0.1"]).output().expect("compare starts");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    let found: Comparison = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<_> = found.rows.iter().map(|row| (row.mode.name(), row.shape)).collect();
    assert_eq!(
        rows.get(..3).unwrap(),
        [("unary", InFlight(2)), ("stream", InFlight(2)), ("check", InFlight(2))]
    );
    assert!(matches!(rows.get(3..), Some([("unary", PerSecond(_))])), "half load comes last: {rows:?}");
    for row in &found.rows {
        assert!(row.noop.cpu_us_per_call.median > 0.0 && row.cardea.cpu_us_per_call.median > 0.0, "{row:?}");
        assert!(row.noop.answer_bytes.abs_diff(row.cardea.answer_bytes) <= 2, "answers of one size: {row:?}");
    }
    assert_none_left();

    let mut killed = compare(&["--modes", "unary", "--seconds", "30"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("compare starts");
    thread::sleep(Duration::from_millis(1500));
    assert!(processes().len() >= 5, "compare, two spinners, two servers: {:?}", processes());
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_none_left();
}
