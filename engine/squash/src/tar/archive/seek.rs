//! An archive in a file: where its entries' data lie, without reading them.

use std::io::{BufRead, Seek, SeekFrom};

use super::{Archive, Data};
use crate::tar::TarError;

impl<R: BufRead + Seek> Archive<R> {
    /// Goes to the next header without reading the current entry's data, and tells where in the
    /// stream those data lie: the first byte, counted from where the archive began, and how many.
    /// None if they are not stored in one piece (a sparse file). To be called once after
    /// [`Archive::next_entry`], before anything of the data is read. Whether the stream is that
    /// long, the caller compares.
    ///
    /// # Errors
    ///
    /// [`TarError::Read`] when the stream cannot be moved.
    pub fn skip_to_next(&mut self) -> Result<Option<(u64, u64)>, TarError> {
        self.give_back();
        let Data { segments, size, stored, padding, .. } = std::mem::take(&mut self.data);
        let start = self.offset;
        let is_plain = match segments.as_slice() {
            [] => size == 0 && stored == 0,
            [only] => *only == (0, stored) && size == stored,
            _ => false,
        };
        let beyond = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let distance = i64::try_from(stored.saturating_add(padding));
        let distance = distance.map_err(|_too_far| TarError::Read(beyond()))?;
        self.stream.seek(SeekFrom::Current(distance)).map_err(TarError::Read)?;
        self.offset = self.offset.saturating_add(distance.unsigned_abs());
        Ok(is_plain.then_some((start, stored)))
    }
}
