//! The archive as a stream of entries and their data.

mod seek;

use std::io::BufRead;

use super::header::{self, Block, Header};
use super::pax::Records;
use super::sparse::{self, DataMap, PaxFormat, Segment};
use super::{BLOCK_SIZE, Entry, EntryType, GLOBAL_SIZE_MAX, META_SIZE_MAX, TarError};

/// Part of a file's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Bytes, as they lie in the stream's buffer.
    Data(&'a [u8]),
    /// A hole.
    Zeros(u64),
}

/// Reads an archive from a stream. After an error there is nothing more to be read.
#[derive(Debug)]
pub struct Archive<R> {
    stream: R,
    /// Bytes of the stream's buffer that the last piece lent out.
    lent: usize,
    offset: u64,
    data: Data,
    defaults: Records,
    ended: bool,
}

/// What is left of the current entry.
#[derive(Debug, Default)]
struct Data {
    /// Data segments not begun or not finished, last first; a plain file has one.
    segments: Vec<(u64, u64)>,
    /// Place in the file as it will be, and its size.
    position: u64,
    size: u64,
    /// Bytes of the archive up to the next header: data not read yet, and padding.
    stored: u64,
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    /// An archive that begins where the stream stands.
    pub fn new(stream: R) -> Self {
        let (data, defaults) = (Data::default(), Records::default());
        Self { stream, lent: 0, offset: 0, data, defaults, ended: false }
    }

    /// The stream under the archive, for what it knows besides; not to be read from.
    pub fn stream(&mut self) -> &mut R {
        &mut self.stream
    }

    /// Bytes of the archive read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next entry, or None at the archive's end: two blocks of zeros, or the end of the stream
    /// where a header could begin. What is left of the current entry's data is skipped.
    ///
    /// # Errors
    ///
    /// [`TarError`]; global PAX headers, and errors in them, belong to the entry that follows.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let entry = self.entry_after_skip()?;
        self.ended = entry.is_none();
        Ok(entry)
    }

    fn entry_after_skip(&mut self) -> Result<Option<Entry>, TarError> {
        let (mut records, mut long_name, mut long_link) = (Records::default(), None, None);
        loop {
            self.skip_data()?;
            if !self.skip_padding()? {
                return Ok(None);
            }
            let Some(block) = self.header_block()? else { return Ok(None) };
            let header = header::parse(&block)?;
            match header.flag {
                b'x' => records = Records::parse(&self.meta(&header, "a PAX header")?)?,
                b'g' => {
                    let global = Records::parse(&self.meta(&header, "a global PAX header")?)?;
                    self.defaults = global.or(&self.defaults);
                    let (given, limit) = (self.defaults.size() as u64, GLOBAL_SIZE_MAX as u64);
                    if given > limit {
                        return Err(TarError::TooLarge {
                            what: "global PAX headers",
                            given,
                            limit,
                        });
                    }
                }
                b'L' => long_name = Some(self.meta(&header, "a GNU long name")?),
                b'K' => long_link = Some(self.meta(&header, "a GNU long link")?),
                _ => {
                    let records = records.or(&self.defaults);
                    let mut entry = merged(&header, &records)?;
                    replace(&mut entry.path, long_name);
                    replace(&mut entry.link, long_link);
                    self.begin(&mut entry, (&header, &records), block)?;
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// Settles type and size of the entry, and what its data looks like.
    fn begin(
        &mut self,
        entry: &mut Entry,
        (header, records): (&Header, &Records),
        block: Block,
    ) -> Result<(), TarError> {
        entry.entry_type = entry_type(header.flag, &entry.path);
        self.data = Data::default();
        let pax_format = sparse::pax_format(records);
        if !entry.entry_type.has_data() {
            return if header.flag != b'S' && pax_format.is_none() {
                Ok(())
            } else {
                Err(TarError::Sparse { fault: "is given for what is no file" })
            };
        }
        let size = records.number("size")?.unwrap_or(header.size);
        self.store(natural("size", size)?);
        entry.size = self.data.stored;
        if header.flag == b'S' {
            entry.size = natural("realsize", header::number("realsize", &block[483..495])?)?;
            let segments = self.old_gnu_map(header, block)?;
            self.sparse(&segments, entry.size)?;
        } else if let Some(format) = pax_format {
            replace(&mut entry.path, records.get("GNU.sparse.name").map(<[u8]>::to_vec));
            let size = match records.number("GNU.sparse.size")? {
                None => records.number("GNU.sparse.realsize")?,
                size => size,
            };
            entry.size = size.map_or(Ok(entry.size), |size| natural("GNU.sparse.size", size))?;
            let segments = match format {
                PaxFormat::InRecords => sparse::map_in_records(records)?,
                PaxFormat::InData => self.map_in_data()?,
            };
            self.sparse(&segments, entry.size)?;
        } else {
            self.data.segments.push((0, entry.size));
            self.data.size = entry.size;
        }
        Ok(())
    }

    fn store(&mut self, size: u64) {
        self.data.stored = size;
        self.data.padding = size.wrapping_neg() % BLOCK_SIZE as u64;
    }

    fn sparse(&mut self, segments: &[Segment], size: u64) -> Result<(), TarError> {
        sparse::validate(segments, size, self.data.stored)?;
        let parts = segments.iter().rev().map(|segment| {
            // Both were found not to be negative.
            (segment.offset.unsigned_abs(), segment.length.unsigned_abs())
        });
        self.data.segments = parts.collect();
        self.data.size = size;
        Ok(())
    }

    fn old_gnu_map(&mut self, header: &Header, block: Block) -> Result<Vec<Segment>, TarError> {
        if !header.is_gnu {
            return Err(TarError::Sparse {
                fault: "is announced by a header that is not GNU tar's",
            });
        }
        let mut segments = Vec::new();
        let mut more = sparse::old_gnu_segments(&block, (386, 4), &mut segments)?;
        while more {
            let mut block = [0; BLOCK_SIZE];
            self.fill("a sparse file's map", &mut block)?;
            more = sparse::old_gnu_segments(&block, (0, 21), &mut segments)?;
        }
        Ok(segments)
    }

    fn map_in_data(&mut self) -> Result<Vec<Segment>, TarError> {
        let mut map = DataMap::default();
        loop {
            let Some(rest) = self.data.stored.checked_sub(BLOCK_SIZE as u64) else {
                return Err(TarError::Sparse { fault: "is longer than the entry" });
            };
            let mut block = [0; BLOCK_SIZE];
            self.fill("a sparse file's map", &mut block)?;
            self.data.stored = rest;
            if map.feed(&block)? {
                return Ok(map.into_segments());
            }
        }
    }

    /// The data of an extended header.
    fn meta(&mut self, header: &Header, what: &'static str) -> Result<Vec<u8>, TarError> {
        let size = natural("size", header.size)?;
        if size > META_SIZE_MAX {
            return Err(TarError::TooLarge { what, given: size, limit: META_SIZE_MAX });
        }
        let mut data = Vec::new();
        let mut missing = size;
        while missing > 0 {
            let buffer = self.stream.fill_buf().map_err(TarError::Read)?;
            if buffer.is_empty() {
                return Err(TarError::Truncated { within: what, missing });
            }
            let length = clamp(missing, buffer.len());
            data.extend_from_slice(&buffer[..length]);
            self.consume(length);
            missing -= length as u64;
        }
        self.store(size);
        self.data.stored = 0;
        Ok(data)
    }

    /// The next piece of the current entry's data; None at its end.
    ///
    /// # Errors
    ///
    /// [`TarError::Read`] and [`TarError::Truncated`].
    pub fn next_piece(&mut self) -> Result<Option<Piece<'_>>, TarError> {
        self.give_back();
        let data = &mut self.data;
        while data.segments.last().is_some_and(|&(_, length)| length == 0) {
            data.segments.pop();
        }
        let begin = data.segments.last().map_or(data.size, |&(offset, _)| offset);
        if begin > data.position {
            let zeros = begin - data.position;
            data.position = begin;
            return Ok(Some(Piece::Zeros(zeros)));
        }
        let Some((offset, length)) = data.segments.last_mut() else { return Ok(None) };
        let buffer = self.stream.fill_buf().map_err(TarError::Read)?;
        if buffer.is_empty() {
            return Err(TarError::Truncated { within: "a file's data", missing: data.stored });
        }
        self.lent = clamp(*length, buffer.len());
        let taken = self.lent as u64;
        *offset += taken;
        *length -= taken;
        data.position += taken;
        data.stored -= taken;
        Ok(Some(Piece::Data(&buffer[..self.lent])))
    }

    /// Reads the stream to its end, whatever follows the archive's end.
    ///
    /// # Errors
    ///
    /// [`TarError::Read`].
    pub fn drain(&mut self) -> Result<(), TarError> {
        self.give_back();
        loop {
            let length = self.stream.fill_buf().map_err(TarError::Read)?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }

    /// None at the end of the archive.
    fn header_block(&mut self) -> Result<Option<Block>, TarError> {
        let mut block = [0; BLOCK_SIZE];
        if self.at_end()? {
            return Ok(None);
        }
        self.fill("a header", &mut block)?;
        if block != [0; BLOCK_SIZE] {
            return Ok(Some(block));
        }
        if self.at_end()? {
            return Ok(None);
        }
        self.fill("the end marker", &mut block)?;
        if block == [0; BLOCK_SIZE] { Ok(None) } else { Err(TarError::LoneZeroBlock) }
    }

    fn at_end(&mut self) -> Result<bool, TarError> {
        Ok(self.stream.fill_buf().map_err(TarError::Read)?.is_empty())
    }

    fn fill(&mut self, within: &'static str, block: &mut Block) -> Result<(), TarError> {
        let mut filled = 0;
        while filled < BLOCK_SIZE {
            let buffer = self.stream.fill_buf().map_err(TarError::Read)?;
            if buffer.is_empty() {
                return Err(TarError::Truncated { within, missing: (BLOCK_SIZE - filled) as u64 });
            }
            let length = buffer.len().min(BLOCK_SIZE - filled);
            block[filled..filled + length].copy_from_slice(&buffer[..length]);
            self.consume(length);
            filled += length;
        }
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        self.give_back();
        match self.skip_at_most(self.data.stored)? {
            0 => Ok(()),
            missing => Err(TarError::Truncated { within: "a file's data", missing }),
        }
    }

    /// False if the stream ends within the padding, which some writers leave out at the end.
    fn skip_padding(&mut self) -> Result<bool, TarError> {
        let padding = std::mem::take(&mut self.data).padding;
        Ok(self.skip_at_most(padding)? == 0)
    }

    /// Returns how many bytes the stream was short.
    fn skip_at_most(&mut self, length: u64) -> Result<u64, TarError> {
        let mut missing = length;
        while missing > 0 {
            let available = self.stream.fill_buf().map_err(TarError::Read)?.len();
            if available == 0 {
                break;
            }
            let taken = clamp(missing, available);
            self.consume(taken);
            missing -= taken as u64;
        }
        Ok(missing)
    }

    fn give_back(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        self.consume(lent);
    }

    fn consume(&mut self, length: usize) {
        self.stream.consume(length);
        self.offset += length as u64;
    }
}

/// Header block and records as one entry; type and size are settled later.
fn merged(header: &Header, records: &Records) -> Result<Entry, TarError> {
    let text = |keyword, field: &[u8]| records.get(keyword).unwrap_or(field).to_vec();
    Ok(Entry {
        entry_type: EntryType::File,
        path: text("path", &header.name),
        link: text("linkpath", &header.link),
        size: 0,
        mode: header.mode,
        uid: records.number("uid")?.unwrap_or(header.uid),
        gid: records.number("gid")?.unwrap_or(header.gid),
        mtime: records.mtime()?.unwrap_or(header.mtime),
        device: header.device,
        xattrs: records.xattrs()?,
    })
}

fn entry_type(flag: u8, path: &[u8]) -> EntryType {
    match flag {
        0 if path.ends_with(b"/") => EntryType::Directory,
        0 | b'0' | b'7' | b'S' => EntryType::File,
        b'1' => EntryType::HardLink,
        b'2' => EntryType::Symlink,
        b'3' => EntryType::CharDevice,
        b'4' => EntryType::BlockDevice,
        b'5' => EntryType::Directory,
        b'6' => EntryType::Fifo,
        other => EntryType::Other(other),
    }
}

/// Takes the name over, without its NUL, unless it is empty.
fn replace(name: &mut Vec<u8>, longer: Option<Vec<u8>>) {
    if let Some(mut longer) = longer {
        longer.truncate(header::text(&longer).len());
        if !longer.is_empty() {
            *name = longer;
        }
    }
}

fn natural(field: &'static str, value: i64) -> Result<u64, TarError> {
    u64::try_from(value).map_err(|_negative| TarError::Number {
        field,
        given: format!("`{value}`"),
        expected: "a number that is not negative",
    })
}

fn clamp(wanted: u64, available: usize) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX).min(available)
}
