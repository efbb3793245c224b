//! Lines on standard output.

use std::io::{self, Write as _};

use super::{Event, Failed, lines};

pub(super) fn send(batch: &[Event]) -> Result<(), Failed> {
    let mut out = io::stdout().lock();
    out.write_all(&lines(batch)).and_then(|()| out.flush()).map_err(|error| Failed::later(0, error))
}
