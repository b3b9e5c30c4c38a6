//! Layers as tar streams: detection of the compression by magic bytes, and inflation.
//!
//! Media types are not asked: they are wrong often enough. Knows nothing of tar.

use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::GzDecoder;
use zstd::stream::read::Decoder as ZstdDecoder;

/// Bytes read from a layer at once.
const INPUT_SIZE: usize = 256 * 1024;

/// Longest magic looked for, in bytes.
const MAGIC_SIZE_MAX: usize = 6;

/// Bytes that had been looked at, and the rest.
type Raw<'a> = BufReader<Counted<Chain<Cursor<Vec<u8>>, Box<dyn Read + Send + 'a>>>>;

/// How many bytes a stream may inflate to.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// So many in any case.
    free: u64,
    /// Beyond, so many for each byte that they are inflated from.
    ratio: u64,
    /// Never more.
    most: u64,
}

impl Allowance {
    /// A layer's: 64 GiB, or 2000 for each byte up to 1 TiB. Deflate cannot reach such a ratio at all; zstd
    /// reaches it with almost nothing but zeros, of which an honest layer has less than 64 GiB
    /// (holes of sparse files do not count: they are not in the stream).
    pub const LAYER: Self = Self { free: 64 << 30, ratio: 2000, most: 1 << 40 };
    /// That of an archive of images, or of a root file system, that is compressed as a whole: 1 GiB, or
    /// 200 for each byte. Such archives reach a few dozen times their size.
    pub const ARCHIVE: Self = Self { free: 1 << 30, ratio: 200, most: u64::MAX };

    /// Bytes that may come out of `taken` bytes.
    fn of(self, taken: u64) -> u64 {
        taken.saturating_mul(self.ratio).max(self.free).min(self.most)
    }
}

/// Counts what is read.
pub(crate) struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.count.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// A layer's tar stream, which ends with an error when it is longer than allowed.
pub(crate) struct Limited<'a> {
    stream: Inflated<'a>,
    allowance: Allowance,
    taken: Arc<AtomicU64>,
    given: u64,
    exceeded: Option<u64>,
}

impl Limited<'_> {
    /// The length that it was not to have, where it has it.
    pub(crate) fn exceeded(&self) -> Option<u64> {
        self.exceeded
    }
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.given += length as u64;
        let allowed = self.allowance.of(self.taken.load(Ordering::Relaxed));
        if self.given > allowed {
            self.exceeded = Some(allowed);
            let text = format!("it inflates to more than {allowed} bytes, which is refused");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        Ok(length)
    }
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Plain,
    Gzip,
    Zstd,
    /// Known, but not read.
    Foreign(&'static str),
}

/// A layer's tar stream.
pub(crate) enum Inflated<'a> {
    Plain(Box<Raw<'a>>),
    Gzip(Box<Members<Raw<'a>>>),
    Zstd(Box<ZstdDecoder<'static, Raw<'a>>>),
}

/// Looks at the first bytes.
pub(crate) fn detect(head: &[u8]) -> Format {
    const FOREIGN: [(&[u8], &str); 5] = [
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"LZIP", "lzip"),
        (b"\x1f\x9d", "compress"),
    ];
    match head {
        [0x1f, 0x8b, ..] => Format::Gzip,
        // A frame, or a skippable frame such as pzstd writes first.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Format::Zstd,
        _ => FOREIGN
            .iter()
            .find(|(magic, _)| head.starts_with(magic))
            .map_or(Format::Plain, |&(_, name)| Format::Foreign(name)),
    }
}

/// Reads the magic bytes and sets up what inflates the rest. A [`Format::Foreign`] comes back as a
/// plain stream.
pub(crate) fn open<'a>(
    mut reader: Box<dyn Read + Send + 'a>,
    allowance: Allowance,
) -> io::Result<(Format, Limited<'a>)> {
    let mut head = Vec::with_capacity(MAGIC_SIZE_MAX);
    reader.by_ref().take(MAGIC_SIZE_MAX as u64).read_to_end(&mut head)?;
    let format = detect(&head);
    let taken = Arc::<AtomicU64>::default();
    let counted = Counted { inner: Cursor::new(head).chain(reader), count: Arc::clone(&taken) };
    let raw = BufReader::with_capacity(INPUT_SIZE, counted);
    let stream = match format {
        Format::Gzip => Inflated::Gzip(Box::new(Members(Some(State::Member(GzDecoder::new(raw)))))),
        Format::Zstd => Inflated::Zstd(Box::new(ZstdDecoder::with_buffer(raw)?)),
        Format::Plain | Format::Foreign(_) => Inflated::Plain(Box::new(raw)),
    };
    Ok((format, Limited { stream, allowance, taken, given: 0, exceeded: None }))
}

impl Read for Inflated<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Gzip(stream) => stream.read(buffer),
            Self::Zstd(stream) => stream.read(buffer),
        }
    }
}

/// The members of a gzip file one after the other, and zeros as padding after the last; anything
/// else there is an error.
pub(crate) struct Members<R>(Option<State<R>>);

#[expect(clippy::large_enum_variant, reason = "there is one, behind a box already")]
enum State<R> {
    Member(GzDecoder<R>),
    Between(R),
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.take() {
                None => return Ok(0),
                Some(State::Member(mut member)) => {
                    let length = member.read(buffer)?;
                    if length > 0 || buffer.is_empty() {
                        self.0 = Some(State::Member(member));
                        return Ok(length);
                    }
                    self.0 = Some(State::Between(member.into_inner()));
                }
                Some(State::Between(raw)) => self.0 = next_member(raw)?.map(State::Member),
            }
        }
    }
}

fn next_member<R: BufRead>(mut raw: R) -> io::Result<Option<GzDecoder<R>>> {
    let mut padded = false;
    loop {
        let available = raw.fill_buf()?;
        let zeros = available.iter().take_while(|&&byte| byte == 0).count();
        padded |= zeros > 0;
        match available.get(zeros) {
            Some(0x1f) if !padded => return Ok(Some(GzDecoder::new(raw))),
            Some(_) => {
                let text = "what follows the gzip data is neither gzip nor padding";
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            None if zeros == 0 => return Ok(None),
            None => raw.consume(zeros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Zeros, compressed well beyond any deflate.
    fn zeros(length: usize) -> Vec<u8> {
        zstd::bulk::compress(&vec![0; length], 1).expect("compressed")
    }

    fn inflate(blob: &[u8], allowance: Allowance) -> (u64, Option<u64>) {
        let (_format, mut stream) = open(Box::new(blob), allowance).expect("a stream");
        let length = io::copy(&mut stream, &mut io::sink());
        assert_eq!(length.is_err(), stream.exceeded().is_some());
        (length.unwrap_or_default(), stream.exceeded())
    }

    #[test]
    fn a_layer_inflates_to_what_is_free_or_in_proportion_and_no_more() {
        let blob = zeros(4 << 20);
        let taken = blob.len() as u64;
        for (free, ratio, most, want) in [
            (4 << 20, 1, u64::MAX, None),
            ((4 << 20) - 1, 1, u64::MAX, Some((4 << 20) - 1)),
            (0, (4 << 20) / taken + 1, u64::MAX, None),
            (0, 100, u64::MAX, Some(100 * taken)),
            (u64::MAX, 1, 1 << 20, Some(1 << 20)),
        ] {
            let (length, exceeded) = inflate(&blob, Allowance { free, ratio, most });
            assert_eq!(exceeded, want, "{free} {ratio} {most}");
            assert_eq!(length, if want.is_none() { 4 << 20 } else { 0 });
        }
    }
}
