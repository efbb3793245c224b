//! Bursts: the DARPA 1998 edges, of which six in ten are floods.

use std::collections::HashMap;
use std::io::BufRead as _;

use cardea_core::behavior::{BurstDetector, Fingerprint, Key};

use super::data::{Places, unzipped};
use super::table::{Bar, Row};
use crate::mono;

/// Scores below this are learned as normal, as in `examples/monitoring/darpa.toml`.
const MERGE_BELOW: f32 = 1_000.0;

struct Edge {
    source: Fingerprint,
    destination: Fingerprint,
    tick: u32,
    is_attack: bool,
}

/// Measures; nothing where the data is absent.
///
/// # Errors
///
/// The data cannot be read.
pub fn measure(places: &Places) -> Result<Option<Vec<Row>>, String> {
    let Some(path) = places.file("darpa_edges/darpa_original.zip") else { return Ok(None) };
    let key = Key::new([0x5a; 16]);
    let mut ticks = HashMap::new();
    let mut edges = Vec::new();
    for line in unzipped(&path).map_err(|error| error.to_string())?.lines() {
        let line = line.map_err(|error| error.to_string())?;
        let mut parts = line.trim_end().split(',');
        let (Some(source), Some(destination), Some(minute), Some(label)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        // A tick is the place of the minute among all minutes in which anything happened.
        let next = u32::try_from(ticks.len() + 1).unwrap_or(u32::MAX);
        let tick = *ticks.entry(minute.to_owned()).or_insert(next);
        let (source, destination) = (key.text(source), key.text(destination));
        edges.push(Edge { source, destination, tick, is_attack: label != "-" });
    }
    let mut nanoseconds = f64::INFINITY;
    let mut scores = Vec::new();
    for _ in 0..3 {
        let mut detector = BurstDetector::new(MERGE_BELOW);
        scores.clear();
        scores.resize(edges.len(), 0.0_f32);
        let start = mono::now();
        for (edge, score) in edges.iter().zip(&mut scores) {
            *score = detector.observe(edge.source, edge.destination, edge.tick);
        }
        #[expect(clippy::cast_precision_loss, reason = "a count of edges")]
        let each = start.elapsed().as_secs_f64() * 1e9 / edges.len().max(1) as f64;
        nanoseconds = nanoseconds.min(each);
    }
    let mut ranked: Vec<_> =
        scores.iter().zip(&edges).map(|(score, edge)| (*score, edge.is_attack)).collect();
    let auc = auc(&mut ranked);
    Ok(Some(vec![
        Row::new("bursts: AUC (DARPA)", auc, "", Bar::Least(0.945))
            .with(format!("{auc:.4}; {} edges", edges.len())),
        Row::new("bursts: cost of an edge, best of 3", nanoseconds, "ns", Bar::Most(50.0))
            .with(format!("{} bytes", BurstDetector::bytes())),
    ]))
}

/// Area under the ROC curve; ties count half.
#[expect(clippy::cast_precision_loss, reason = "counts of edges")]
fn auc(ranked: &mut [(f32, bool)]) -> f64 {
    ranked.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (mut below, mut area, mut attacks) = (0.0, 0.0, 0.0);
    for tied in ranked.chunk_by(|one, other| one.0.total_cmp(&other.0).is_eq()) {
        let hit = tied.iter().filter(|(_, is_attack)| *is_attack).count() as f64;
        let other = tied.len() as f64 - hit;
        area += hit * (below + other / 2.0);
        below += other;
        attacks += hit;
    }
    area / (attacks * below).max(1.0)
}
