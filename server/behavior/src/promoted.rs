//! How a file of baselines becomes the next one: somebody promotes what was learned, and the file says who, when and from what.
//!
//! What is learned is a *candidate*: a file that nobody approved. INVARIANT (explicit): a candidate is compiled by nobody, as
//! [`Kept::parse`] refuses it, and only [`Kept::promoted`] makes an approved file of one. INVARIANT (one line): each entry of the
//! history has the digest of the whole file that it was made from, history included, so that a mistaken file is seen. It is no
//! signature: whoever writes a file can write its history. Limits: [`PROMOTIONS_MAX`] entries, the newest; [`REVIEWED_MAX`] reviews of a candidate.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::approved::{Approved, ENTRIES_MAX, Merge};
use super::kept::{BASELINES_MAX, Kept};

/// Most entries of a history: one a week for a year. Older ones are in the older files.
pub const PROMOTIONS_MAX: usize = 52;
/// Most reviews that a candidate takes up.
pub const REVIEWED_MAX: usize = 10_000;
/// Longest name of an approver, and longest reason, in bytes.
pub const TEXT_BYTES_MAX: usize = 256;
/// Most reviewers that an entry of the history names.
const REVIEWERS_MAX: usize = 32;

/// One step from a file to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    /// The version that it made.
    pub version: u32,
    /// Who decided it.
    pub approved_by: String,
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// SHA-256 of the file before, lower-case hexadecimal; empty: there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub from: String,
    /// SHA-256 of the candidate; empty: none, names were dropped or learned from recorded approved runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub candidate: String,
    /// Until when its runs were learned, Unix milliseconds; 0: unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub learned_until_ms: i64,
    /// Names that are approved and were not.
    pub added: u64,
    /// Names that were approved and are not any more.
    pub removed: u64,
    /// Reviewers who approved single attempts of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reviewed_by: Vec<String>,
}

/// An attempt that a reviewer approved into the next baseline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reviewed {
    /// The review.
    pub review: String,
    /// Its round.
    pub round: u32,
    /// Who approved.
    pub by: String,
    /// Whose attempt it was.
    pub identity: String,
    /// In which task; empty: none.
    pub task: String,
    /// What it did.
    pub action: String,
    /// When it was approved, Unix milliseconds.
    pub at_ms: i64,
}

/// What a candidate was learned from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learned {
    /// Its first attempt, Unix milliseconds.
    pub from_ms: i64,
    /// Its last, Unix milliseconds.
    pub until_ms: i64,
}

/// Who decides.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'d> {
    /// His name.
    pub by: &'d str,
    /// When, Unix milliseconds.
    pub at_ms: i64,
    /// Why, in words.
    pub reason: &'d str,
}

/// A file, and the SHA-256 of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'f> {
    /// What it holds.
    pub kept: &'f Kept,
    /// Lower-case hexadecimal.
    pub digest: &'f str,
}

/// Why there is no next file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpromoted {
    /// It is approved already.
    #[error("is version {0} and approved already; name what `cardea baseline learn` wrote")]
    NoCandidate(u32),
    /// What it is promoted onto is none.
    #[error("is a candidate itself, and nothing can be promoted onto it; promote it first")]
    OntoCandidate,
    /// It was promoted before.
    #[error("was promoted before, in version {0}; its runs would be counted twice")]
    Again(u32),
    /// It holds nothing.
    #[error("holds nothing that could be approved")]
    Empty,
    /// The text is empty or too long.
    #[error("an approver has 1 to {TEXT_BYTES_MAX} bytes, a reason at most {TEXT_BYTES_MAX}")]
    Words,
    /// There is no place for it.
    #[error(
        "would have more than {BASELINES_MAX} baselines, or one more than {ENTRIES_MAX} names; expire some first"
    )]
    TooLarge,
}

impl Kept {
    /// One that nobody approved, and that holds nothing yet.
    #[must_use]
    pub fn candidate() -> Self {
        let mut kept = Self::new("");
        kept.version = 0;
        kept
    }

    /// Whether nobody approved it.
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        self.approved_by.is_empty()
    }

    /// The next file: a candidate on top of what is approved.
    ///
    /// # Errors
    /// Why not; see [`Unpromoted`].
    pub fn promoted(
        onto: Option<Signed<'_>>,
        candidate: Signed<'_>,
        decided: Decided<'_>,
    ) -> Result<Self, Unpromoted> {
        let Signed { kept: learned, digest } = candidate;
        if !learned.is_candidate() {
            return Err(Unpromoted::NoCandidate(learned.version));
        }
        if onto.is_some_and(|onto| onto.kept.is_candidate()) {
            return Err(Unpromoted::OntoCandidate);
        }
        if learned.baselines.is_empty() {
            return Err(Unpromoted::Empty);
        }
        let before = onto.map_or_else(Self::candidate, |onto| onto.kept.clone());
        if let Some(known) = before.promotions.iter().find(|one| one.candidate == digest) {
            return Err(Unpromoted::Again(known.version));
        }
        let mut next = before.clone();
        next.attempts = next.attempts.saturating_add(learned.attempts);
        let mut left_out = false;
        for (identity, tasks) in &learned.baselines {
            let mine = next.baselines.entry(identity.clone()).or_default();
            for (task, approved) in tasks {
                let known = mine.entry(task.clone()).or_default();
                let lost = known.left_out.saturating_add(approved.left_out);
                known.merge(approved, Merge::SameTask);
                left_out |= known.left_out > lost;
            }
        }
        if left_out
            || next.baselines.values().map(std::collections::BTreeMap::len).sum::<usize>() > BASELINES_MAX
        {
            return Err(Unpromoted::TooLarge);
        }
        let reviewers: BTreeSet<&String> = learned.reviewed.iter().map(|one| &one.by).collect();
        let entry = Promotion {
            from: onto.map(|onto| onto.digest.to_owned()).unwrap_or_default(),
            candidate: digest.to_owned(),
            learned_until_ms: learned.learned.map_or(0, |learned| learned.until_ms),
            reviewed_by: reviewers.into_iter().take(REVIEWERS_MAX).cloned().collect(),
            ..Promotion::default()
        };
        next.decide(&before, entry, decided)?;
        Ok(next)
    }

    /// Makes this the version after `before`, with an entry in the history that says who decided it. What the entry says of
    /// version, approver, time, reason and counts is filled in.
    ///
    /// # Errors
    /// Nobody is named, or in too many words.
    pub fn decide(
        &mut self,
        before: &Self,
        entry: Promotion,
        decided: Decided<'_>,
    ) -> Result<(), Unpromoted> {
        let Decided { by, at_ms, reason } = decided;
        if by.is_empty() || by.len() > TEXT_BYTES_MAX || reason.len() > TEXT_BYTES_MAX {
            return Err(Unpromoted::Words);
        }
        let (added, removed) = before.changes(self);
        self.version = before.version.saturating_add(1);
        by.clone_into(&mut self.approved_by);
        let entry = Promotion {
            version: self.version,
            approved_by: by.to_owned(),
            at_ms,
            reason: reason.to_owned(),
            added,
            removed,
            ..entry
        };
        self.promotions.push(entry);
        let old = self.promotions.len().saturating_sub(PROMOTIONS_MAX);
        self.promotions.drain(..old);
        Ok(())
    }

    /// Whether this is the file with that digest and version carried on, by one step or several.
    #[must_use]
    pub fn descends_from(&self, digest: &str) -> bool {
        self.promotions.iter().any(|one| one.from == digest)
    }

    /// Whether the history is one that [`Kept::promoted`] writes.
    pub(super) fn has_whole_history(&self) -> bool {
        let rises = self.promotions.windows(2).all(|pair| match pair {
            [one, next] => one.version < next.version && !next.from.is_empty(),
            _ => true,
        });
        let is_last = self
            .promotions
            .last()
            .is_none_or(|last| (last.version, &last.approved_by) == (self.version, &self.approved_by));
        let candidate = self.reviewed.is_empty() && self.learned.is_none();
        rises
            && is_last
            && self.promotions.len() <= PROMOTIONS_MAX
            && if self.is_candidate() { self.promotions.is_empty() && self.version == 0 } else { candidate }
    }

    /// How many names a newer file approves beyond this one, and how many it does not approve any more.
    #[must_use]
    pub fn changes(&self, newer: &Self) -> (u64, u64) {
        let nothing = Approved::default();
        let keys: BTreeSet<(&String, &String)> = [self, newer]
            .into_iter()
            .flat_map(|kept| kept.baselines.iter())
            .flat_map(|(identity, tasks)| tasks.keys().map(move |task| (identity, task)))
            .collect();
        let mut counts = (0_u64, 0_u64);
        for (identity, task) in keys {
            let of = |kept: &'_ Self| kept.baselines.get(identity).and_then(|tasks| tasks.get(task)).cloned();
            let (was, is) = (of(self), of(newer));
            if was == is {
                continue;
            }
            for line in was.as_ref().unwrap_or(&nothing).diff(is.as_ref().unwrap_or(&nothing)) {
                if line.starts_with('+') { counts.0 += 1 } else { counts.1 += 1 }
            }
        }
        counts
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(at: &i64) -> bool {
    *at == 0
}

#[cfg(test)]
mod tests {
    use super::super::approved::{Done, Seen};
    use super::super::kept::Unkept;
    use super::*;

    const ANN: Decided<'static> = Decided { by: "ann", at_ms: 5, reason: "as seen in testing" };

    /// A candidate in which an agent sent something to somebody.
    fn learned(to: &str) -> Kept {
        let seen = Seen { runs: 1, tasks: 1, last_ms: 3 };
        let done = Done { seen, bare: false, targets: [(to.into(), seen)].into() };
        let approved = Approved { runs: 1, actions: [("send".into(), done)].into(), ..Approved::default() };
        let mut kept = Kept::candidate();
        kept.baselines.insert("Agent::\"a\"".into(), [("t".to_owned(), approved)].into());
        kept
    }

    fn promote(onto: Option<(&Kept, &str)>, candidate: &Kept, digest: &str) -> Result<Kept, Unpromoted> {
        let onto = onto.map(|(kept, digest)| Signed { kept, digest });
        Kept::promoted(onto, Signed { kept: candidate, digest }, ANN)
    }

    #[test]
    fn a_candidate_is_read_by_nobody_before_it_is_promoted() {
        let candidate = learned("bob");
        let bytes = candidate.bytes().unwrap();
        assert_eq!(Kept::parse(&bytes), Err(Unkept::Unapproved));
        assert_eq!(Kept::parse_any(&bytes), Ok(candidate.clone()));
        let first = promote(None, &candidate, "c1").unwrap();
        assert_eq!((first.version, first.approved_by.as_str()), (1, "ann"));
        assert_eq!(Kept::parse(&first.bytes().unwrap()), Ok(first.clone()));
        let last = first.promotions.last().unwrap();
        assert_eq!((last.added, last.removed, last.candidate.as_str(), last.from.as_str()), (2, 0, "c1", ""));
        assert_eq!(promote(None, &first, "x"), Err(Unpromoted::NoCandidate(1)));
        assert_eq!(promote(Some((&candidate, "c1")), &candidate, "c1"), Err(Unpromoted::OntoCandidate));
    }

    #[test]
    fn the_same_candidate_counts_once_and_the_line_of_files_can_be_followed() {
        let first = promote(None, &learned("bob"), "c1").unwrap();
        let second = promote(Some((&first, "f1")), &learned("eve"), "c2").unwrap();
        assert_eq!(second.version, 2);
        assert!(second.descends_from("f1") && !second.descends_from("f2"));
        assert_eq!(promote(Some((&second, "f2")), &learned("bob"), "c1"), Err(Unpromoted::Again(1)));
        let approved = &second.baselines["Agent::\"a\""]["t"];
        assert_eq!((approved.runs, approved.actions["send"].targets.len()), (2, 2));
        let nobody = Decided { by: "", ..ANN };
        let candidate = learned("x");
        let signed = Signed { kept: &candidate, digest: "c3" };
        assert_eq!(Kept::promoted(None, signed, nobody), Err(Unpromoted::Words));
    }

    #[test]
    fn a_history_that_was_tampered_with_is_no_file() {
        let first = promote(None, &learned("bob"), "c1").unwrap();
        let second = promote(Some((&first, "f1")), &learned("eve"), "c2").unwrap();
        let broken: [fn(&mut Kept); 5] = [
            |kept| kept.approved_by = "mallory".into(),
            |kept| kept.version = 9,
            |kept| kept.promotions.reverse(),
            |kept| kept.promotions[1].from.clear(),
            |kept| kept.approved_by.clear(),
        ];
        for tamper in broken {
            let mut kept = second.clone();
            tamper(&mut kept);
            let found = Kept::parse(&kept.bytes().unwrap());
            assert!(matches!(found, Err(Unkept::History | Unkept::Unapproved)), "{found:?}");
        }
    }

    #[test]
    fn the_history_is_bounded() {
        let mut kept = promote(None, &learned("bob"), "c0").unwrap();
        for n in 1..=2 * PROMOTIONS_MAX {
            kept = promote(Some((&kept, "f")), &learned("bob"), &format!("c{n}")).unwrap();
        }
        assert_eq!(kept.promotions.len(), PROMOTIONS_MAX);
        assert!(Kept::parse(&kept.bytes().unwrap()).is_ok());
    }
}
