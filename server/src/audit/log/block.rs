//! A block: the records of one write, or of one tile in a packed segment, with a checksum.
//!
//! ```text
//! 0   u32  magic: a skippable frame of zstd (RFC 8878 section 3.1.2), one for stored and one for packed blocks
//! 4   u32  24: how much of the frame follows
//! 8   u64  sequence number of the first record
//! 16  u32  records
//! 20  u32  bytes of the payload as stored
//! 24  u32  bytes of the payload once unpacked
//! 28  u32  CRC-32 (IEEE 802.3) of bytes 8 to 28 and of the payload as stored
//! 32       payload: each record after its length as a varint, as protobuf's delimited streams have it
//! ```
//!
//! Numbers are little-endian. A packed payload is one frame of zstd, so `zstd -dc` makes a delimited stream of a packed segment.
//! Limits: [`RECORD_BYTES_MAX`] for a record, [`PAYLOAD_BYTES_MAX`] for a payload, so that nothing read from a file grows beyond.

use std::borrow::Cow;

use thiserror::Error;

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 32;
/// Longest record, in bytes: what an entry of a tile may have (C2SP tlog-tiles).
pub(in crate::audit) const RECORD_BYTES_MAX: usize = 65_535;
/// Longest payload, in bytes: a tile of the longest records, each with its length.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 * (RECORD_BYTES_MAX + 3);

const STORED: u32 = 0x184D_2A5B;
const PACKED: u32 = 0x184D_2A5C;
const FRAME_BYTES: u32 = 24;

/// What is wrong with a block.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadBlock {
    /// Not the beginning of a block.
    #[error("no block begins here")]
    Magic,
    /// A number that cannot be.
    #[error("its {0} is out of range")]
    Range(&'static str),
    /// The checksum is that of something else.
    #[error("its checksum is {found:08x} and should be {expected:08x}")]
    Checksum {
        /// Of what is there.
        found: u32,
        /// As the header says.
        expected: u32,
    },
    /// It cannot be unpacked.
    #[error("its payload cannot be unpacked")]
    Packing,
    /// Lengths and number of its records do not fit.
    #[error("its records do not add up")]
    Records,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) is_packed: bool,
    pub(super) first: u64,
    pub(super) records: u32,
    pub(super) stored_bytes: u32,
    pub(super) raw_bytes: u32,
    crc: u32,
}

impl Header {
    /// The header of a payload; `raw_bytes` where it is packed.
    pub(super) fn of(first: u64, records: u32, payload: &[u8], raw_bytes: Option<u32>) -> Self {
        let stored_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut header = Self {
            is_packed: raw_bytes.is_some(),
            first,
            records,
            stored_bytes,
            raw_bytes: raw_bytes.unwrap_or(stored_bytes),
            crc: 0,
        };
        header.crc = header.checksum(payload);
        header
    }

    pub(super) fn print(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let magic = if self.is_packed { PACKED } else { STORED };
        let fields = magic.to_le_bytes().into_iter().chain(FRAME_BYTES.to_le_bytes());
        let fields = fields.chain(self.numbers()).chain(self.crc.to_le_bytes());
        bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        bytes
    }

    /// # Errors
    /// It is none, or a number in it is out of range.
    pub(super) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, BadBlock> {
        let number = |at: usize| -> u32 {
            let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or_default())
        };
        let is_packed = match (number(0), number(4)) {
            (STORED, FRAME_BYTES) => false,
            (PACKED, FRAME_BYTES) => true,
            _ => return Err(BadBlock::Magic),
        };
        let header = Self {
            is_packed,
            first: u64::from(number(8)) | (u64::from(number(12)) << 32),
            records: number(16),
            stored_bytes: number(20),
            raw_bytes: number(24),
            crc: number(28),
        };
        let most = |bytes: u32| usize::try_from(bytes).is_ok_and(|bytes| bytes <= PAYLOAD_BYTES_MAX);
        if header.first == 0 || header.first.checked_add(u64::from(header.records)).is_none() {
            return Err(BadBlock::Range("first sequence number"));
        }
        // A record takes a byte at least: its length.
        if header.records == 0 || header.records > header.raw_bytes {
            return Err(BadBlock::Range("number of records"));
        }
        if !most(header.stored_bytes) || !most(header.raw_bytes) {
            return Err(BadBlock::Range("length"));
        }
        if !is_packed && header.stored_bytes != header.raw_bytes {
            return Err(BadBlock::Range("length"));
        }
        Ok(header)
    }

    /// Sequence number of the first record after it.
    pub(super) fn next(&self) -> u64 {
        self.first.saturating_add(u64::from(self.records))
    }

    /// Bytes of the whole block.
    pub(super) fn bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.stored_bytes)
    }

    /// The payload, checked and unpacked.
    ///
    /// # Errors
    /// It is not what the header was made for.
    pub(super) fn open<'p>(&self, stored: &'p [u8]) -> Result<Cow<'p, [u8]>, BadBlock> {
        let found = self.checksum(stored);
        if found != self.crc {
            return Err(BadBlock::Checksum { found, expected: self.crc });
        }
        if !self.is_packed {
            return Ok(Cow::Borrowed(stored));
        }
        let raw_bytes = usize::try_from(self.raw_bytes).map_err(|_| BadBlock::Packing)?;
        let raw = zstd::bulk::decompress(stored, raw_bytes).map_err(|_| BadBlock::Packing)?;
        if raw.len() == raw_bytes { Ok(Cow::Owned(raw)) } else { Err(BadBlock::Packing) }
    }

    fn numbers(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        let fields = self.first.to_le_bytes().into_iter();
        let fields = fields.chain(self.records.to_le_bytes()).chain(self.stored_bytes.to_le_bytes());
        bytes.iter_mut().zip(fields.chain(self.raw_bytes.to_le_bytes())).for_each(|(to, from)| *to = from);
        bytes
    }

    fn checksum(&self, stored: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.numbers());
        hasher.update(stored);
        hasher.finalize()
    }
}

/// Puts a record behind those that are in a payload. The caller bounds its length by [`RECORD_BYTES_MAX`].
pub(super) fn push(payload: &mut Vec<u8>, record: &[u8]) {
    // Writing into memory cannot fail.
    let _infallible = prost::encode_length_delimiter(record.len(), payload);
    payload.extend_from_slice(record);
}

/// Takes the first record off a payload.
///
/// # Errors
/// Its length does not fit.
pub(super) fn split_record<'p>(payload: &mut &'p [u8]) -> Result<&'p [u8], BadBlock> {
    let bytes = prost::decode_length_delimiter(&mut *payload).map_err(|_| BadBlock::Records)?;
    if bytes > RECORD_BYTES_MAX {
        return Err(BadBlock::Records);
    }
    let (record, rest) = payload.split_at_checked(bytes).ok_or(BadBlock::Records)?;
    *payload = rest;
    Ok(record)
}

/// The records of a payload, in order.
///
/// # Errors
/// There are not as many as the header says, or a length does not fit.
pub(super) fn records(mut payload: &[u8], count: u32) -> Result<Vec<&[u8]>, BadBlock> {
    let mut records = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(payload.len()));
    while !payload.is_empty() {
        records.push(split_record(&mut payload)?);
    }
    if u32::try_from(records.len()) == Ok(count) { Ok(records) } else { Err(BadBlock::Records) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_block_comes_back_stored_or_packed_and_no_changed_bit_goes_unnoticed(
            first in 1..u64::MAX / 2,
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..20),
            flip in any::<prop::sample::Index>(),
            bit in 0..8,
        ) {
            let mut payload = Vec::new();
            records.iter().for_each(|record| push(&mut payload, record));
            let count = u32::try_from(records.len()).unwrap();
            let raw = u32::try_from(payload.len()).unwrap();
            let packed = zstd::bulk::compress(&payload, 1).unwrap();
            for (stored, raw) in [(&payload, None), (&packed, Some(raw))] {
                let header = Header::of(first, count, stored, raw);
                let mut block = [header.print().as_slice(), stored].concat();
                let read = |block: &[u8]| -> Result<(u64, Vec<Vec<u8>>), BadBlock> {
                    let (header, stored) = block.split_first_chunk::<HEADER_BYTES>().unwrap();
                    let header = Header::parse(header)?;
                    if header.bytes() != block.len() as u64 || header.is_packed != raw.is_some() {
                        return Err(BadBlock::Range("test"));
                    }
                    let payload = header.open(stored)?;
                    let found = super::records(&payload, header.records)?;
                    Ok((header.first, found.into_iter().map(<[u8]>::to_vec).collect()))
                };
                prop_assert_eq!(read(&block), Ok((first, records.clone())));
                let at = flip.index(block.len());
                block[at] ^= 1_u8 << bit;
                prop_assert!(read(&block).is_err());
            }
        }

        #[test]
        fn whatever_bytes_come_reading_them_ends(bytes in prop::collection::vec(any::<u8>(), 32..200)) {
            let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
            if let Ok(header) = Header::parse(header) {
                let _either = header.open(rest);
            }
            let _either = records(&bytes, 3);
        }
    }

    #[test]
    fn a_block_that_claims_more_than_may_be_is_refused_before_anything_is_read() {
        let good = Header::of(1, 1, &[0], None);
        let with = |change: fn(&mut Header)| {
            let mut header = good;
            change(&mut header);
            Header::parse(&header.print())
        };
        assert_eq!(with(|_| {}), Ok(good));
        assert_eq!(with(|header| header.first = 0), Err(BadBlock::Range("first sequence number")));
        assert_eq!(with(|header| header.first = u64::MAX), Err(BadBlock::Range("first sequence number")));
        assert_eq!(with(|header| header.records = 0), Err(BadBlock::Range("number of records")));
        assert_eq!(with(|header| header.records = 2), Err(BadBlock::Range("number of records")));
        assert_eq!(with(|header| header.stored_bytes = u32::MAX), Err(BadBlock::Range("length")));
        assert_eq!(with(|header| header.stored_bytes = 2), Err(BadBlock::Range("length")));
    }
}
