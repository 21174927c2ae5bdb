//! Records as bytes: a run of (time, length, payload), compressed once it is in a segment.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gantry_env::Timestamp;

use crate::ArchiveError;

/// zstd's default: faster levels save little here, slower ones take more than the disk.
const COMPRESSION_LEVEL: i32 = 3;

/// More than any block holds; a damaged length must not make us allocate the memory of a machine.
const LARGEST_BLOCK: usize = 64 * 1024 * 1024;

const HEADER_BYTES: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub timestamp: Timestamp,
    pub payload: Bytes,
}

impl Record {
    pub fn new(timestamp: Timestamp, payload: impl Into<Bytes>) -> Self {
        Self {
            timestamp,
            payload: payload.into(),
        }
    }
}

pub(crate) fn encode(records: &[Record]) -> Bytes {
    let bytes = records
        .iter()
        .map(|record| HEADER_BYTES + record.payload.len());
    let mut block = BytesMut::with_capacity(bytes.sum());
    for record in records {
        block.put_i64_le(record.timestamp.as_millis());
        // An append is far smaller than 4 GiB, see `MAX_APPEND_BYTES`.
        block.put_u32_le(u32::try_from(record.payload.len()).unwrap_or(u32::MAX));
        block.put_slice(&record.payload);
    }
    block.freeze()
}

pub(crate) fn decode(mut block: Bytes) -> Result<Vec<Record>, ArchiveError> {
    let mut records = Vec::new();
    while block.has_remaining() {
        let (timestamp, length) = header(&mut block)?;
        let payload = block.split_to(length);
        records.push(Record { timestamp, payload });
    }
    Ok(records)
}

/// Takes the time of the next record and the length of its payload, which is there.
pub(crate) fn header(block: &mut Bytes) -> Result<(Timestamp, usize), ArchiveError> {
    let damaged = || ArchiveError::io("a block of records is damaged");
    if block.remaining() < HEADER_BYTES {
        return Err(damaged());
    }
    let timestamp = Timestamp::from_millis(block.get_i64_le());
    let length = block.get_u32_le() as usize;
    match length <= block.remaining() {
        true => Ok((timestamp, length)),
        false => Err(damaged()),
    }
}

/// With a checksum, so that damage is noticed when it is read.
pub(crate) fn compress(block: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let mut compressor =
        zstd::bulk::Compressor::new(COMPRESSION_LEVEL).map_err(ArchiveError::io)?;
    let checksum = zstd::zstd_safe::CParameter::ChecksumFlag(true);
    compressor
        .set_parameter(checksum)
        .map_err(ArchiveError::io)?;
    compressor.compress(block).map_err(ArchiveError::io)
}

pub(crate) fn decompress(block: &[u8], bytes: usize) -> Result<Bytes, ArchiveError> {
    let capacity = bytes.min(LARGEST_BLOCK);
    let block = zstd::bulk::decompress(block, capacity).map_err(ArchiveError::io)?;
    Ok(block.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back_as_they_were(
            records in prop::collection::vec((any::<i64>(), prop::collection::vec(any::<u8>(), 0..50)), 0..20),
        ) {
            let records: Vec<Record> = records
                .into_iter()
                .map(|(ms, payload)| Record::new(Timestamp::from_millis(ms), payload))
                .collect();
            let block = encode(&records);
            prop_assert_eq!(&decode(block.clone()).unwrap(), &records);
            let small = compress(&block).unwrap();
            prop_assert_eq!(decompress(&small, block.len()).unwrap(), block);
        }

        #[test]
        fn damage_is_an_error_and_never_a_panic(block in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(block.clone().into());
            let _ = decompress(&block, 1000);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let block = encode(&[Record::new(
            Timestamp::EPOCH,
            "some words, some words, some words",
        )]);
        let mut small = compress(&block).unwrap();
        let middle = small.len() - 6;
        small[middle] ^= 1;
        assert!(decompress(&small, block.len()).is_err());
    }
}
