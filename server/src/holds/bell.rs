//! Wakes the thread of the holds.

use std::sync::OnceLock;
use std::thread::{self, Thread};

/// Rings for the thread that answers it; costs next to nothing while that is awake.
#[derive(Debug, Default)]
pub struct Bell(OnceLock<Thread>);

impl Bell {
    /// Wakes it.
    pub fn ring(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }

    /// From now on the calling thread answers.
    pub(super) fn answer(&self) {
        let _somebody_does = self.0.set(thread::current());
    }
}
