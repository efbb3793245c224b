//! One line of a scored file, and its attempt.

use cardea_core::behavior::{Assessment, Flag, Response};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::monitor::Fault;
use crate::monitor::attempts::{Attempts, Recorded};
use crate::monitor::expiring::Expiring;
use crate::monitor::lines::{Line, Lines};
use crate::monitor::score::SESSIONS_MAX;

/// What `cardea monitor score` said of one attempt.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    session: String,
    n: u64,
    flags: Vec<String>,
    #[serde(deserialize_with = "assessment")]
    pub(super) assessment: Assessment,
    /// 0 to 1.
    pub(super) confidence: f64,
    pub(super) response: Response,
    pub(super) evidence: Vec<String>,
}

impl Told {
    /// One that no file holds; `confidence` in percent.
    pub(super) fn given(
        flags: Vec<String>,
        assessment: Assessment,
        confidence: u32,
        response: Response,
        evidence: Vec<String>,
    ) -> Self {
        let confidence = f64::from(confidence.min(100)) / 100.0;
        Self { session: String::new(), n: 0, flags, assessment, confidence, response, evidence }
    }

    /// Whether it amounts to anything.
    pub(super) fn deviates(&self) -> bool {
        self.assessment != Assessment::None
    }

    /// Whether its session did the same before and it was told then.
    pub(super) fn is_again(&self) -> bool {
        self.flags.iter().any(|flag| flag == Flag::Again.name())
    }

    pub(super) fn is_incident(&self) -> bool {
        self.deviates() && !self.is_again()
    }
}

impl Line for Told {
    const REMEDY: &'static str = "a line is what `cardea monitor score` prints";
}

fn assessment<'de, D: Deserializer<'de>>(from: D) -> Result<Assessment, D::Error> {
    use Assessment::{Abuse, Misconfiguration, None, WorkflowChange};
    let text = std::borrow::Cow::<str>::deserialize(from)?;
    let known = [None, Misconfiguration, WorkflowChange, Abuse];
    let found = known.into_iter().find(|one| one.name() == text);
    found.ok_or_else(|| D::Error::custom(format!("`{}` is no assessment", text.escape_debug())))
}

/// Attempts with what was said of each. A pair that does not belong together ends it with a fault.
pub struct Pairs {
    told: Lines<Told>,
    attempts: Attempts,
    places: Expiring<String, u64>,
}

impl Pairs {
    /// Reads both side by side, in the same order.
    #[must_use]
    pub fn new(told: Lines<Told>, attempts: Attempts) -> Self {
        Self { told, attempts, places: Expiring::new(SESSIONS_MAX) }
    }

    fn pair(&mut self, recorded: Recorded, told: Told) -> Result<(Recorded, Told), Fault> {
        let (place, _) = self.places.entry(&recorded.session);
        let n = *place;
        *place += 1;
        if told.session == recorded.session && told.n == n {
            return Ok((recorded, told));
        }
        Err(self.told.fault(format!(
            "tells of attempt {} of session `{}`, and the attempt there is {n} of `{}`; {REMEDY}",
            told.n,
            told.session.escape_debug(),
            recorded.session.escape_debug()
        )))
    }
}

const REMEDY: &str = "name the attempts that were scored, whole and in the same order";

impl Iterator for Pairs {
    type Item = Result<(Recorded, Told), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        match (self.attempts.next(), self.told.next()) {
            (None, None) => None,
            (Some(Err(fault)), _) | (_, Some(Err(fault))) => Some(Err(fault)),
            (Some(Ok(recorded)), Some(Ok(told))) => Some(self.pair(recorded, told)),
            (Some(Ok(_)), None) => {
                Some(Err(self.told.fault(format!("ends before the attempts do; {REMEDY}"))))
            }
            (None, Some(Ok(_))) => {
                Some(Err(self.told.fault(format!("goes on after the last attempt; {REMEDY}"))))
            }
        }
    }
}
