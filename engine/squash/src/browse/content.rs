//! Contents of files, a piece at a time: compared between two images, and read for checks.

use crate::format::Compressor;
use crate::reader::{
    BlockReader, Extent, ExtentWalk, FilePlace, Image, ImageReader, ReadError, StoredBlock,
};

/// Most pieces of files that are looked at in one image, holes among them; an image of 30 GB has
/// some hundred thousand. Files could else share one long list of blocks.
const PIECES_MAX: u64 = 1 << 30;

/// Reads the contents of one image, block by block; the last data block and the last fragment
/// block are kept.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    image: &'a Image<'a>,
    reader: ImageReader<'a>,
    blocks: BlockReader<'a>,
    data: Kept,
    fragment: Kept,
    stored: Vec<u8>,
    /// Pieces looked at so far.
    pieces: u64,
}

/// A block as it was decompressed last.
#[derive(Debug, Default)]
struct Kept {
    block: Option<StoredBlock>,
    plain: Vec<u8>,
}

impl<'a> Contents<'a> {
    pub(super) fn new(image: &'a Image<'a>) -> Result<Self, ReadError> {
        Ok(Self {
            image,
            reader: ImageReader::new(image)?,
            blocks: BlockReader::new(image)?,
            data: Kept::default(),
            fragment: Kept::default(),
            stored: Vec::new(),
            pieces: 0,
        })
    }

    /// The bytes of a block, decompressed.
    pub(super) fn plain(&mut self, block: StoredBlock) -> Result<&[u8], ReadError> {
        let kept = if block.is_fragment() { &mut self.fragment } else { &mut self.data };
        if kept.block != Some(block) {
            kept.block = None;
            self.blocks.read(block, &mut kept.plain)?;
            kept.block = Some(block);
        }
        Ok(&kept.plain)
    }

    /// The bytes of a piece of a block, decompressed.
    fn piece(
        &mut self,
        block: StoredBlock,
        (start, length): (u32, u32),
    ) -> Result<&[u8], ReadError> {
        let position = block.position();
        let end = u64::from(start) + u64::from(length);
        let range = start as usize..usize::try_from(end).unwrap_or(usize::MAX);
        let what = "a tail beyond its fragment";
        self.plain(block)?.get(range).ok_or(ReadError::Damaged { what, position })
    }
}

/// A place in a file.
#[derive(Debug)]
pub(super) struct Pieces<'f> {
    file: &'f FilePlace,
    walk: ExtentWalk,
}

impl<'f> Pieces<'f> {
    pub(super) fn new(file: &'f FilePlace) -> Self {
        Self { file, walk: ExtentWalk::new(file) }
    }

    /// The next piece, until the file's end.
    pub(super) fn next(
        &mut self,
        contents: &mut Contents<'_>,
    ) -> Result<Option<Extent>, ReadError> {
        contents.pieces += 1;
        if contents.pieces > PIECES_MAX {
            let position = contents.image.superblock().bytes_used;
            return Err(ReadError::Damaged { what: "more blocks than an image has", position });
        }
        contents.reader.next_extent(self.file, &mut self.walk)
    }
}

/// Which of two images a failure is in.
#[derive(Debug)]
pub(super) enum Sided<E> {
    A(E),
    B(E),
}

/// Compares contents of files of two images. Blocks that are stored alike are not decompressed.
#[derive(Debug)]
pub(super) struct Comparer<'a> {
    a: Contents<'a>,
    b: Contents<'a>,
    /// Both images are compressed in one way, so that equal blocks are equal contents.
    same_compressor: bool,
    /// The two blocks last found to be stored alike, or not.
    last: Option<(StoredBlock, StoredBlock, bool)>,
}

type Compared<T> = Result<T, Sided<ReadError>>;

impl<'a> Comparer<'a> {
    pub(super) fn new(a: &'a Image<'a>, b: &'a Image<'a>) -> Compared<Self> {
        let name = |image: &Image<'_>| -> Compressor { image.superblock().compressor };
        Ok(Self {
            a: Contents::new(a).map_err(Sided::A)?,
            b: Contents::new(b).map_err(Sided::B)?,
            same_compressor: name(a) == name(b),
            last: None,
        })
    }

    /// Whether two files of one size have the same content.
    pub(super) fn is_same(&mut self, a: &FilePlace, b: &FilePlace) -> Compared<bool> {
        let (mut from_a, mut from_b) = (Pieces::new(a), Pieces::new(b));
        let (mut now_a, mut now_b) = (None, None);
        loop {
            if now_a.is_none() {
                now_a = from_a.next(&mut self.a).map_err(Sided::A)?;
            }
            if now_b.is_none() {
                now_b = from_b.next(&mut self.b).map_err(Sided::B)?;
            }
            let (Some(of_a), Some(of_b)) = (now_a, now_b) else {
                return Ok(now_a.is_none() && now_b.is_none());
            };
            let length = length_of(of_a).min(length_of(of_b));
            if !self.is_same_piece(of_a, of_b, length)? {
                return Ok(false);
            }
            (now_a, now_b) = (rest(of_a, length), rest(of_b, length));
        }
    }

    /// Whether the first `length` bytes of two pieces are the same.
    fn is_same_piece(&mut self, a: Extent, b: Extent, length: u32) -> Compared<bool> {
        let zeros = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        Ok(match (a, b) {
            (Extent::Hole(_), Extent::Hole(_)) => true,
            (Extent::Stored { block, start, .. }, Extent::Hole(_)) => {
                zeros(self.a.piece(block, (start, length)).map_err(Sided::A)?)
            }
            (Extent::Hole(_), Extent::Stored { block, start, .. }) => {
                zeros(self.b.piece(block, (start, length)).map_err(Sided::B)?)
            }
            (
                Extent::Stored { block: of_a, start: start_a, .. },
                Extent::Stored { block: of_b, start: start_b, .. },
            ) => {
                (start_a == start_b && self.is_stored_alike(of_a, of_b)?)
                    || self.a.piece(of_a, (start_a, length)).map_err(Sided::A)?
                        == self.b.piece(of_b, (start_b, length)).map_err(Sided::B)?
            }
        })
    }

    /// Whether two blocks have the same bytes in both files.
    fn is_stored_alike(&mut self, a: StoredBlock, b: StoredBlock) -> Compared<bool> {
        if !self.same_compressor || !a.has_size_of(&b) {
            return Ok(false);
        }
        if let Some((last_a, last_b, alike)) = self.last
            && (last_a, last_b) == (a, b)
        {
            return Ok(alike);
        }
        self.a.blocks.read_stored(a, &mut self.a.stored).map_err(Sided::A)?;
        self.b.blocks.read_stored(b, &mut self.b.stored).map_err(Sided::B)?;
        let alike = self.a.stored == self.b.stored;
        self.last = Some((a, b, alike));
        Ok(alike)
    }
}

fn length_of(piece: Extent) -> u32 {
    match piece {
        Extent::Hole(length) | Extent::Stored { length, .. } => length,
    }
}

/// What is left of a piece behind its first `length` bytes.
fn rest(piece: Extent, taken: u32) -> Option<Extent> {
    let left = length_of(piece).checked_sub(taken).filter(|&left| left > 0)?;
    Some(match piece {
        Extent::Hole(_) => Extent::Hole(left),
        Extent::Stored { block, start, .. } => {
            Extent::Stored { block, start: start.saturating_add(taken), length: left }
        }
    })
}

impl Contents<'_> {
    /// The image.
    pub(super) fn image(&self) -> &Image<'_> {
        self.image
    }
}
