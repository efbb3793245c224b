//! The two frames of a packed bundle (RFC 8878): the compressed archive, and the skippable frame of the signature.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter};

use super::{PackError, RATIO_MAX};
use crate::dsse::{ENVELOPE_BYTES_MAX, EnvelopeError};

/// The first bytes of a zstd frame.
pub(super) const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The first bytes of our skippable frame; any tool that reads zstd passes over it.
const SKIPPABLE_MAGIC: [u8; 4] = [0x5c, 0x2a, 0x4d, 0x18];
/// Bytes before the content of a skippable frame.
const SKIPPABLE_HEAD: usize = 8;
/// How hard to compress. Part of the format: another level would give other bytes for the same bundle.
const LEVEL: i32 = 3;
/// Content that may be unpacked whatever the ratio: small archives compress well because of their headers.
const ALWAYS_BYTES: u64 = 1 << 20;

pub(super) fn compress(tar: &[u8]) -> Result<Vec<u8>, PackError> {
    let failed = |error: std::io::Error| PackError::Compression(error.to_string());
    let mut compressor = Compressor::new(LEVEL).map_err(failed)?;
    compressor.set_parameter(CParameter::ChecksumFlag(true)).map_err(failed)?;
    compressor.set_parameter(CParameter::ContentSizeFlag(true)).map_err(failed)?;
    compressor.compress(tar).map_err(failed)
}

/// Unpacks a frame that says how large it is, and is not larger than it may be.
pub(super) fn decompress(frame: &[u8], bytes_max: u64) -> Result<Vec<u8>, PackError> {
    let announced = zstd_safe::get_frame_content_size(frame).map_err(|_| PackError::UnknownSize)?;
    let unpacked = announced.ok_or(PackError::UnknownSize)?;
    let ratio = unpacked / (frame.len() as u64).max(1);
    if unpacked > bytes_max || (unpacked > ALWAYS_BYTES && ratio > RATIO_MAX) {
        return Err(PackError::Bomb { unpacked, ratio, most: bytes_max });
    }
    let capacity = usize::try_from(unpacked).map_err(|_| PackError::UnknownSize)?;
    let failed = |error: std::io::Error| PackError::Compression(error.to_string());
    // Never writes beyond the capacity, whatever the blocks say.
    Decompressor::new().map_err(failed)?.decompress(frame, capacity).map_err(failed)
}

/// Length of the frame that the bytes begin with.
pub(super) fn archive_length(bytes: &[u8]) -> Result<usize, PackError> {
    if !bytes.starts_with(&ZSTD_MAGIC) {
        return Err(PackError::NotPacked);
    }
    zstd_safe::find_frame_compressed_size(bytes).map_err(|_| PackError::Truncated("its archive does not end"))
}

/// The content of the one skippable frame that is all of `rest`; `None` if there is nothing.
pub(super) fn signature(rest: &[u8]) -> Result<Option<&[u8]>, PackError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let Some((magic, after)) = rest.split_at_checked(4) else { return Err(PackError::Trailing) };
    if magic != SKIPPABLE_MAGIC {
        return Err(PackError::Trailing);
    }
    let truncated = PackError::Truncated("its signature does not end");
    let Some((length, content)) = after.split_first_chunk::<4>() else { return Err(truncated) };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > ENVELOPE_BYTES_MAX {
        return Err(EnvelopeError::TooLarge(length).into());
    }
    match content.len().cmp(&length) {
        std::cmp::Ordering::Less => Err(truncated),
        std::cmp::Ordering::Greater => Err(PackError::Trailing),
        std::cmp::Ordering::Equal => Ok(Some(content)),
    }
}

/// Adds the signature's frame.
pub(super) fn append_signature(bytes: &mut Vec<u8>, envelope: &[u8]) {
    bytes.reserve(SKIPPABLE_HEAD + envelope.len());
    bytes.extend(SKIPPABLE_MAGIC);
    bytes.extend(u32::try_from(envelope.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(envelope);
}
