//! What a reviewer is shown of an attempt that deviates: the evidence as it was when the round was opened.
//!
//! Limits: [`EVIDENCE_BYTES_MAX`] bytes of sentences, and those of [`Named`].

use cardea_behavior::Flag;
use cardea_policy_store::snapshot::Snapshot;
use smol_str::SmolStr;

use crate::attempt::Attempt;
use crate::observed::Named;
use crate::verdict::Deviated;

/// Most bytes of evidence: some twenty sentences. The record of the decision has the rest.
pub const EVIDENCE_BYTES_MAX: usize = 4 * 1024;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// What the deviation amounts to.
    pub assessment: SmolStr,
    /// How sure that is, in percent.
    pub confidence: u8,
    /// The evidence by name.
    pub flags: Vec<SmolStr>,
    /// The evidence in words.
    pub evidence: Vec<SmolStr>,
    /// The baseline that it was compared with; empty: none.
    pub baseline: SmolStr,
    /// What an approval into the next baseline takes up; `None`: it names more than is kept, or a task that it may not use.
    pub named: Option<Named>,
}

impl Asked {
    /// The evidence about an attempt that was compared.
    #[must_use]
    pub fn of(attempt: &Attempt, snapshot: &Snapshot, deviated: &Deviated) -> Self {
        let told = deviated.told.as_deref().cloned().unwrap_or_default();
        Self {
            assessment: SmolStr::new_static(deviated.deviation.assessment.name()),
            confidence: deviated.deviation.confidence,
            flags: deviated.deviation.flags.iter().map(Flag::name).map(SmolStr::new_static).collect(),
            evidence: bounded(&told.evidence),
            baseline: told.baseline,
            named: deviated.task.as_ref().and_then(|task| Named::of(attempt, snapshot, task)),
        }
    }
}

/// Sentences as far as there is room for them whole, and a word about those that are not there.
fn bounded(sentences: &[String]) -> Vec<SmolStr> {
    let mut left = EVIDENCE_BYTES_MAX;
    let mut fits = |sentence: &String| {
        let less = left.checked_sub(sentence.len());
        left = less.unwrap_or(left);
        less.is_some()
    };
    let mut kept: Vec<SmolStr> =
        sentences.iter().take_while(|sentence| fits(sentence)).map(SmolStr::from).collect();
    if kept.len() < sentences.len() {
        kept.push(
            format!("{} sentences more: see the record of the decision", sentences.len() - kept.len()).into(),
        );
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_cut_between_sentences_and_says_so() {
        let short = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(bounded(&short), ["a", "b"]);
        let long = vec!["a".to_owned(), "x".repeat(EVIDENCE_BYTES_MAX), "c".to_owned()];
        assert_eq!(bounded(&long), ["a", "2 sentences more: see the record of the decision"]);
    }
}
