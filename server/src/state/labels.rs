//! Labels that policies put on sessions.
//!
//! In memory at once, so that the next attempt of the session is judged with them; on disk with the next commit, for which nobody waits.
//! An attempt that is made again and again writes seldom: a label is put on for a sixteenth longer than it was asked for, and anew only
//! when less than what was asked for is left.

use cardea_core::session::Session;
use cardea_core::time::Now;
use cardea_policy_store::responses::Label;
use smol_str::SmolStr;

use super::sessions::within_limits;
use super::{Key, OpenFault, State};

impl State {
    /// Puts labels on a session. Nothing happens to one that is not known: there is nothing that could have them.
    ///
    /// # Errors
    /// When the session was ended, would have too many labels, or the disk refuses: then the labels are not on it.
    pub fn label(&self, id: &str, labels: &[&(SmolStr, Label)], now: Now) -> Result<(), OpenFault> {
        let Some((session, _)) = self.session(id)? else { return Ok(()) };
        if labels.iter().all(|(name, label)| has(&session, name, label, now)) {
            return Ok(());
        }
        let revised = self.revise(id, |current| {
            if current.ended.is_some() {
                return Err(OpenFault::Ended(id.into()));
            }
            let mut next = Session::clone(current);
            next.labels.retain(|_, until_ms| *until_ms > now.wall_ms);
            for (name, label) in labels {
                next.label(name.clone(), until_ms(label, now));
            }
            within_limits(&next)?;
            Ok(Some(next))
        })?;
        if revised.is_some() {
            self.advance(Key::Session(id.into()), "labelled");
        }
        Ok(())
    }
}

fn has(session: &Session, name: &SmolStr, label: &Label, now: Now) -> bool {
    let Some(until_ms) = session.labels.get(name) else { return false };
    match label.for_s {
        None => *until_ms == i64::MAX,
        Some(for_s) => *until_ms >= now.wall_ms.saturating_add(i64::from(for_s) * 1000),
    }
}

fn until_ms(label: &Label, now: Now) -> i64 {
    let Some(for_s) = label.for_s else { return i64::MAX };
    let ms = i64::from(for_s) * 1000;
    now.wall_ms.saturating_add(ms).saturating_add(ms / 16)
}
