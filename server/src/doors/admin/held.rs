//! Streams of holds, in the words of the wire.

use cardea_proto::v1;
use tonic::Status;

use super::super::{hold, wire};
use super::count;
use crate::holds::{HoldView, Listing, StreamView};
use crate::limits;

/// Holds in a page, where the caller does not say.
const PAGE_DEFAULT: usize = 100;

/// What is asked for.
pub(super) fn listing(request: &v1::ListHoldStreamsRequest) -> Result<Listing, Status> {
    let holds_max = match usize::try_from(request.page_size).unwrap_or(usize::MAX) {
        0 => PAGE_DEFAULT,
        size if size <= limits::HOLD_PAGE_MAX => size,
        _ => {
            let max = limits::HOLD_PAGE_MAX;
            return Err(Status::invalid_argument(format!("`page_size` is at most {max}")));
        }
    };
    let stream = (request.stream_id != 0).then_some(request.stream_id);
    Ok(Listing { stream, after_hold: request.after_hold_id, holds_max })
}

/// What there is.
pub(super) fn response(
    listing: Listing,
    streams: &[StreamView],
) -> Result<v1::ListHoldStreamsResponse, Status> {
    if listing.stream.is_some() && streams.is_empty() {
        return Err(Status::not_found("no stream has this number; list all to see which there are"));
    }
    let more = streams.iter().any(|stream| stream.more);
    Ok(v1::ListHoldStreamsResponse { streams: streams.iter().map(stream).collect(), more })
}

fn stream(view: &StreamView) -> v1::HoldStream {
    v1::HoldStream {
        stream_id: view.stream,
        enforcement_point: view.enforcement_point.to_string(),
        peer: view.peer.to_string(),
        connected: view.connected,
        opened_at: Some(wire::timestamp(view.opened_ms)),
        holds: count(view.holds),
        not_allowed: count(view.not_allowed),
        waiting: count(view.waiting),
        held: view.held.iter().map(held).collect(),
    }
}

fn held(view: &HoldView) -> v1::HeldAttempt {
    v1::HeldAttempt {
        hold_id: view.hold_id,
        principal: Some(wire::entity_ref(&view.attempt.principal)),
        action: Some(wire::entity_ref(&view.attempt.action.uid)),
        resource: Some(wire::entity_ref(&view.attempt.resource)),
        session_id: view.attempt.session_id.as_deref().unwrap_or("").to_owned(),
        decision: wire::decision(view.decision).into(),
        cause: view.cause.as_deref().map(hold::cause_message),
    }
}
