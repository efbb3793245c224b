//! The load generator against the do-nothing service on loopback: every mode, both shapes, a wrong answer, and a
//! stalled server. Nothing here asserts a speed; only that what happened is what is reported.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use cardea_benches::{
    answer::Expect,
    call::{Calls, Mode},
    load::{self, LoadError, Plan},
    record::{Report, Shape},
    request::{DEFAULT_REQUEST, Overrides, variant},
};

/// A do-nothing service, killed at the end of the test.
struct Server {
    child: Child,
    addr: SocketAddr,
}

impl Server {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_noop"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("noop starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["event"], "ready");
        let addr = ready["grpc"][0].as_str().unwrap().parse().unwrap();
        Self { child, addr }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill {name}");
    }

    fn plan(&self, shape: Shape, span: Duration) -> Plan {
        Plan {
            addr: self.addr,
            shape,
            connections: 1,
            warm_up: Duration::from_millis(50),
            span,
            expect: Expect::Allow,
            server_pid: Some(self.child.id()),
            canary: Duration::ZERO,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn calls(mode: Mode) -> Calls {
    let variants: Vec<_> =
        (0..3).map(|n| variant(DEFAULT_REQUEST, n, &Overrides::default()).unwrap()).collect();
    Calls::encode(mode, 8, &variants).unwrap()
}

fn assert_clean(report: &Report) {
    assert_eq!(report.faults.total(), 0, "{report:?}");
    assert!(report.calls > 0 && report.latency_us.p50 > 0.0, "{report:?}");
    assert!(report.server_cpu_ns_per_call.is_some_and(|ns| ns > 100.0), "{report:?}");
}

#[test]
fn every_mode_is_answered_in_a_closed_loop_over_several_connections() {
    let server = Server::start(&["--workers", "2"]);
    for mode in [Mode::Unary, Mode::Batch, Mode::Stream, Mode::Check] {
        let mut plan = server.plan(Shape::InFlight(4), Duration::from_millis(200));
        plan.connections = 3;
        let report = load::run(&plan, calls(mode)).unwrap();
        assert_clean(&report);
        assert_eq!(report.attempts_per_call, if mode.is_batched() { 8 } else { 1 });
    }
}

#[test]
fn an_open_loop_makes_exactly_the_calls_that_came_due() {
    let server = Server::start(&[]);
    for mode in [Mode::Unary, Mode::Batch, Mode::Stream, Mode::Check] {
        let plan = server.plan(Shape::PerSecond(400), Duration::from_millis(500));
        let report = load::run(&plan, calls(mode)).unwrap();
        assert_clean(&report);
        assert_eq!(report.calls, 200, "{report:?}");
    }
}

#[test]
fn answers_have_the_size_asked_of_the_service() {
    let server = Server::start(&["--answer-bytes", "500", "--check-bytes", "333"]);
    let bytes = |mode| {
        let plan = server.plan(Shape::InFlight(1), Duration::from_millis(50));
        load::run(&plan, calls(mode)).unwrap().answer_bytes
    };
    assert!(bytes(Mode::Unary).abs_diff(500) <= 2);
    assert!(bytes(Mode::Check).abs_diff(333) <= 2);
}

#[test]
fn an_unexpected_decision_is_a_fault_in_every_mode() {
    let server = Server::start(&[]);
    for mode in [Mode::Unary, Mode::Batch, Mode::Stream, Mode::Check] {
        let mut plan = server.plan(Shape::InFlight(1), Duration::from_millis(30));
        plan.expect = Expect::Deny;
        let refused = load::run(&plan, calls(mode)).unwrap_err();
        assert!(matches!(&refused, LoadError::WarmUp(why) if why.contains("Allow")), "{refused:?}");
        plan.warm_up = Duration::ZERO;
        let report = load::run(&plan, calls(mode)).unwrap();
        assert!(report.faults.answer > 0 && report.calls == 0, "{report:?}");
    }
}

#[test]
fn a_server_that_dies_in_the_run_is_a_fault() {
    for mode in [Mode::Unary, Mode::Stream] {
        let mut server = Server::start(&[]);
        let mut plan = server.plan(Shape::InFlight(2), Duration::from_secs(2));
        plan.server_pid = None;
        let run = thread::spawn(move || load::run(&plan, calls(mode)).unwrap());
        thread::sleep(Duration::from_millis(500));
        server.child.kill().unwrap();
        let report = run.join().unwrap();
        assert!(report.faults.transport > 0, "{report:?}");
    }
}

/// Runs load in `shape` for 2 s while the server stands still for 200 ms in the middle.
fn stalled(mode: Mode, shape: Shape) -> Report {
    let server = Server::start(&[]);
    let plan = server.plan(shape, Duration::from_secs(2));
    let run = thread::spawn(move || load::run(&plan, calls(mode)).unwrap());
    thread::sleep(Duration::from_millis(900));
    server.signal("-STOP");
    thread::sleep(Duration::from_millis(200));
    server.signal("-CONT");
    run.join().unwrap()
}

#[test]
fn a_stalled_server_shows_in_p99_of_an_open_loop() {
    for mode in [Mode::Unary, Mode::Stream] {
        // Of 400 calls about 40 come due while it stands still, waiting 200 ms down to 0; the fourth worst is p99.
        // The rate is low so that a busy machine keeps up and the stall is what is seen.
        let report = stalled(mode, Shape::PerSecond(200));
        assert_clean(&report);
        assert_eq!(report.calls, 400);
        let us = report.latency_us;
        assert!(us.p99 > 140_000.0, "the stall hides: {us:?}");
    }
}

#[test]
fn a_stalled_server_hides_from_p99_of_a_closed_loop() {
    // Why the open loop exists: here the one call in flight waits, and those that it keeps back are not sent.
    let report = stalled(Mode::Unary, Shape::InFlight(1));
    assert_clean(&report);
    let us = report.latency_us;
    assert!(us.max > 150_000.0, "{us:?}");
    assert!(us.p99 < us.max / 2.0, "{us:?}");
}
