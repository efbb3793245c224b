//! A candidate on its way in: one message that announces it, then its bytes in chunks.
//!
//! Limits: [`limits::CANDIDATE_BYTES_MAX`] in all, [`limits::CANDIDATE_CHUNK_BYTES_MAX`] a chunk,
//! [`limits::CANDIDATE_UPLOAD_TIMEOUT`] for everything. Memory is taken as bytes arrive, not as they are announced.

use bytes::{Bytes, BytesMut};
use cardea_proto::v1;
use cardea_proto::v1::shadow_start::Candidate;
use cardea_proto::v1::start_shadow_request::Part;
use tonic::{Status, Streaming};

use crate::bundle_admin::Source;
use crate::limits;
use crate::shadow::SAMPLE_WHOLE;

/// Reads the whole request. `is_on`: a shadow is on, so that one that may not replace it is refused before its bytes come.
pub(super) async fn read(
    messages: Streaming<v1::StartShadowRequest>,
    is_on: bool,
) -> Result<(v1::ShadowStart, Source), Status> {
    let in_time = tokio::time::timeout(limits::CANDIDATE_UPLOAD_TIMEOUT, read_all(messages, is_on)).await;
    in_time.unwrap_or_else(|_| {
        let wait = limits::CANDIDATE_UPLOAD_TIMEOUT;
        Err(Status::deadline_exceeded(format!(
            "the candidate did not come in within {wait:?}; send it again"
        )))
    })
}

pub(super) fn already_on() -> Status {
    Status::already_exists("a shadow is on; stop it, or set `replace`")
}

async fn read_all(
    mut messages: Streaming<v1::StartShadowRequest>,
    is_on: bool,
) -> Result<(v1::ShadowStart, Source), Status> {
    let first = messages.message().await?.and_then(|message| message.part);
    let Some(Part::Start(start)) = first else {
        return Err(Status::invalid_argument("the first message is `start`"));
    };
    if !(1..=SAMPLE_WHOLE).contains(&start.sample_per_10000) {
        return Err(Status::invalid_argument(format!(
            "`sample_per_10000` is {}, and must be from 1 to {SAMPLE_WHOLE}",
            start.sample_per_10000
        )));
    }
    if is_on && !start.replace {
        return Err(already_on());
    }
    let source = match start.candidate {
        Some(Candidate::Revision(revision)) => Source::Revision(revision),
        Some(Candidate::PackedBytes(announced)) => Source::Packed(packed(&mut messages, announced).await?),
        None => {
            return Err(Status::invalid_argument(
                "`candidate` is missing; name a `revision` or announce `packed_bytes`",
            ));
        }
    };
    match messages.message().await? {
        None => Ok((start, source)),
        Some(_) => Err(Status::invalid_argument("more messages came than `start` announced")),
    }
}

async fn packed(messages: &mut Streaming<v1::StartShadowRequest>, announced: u64) -> Result<Bytes, Status> {
    let max = limits::CANDIDATE_BYTES_MAX;
    let wanted = usize::try_from(announced).ok().filter(|_| (1..=max).contains(&announced));
    let Some(wanted) = wanted else {
        return Err(Status::invalid_argument(format!(
            "`packed_bytes` is {announced}, and must be from 1 to {max}"
        )));
    };
    let mut bytes = BytesMut::new();
    while bytes.len() < wanted {
        let Some(Part::Chunk(chunk)) = messages.message().await?.and_then(|message| message.part) else {
            return Err(Status::invalid_argument(format!(
                "the candidate ends after {} of {wanted} announced bytes",
                bytes.len()
            )));
        };
        if chunk.is_empty() || chunk.len() > limits::CANDIDATE_CHUNK_BYTES_MAX {
            let max = limits::CANDIDATE_CHUNK_BYTES_MAX;
            return Err(Status::invalid_argument(format!("a chunk has 1 to {max} bytes")));
        }
        if chunk.len() > wanted - bytes.len() {
            return Err(Status::invalid_argument(format!("more bytes came than the announced {wanted}")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}
