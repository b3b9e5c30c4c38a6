//! Little-endian numbers out of a slice, with its bounds.

use super::error::ReadError;

/// What is left of a slice.
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    /// Where it comes from, for errors.
    position: u64,
}

impl<'a> Fields<'a> {
    pub(super) fn new(rest: &'a [u8], position: u64) -> Self {
        Self { rest, position }
    }

    fn array<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], ReadError> {
        let (now, rest) = self.rest.split_first_chunk().ok_or(ReadError::Damaged {
            what: "something ends too early",
            position: self.position,
        })?;
        self.rest = rest;
        Ok(*now)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_le_bytes)
    }
}
