//! Every metric of the server, in one struct whose handles are made once.
//!
//! What happens per decision is counted in [`Decisions`]: dense tables behind indices, sharded by thread, no
//! string is looked up. Everything else uses handles of the `metrics` crate on a Prometheus recorder of our own (no
//! global recorder, so tests do not share one). [`Metrics::render`] gives both as the Prometheus text format.
//! Limits: [`limits::ACTION_LABELS_MAX`](crate::limits::ACTION_LABELS_MAX) action labels; every other label comes from
//! a fixed list. Units are in the names: `_seconds`, `_total`, `_bytes`.
//! Never does: serving HTTP (`http.rs`), labels with identities.

mod counters;
mod decisions;
mod dry_runs;
mod histogram;
mod holds;
mod reviews;
mod shadow;
mod sinks;
mod ssf;
mod transmit;

use cardea_policy_store::snapshot::Snapshot;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use counters::CounterMetrics;
pub use decisions::{ActionLabel, ActionLabels, Cell, Decisions, Labels};
pub use dry_runs::DryRuns;
pub use holds::{Forgets, HoldMetrics, Pushed};
pub use reviews::ReviewMetrics;
pub use shadow::ShadowMetrics;
pub use sinks::SinkMetrics;
pub use ssf::ReceiverMetrics;
pub use transmit::{Dropped, TransmitMetrics};

/// Result label of what either took effect or was refused.
#[derive(Debug)]
pub struct Outcome {
    /// Took effect.
    pub ok: Counter,
    /// Was refused; what was in force stays.
    pub refused: Counter,
}

/// Why a connection was not served.
#[derive(Debug)]
pub struct Refused {
    /// `limits::CONNECTIONS_MAX` are open.
    pub limit: Counter,
    /// Every worker's queue is full.
    pub workers_busy: Counter,
    /// The TLS handshake failed, most often for want of a valid client certificate.
    pub tls: Counter,
    /// The handshake or the preface did not come in time.
    pub timeout: Counter,
    /// The peer does not speak HTTP/2.
    pub not_http2: Counter,
    /// `accept` failed.
    pub accept: Counter,
}

/// The state on disk.
#[derive(Debug)]
pub struct LedgerMetrics {
    /// Sessions on disk.
    pub sessions: Gauge,
    /// Changes that wait for the disk.
    pub pending: Gauge,
    /// 1 while the disk refuses.
    pub fault: Gauge,
    /// Rows made durable.
    pub written: Counter,
    /// Commits.
    pub commits: Counter,
    /// Rows that were refused because too many waited.
    pub refused: Counter,
}

/// Every metric of the server. Share it as an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    /// What happens per decision.
    pub decisions: Decisions,
    /// Policies that failed to evaluate.
    pub policy_errors: Counter,
    /// What policies in dry run would have answered.
    pub dry_runs: DryRuns,
    /// Responses that policies asked for and the state did not take.
    pub responses_failed: Counter,
    /// Revision of the snapshot in force.
    pub snapshot_revision: Gauge,
    /// Policies in the snapshot in force.
    pub snapshot_policies: Gauge,
    /// 1 while the bundle in force is past its end.
    pub snapshot_stale: Gauge,
    /// Bundle changes taken in or refused.
    pub reloads: Outcome,
    /// Sessions in memory.
    pub sessions: Gauge,
    /// Subjects with a risk.
    pub risk_subjects: Gauge,
    /// Revocations in force.
    pub revocations: Gauge,
    /// The state on disk.
    pub ledger: LedgerMetrics,
    /// Signals taken in or refused.
    pub signals: Outcome,
    /// Records waiting for the writer.
    pub audit_queue_depth: Gauge,
    /// Records written.
    pub audit_records: Counter,
    /// Verdicts released without a record.
    pub audit_gaps: Counter,
    /// Attempts denied because their record had no place.
    pub audit_refusals: Counter,
    /// Connections being served.
    pub connections: Gauge,
    /// Connections handed to a worker since the start.
    pub connections_accepted: Counter,
    /// Connections not served, by reason.
    pub connections_refused: Refused,
    /// Certificate changes taken in or refused.
    pub tls_reloads: Outcome,
    /// End of the server certificate's life, Unix seconds.
    pub tls_not_after: Gauge,
    /// What the shadow does.
    pub shadow: ShadowMetrics,
    /// What becomes of step-ups that ask for an approval.
    pub reviews: ReviewMetrics,
    /// What holds do.
    pub holds: HoldMetrics,
    /// What bundles count.
    pub counters: CounterMetrics,
    /// What the transmitter of signals does.
    pub transmit: TransmitMetrics,
    /// Panics caught; each is a bug.
    pub panics: Counter,
    prometheus: PrometheusHandle,
    /// For handles whose labels the configuration names; none until [`Metrics::new`] is done.
    recorder: Option<PrometheusRecorder>,
}

impl Metrics {
    /// Makes every handle. `labels` names the doors and outcomes that decisions are counted under.
    #[must_use]
    pub fn new(labels: Labels) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let prometheus = recorder.handle();
        let metrics = metrics::with_local_recorder(&recorder, || {
            describe();
            Self::register(labels, prometheus)
        });
        Self { recorder: Some(recorder), ..metrics }
    }

    /// Makes the handles of a transmitter that is listened to.
    #[must_use]
    pub fn receiver(&self, name: &str) -> ReceiverMetrics {
        match &self.recorder {
            Some(recorder) => metrics::with_local_recorder(recorder, || ReceiverMetrics::register(name)),
            None => ReceiverMetrics::register(name),
        }
    }

    /// Makes the handles of a sink.
    #[must_use]
    pub fn sink(&self, name: &str) -> SinkMetrics {
        match &self.recorder {
            Some(recorder) => metrics::with_local_recorder(recorder, || SinkMetrics::register(name)),
            None => SinkMetrics::register(name),
        }
    }

    /// Makes the handles of the policies that a bundle has in dry run.
    pub fn prepare_dry_runs(&self, snapshot: &Snapshot) {
        self.dry_runs.prepare(snapshot, |make| match &self.recorder {
            Some(recorder) => metrics::with_local_recorder(recorder, make),
            None => make(),
        });
    }

    /// The Prometheus text format (version 0.0.4) of everything.
    #[must_use]
    pub fn render(&self) -> String {
        // Publishes the descriptions; there is nothing else to keep up, for no histogram lives in the recorder.
        self.prometheus.run_upkeep();
        let mut text = self.prometheus.render();
        self.decisions.render(&mut text);
        // Writing into a string cannot fail.
        let _written = self.holds.render(&mut text);
        text
    }

    fn register(labels: Labels, prometheus: PrometheusHandle) -> Self {
        Self {
            decisions: Decisions::new(labels),
            policy_errors: counter!("cardea_policy_errors_total"),
            dry_runs: DryRuns::default(),
            responses_failed: counter!("cardea_responses_failed_total"),
            snapshot_revision: gauge!("cardea_snapshot_revision"),
            snapshot_policies: gauge!("cardea_snapshot_policies"),
            snapshot_stale: gauge!("cardea_snapshot_stale"),
            reloads: Outcome {
                ok: counter!("cardea_reloads_total", "result" => "ok"),
                refused: counter!("cardea_reloads_total", "result" => "refused"),
            },
            sessions: gauge!("cardea_sessions"),
            risk_subjects: gauge!("cardea_risk_subjects"),
            revocations: gauge!("cardea_revocations"),
            ledger: LedgerMetrics {
                sessions: gauge!("cardea_stored_sessions"),
                pending: gauge!("cardea_state_unwritten"),
                fault: gauge!("cardea_state_fault"),
                written: counter!("cardea_state_rows_written_total"),
                commits: counter!("cardea_state_commits_total"),
                refused: counter!("cardea_state_rows_refused_total"),
            },
            signals: Outcome {
                ok: counter!("cardea_signals_total", "result" => "ok"),
                refused: counter!("cardea_signals_total", "result" => "refused"),
            },
            audit_queue_depth: gauge!("cardea_audit_queue_depth"),
            audit_records: counter!("cardea_audit_records_total"),
            audit_gaps: counter!("cardea_audit_gaps_total"),
            audit_refusals: counter!("cardea_audit_refusals_total"),
            connections: gauge!("cardea_connections"),
            connections_accepted: counter!("cardea_connections_accepted_total"),
            connections_refused: Refused {
                limit: counter!("cardea_connections_refused_total", "reason" => "limit"),
                workers_busy: counter!("cardea_connections_refused_total", "reason" => "workers_busy"),
                tls: counter!("cardea_connections_refused_total", "reason" => "tls"),
                timeout: counter!("cardea_connections_refused_total", "reason" => "timeout"),
                not_http2: counter!("cardea_connections_refused_total", "reason" => "not_http2"),
                accept: counter!("cardea_connections_refused_total", "reason" => "accept"),
            },
            tls_reloads: Outcome {
                ok: counter!("cardea_tls_reloads_total", "result" => "ok"),
                refused: counter!("cardea_tls_reloads_total", "result" => "refused"),
            },
            tls_not_after: gauge!("cardea_tls_not_after_timestamp_seconds"),
            shadow: ShadowMetrics::register(),
            reviews: ReviewMetrics::register(),
            holds: HoldMetrics::register(),
            counters: CounterMetrics::register(),
            transmit: TransmitMetrics::register(),
            panics: counter!("cardea_panics_total"),
            prometheus,
            recorder: None,
        }
    }
}

/// One sentence per metric, as `# HELP`.
fn describe() {
    describe_counter!("cardea_policy_errors_total", Unit::Count, "Policies that failed to evaluate");
    describe_counter!(
        "cardea_responses_failed_total",
        Unit::Count,
        "Responses that policies asked for and the state had no room for"
    );
    describe_counter!(
        "cardea_dry_run_total",
        Unit::Count,
        "Attempts that a policy in dry run would have answered otherwise, by policy and answer"
    );
    describe_gauge!(
        "cardea_snapshot_revision",
        Unit::Count,
        "Revision of the snapshot in force; 0 without one"
    );
    describe_gauge!("cardea_snapshot_policies", Unit::Count, "Policies in the snapshot in force");
    describe_gauge!("cardea_snapshot_stale", Unit::Count, "1 while the bundle in force is past its end");
    describe_counter!("cardea_reloads_total", Unit::Count, "Bundle changes, by whether they took effect");
    describe_gauge!("cardea_sessions", Unit::Count, "Sessions in memory");
    describe_gauge!("cardea_risk_subjects", Unit::Count, "Subjects with a risk in memory");
    describe_gauge!("cardea_revocations", Unit::Count, "Revocations in force");
    describe_gauge!("cardea_stored_sessions", Unit::Count, "Sessions on disk");
    describe_gauge!("cardea_state_unwritten", Unit::Count, "Changes of state that wait for the disk");
    describe_gauge!("cardea_state_fault", Unit::Count, "1 while changes of state cannot be written to disk");
    describe_counter!("cardea_state_rows_written_total", Unit::Count, "Rows of state made durable");
    describe_counter!("cardea_state_commits_total", Unit::Count, "Commits of state, each with one fsync");
    describe_counter!(
        "cardea_state_rows_refused_total",
        Unit::Count,
        "Changes of state that too many waited before"
    );
    describe_counter!("cardea_signals_total", Unit::Count, "Signals, by whether they were taken in");
    describe_gauge!("cardea_audit_queue_depth", Unit::Count, "Records waiting for the audit writer");
    describe_counter!("cardea_audit_records_total", Unit::Count, "Records written to audit");
    describe_counter!("cardea_audit_gaps_total", Unit::Count, "Verdicts released without a record");
    describe_counter!("cardea_audit_refusals_total", Unit::Count, "Attempts denied because audit was full");
    describe_gauge!("cardea_connections", Unit::Count, "gRPC connections being served");
    describe_counter!(
        "cardea_connections_accepted_total",
        Unit::Count,
        "gRPC connections handed to a worker"
    );
    describe_counter!(
        "cardea_connections_refused_total",
        Unit::Count,
        "gRPC connections not served, by reason"
    );
    describe_counter!(
        "cardea_tls_reloads_total",
        Unit::Count,
        "Certificate changes, by whether they took effect"
    );
    describe_gauge!(
        "cardea_tls_not_after_timestamp_seconds",
        Unit::Seconds,
        "End of the server certificate's life, Unix time"
    );
    ReceiverMetrics::describe();
    describe_counter!("cardea_panics_total", Unit::Count, "Panics caught; each is a bug");
    ShadowMetrics::describe();
    ReviewMetrics::describe();
    HoldMetrics::describe();
    CounterMetrics::describe();
    TransmitMetrics::describe();
    SinkMetrics::describe();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(Labels { doors: &["grpc"], outcomes: &[("allow", "permitted")], shards: 2 })
    }

    #[test]
    fn every_metric_is_rendered_described_and_named_with_its_unit() {
        let text = metrics().render();
        let families: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert!(families.len() > 15, "{text}");
        for family in families {
            assert!(family.starts_with("cardea_"), "{family}");
            assert!(text.contains(&format!("# HELP {family} ")), "`{family}` is not described");
        }
        for line in text.lines().filter(|line| line.contains(" counter")) {
            assert!(line.contains("_total counter"), "{line}");
        }
    }

    #[test]
    fn two_servers_in_one_process_do_not_share_counters() {
        let (one, other) = (metrics(), metrics());
        one.audit_gaps.increment(3);
        assert!(one.render().contains("cardea_audit_gaps_total 3"));
        assert!(other.render().contains("cardea_audit_gaps_total 0"));
    }
}
