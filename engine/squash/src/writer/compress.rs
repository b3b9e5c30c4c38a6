//! One block at a time through the chosen compressor. Each thread has one of its own.

use std::io;

use flate2::{Compress, FlushCompress, Status};

use crate::format::Compressor;
use crate::settings::Compression;

/// A compressor with its working memory, used again for every block.
pub(super) enum BlockCompressor {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(Compress),
    Lz4,
    Stored,
}

impl BlockCompressor {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Zstd { level } => Self::Zstd(zstd::bulk::Compressor::new(level)?),
            Compression::Gzip { level } => {
                Self::Gzip(Compress::new(flate2::Compression::new(level), true))
            }
            Compression::Lz4 => Self::Lz4,
            Compression::None => Self::Stored,
        })
    }

    /// Compresses `input` into `output`, whose content is replaced. False where that does not
    /// make it smaller; `output` is of no use then.
    ///
    /// Zstandard's choices depend on the room it has: the capacity of `output` is to be the same
    /// for every block, or the bytes of an image would depend on which buffer was at hand.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
        if looks_random(input) && !self.shrinks(part(input), output)? {
            return Ok(false);
        }
        self.shrinks(input, output)
    }

    fn shrinks(&mut self, input: &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
        output.clear();
        match self {
            Self::Stored => Ok(false),
            Self::Zstd(zstd) => {
                output.reserve(input.len());
                // The only error with enough memory is that the result does not fit.
                Ok(zstd.compress_to_buffer(input, output).is_ok() && output.len() < input.len())
            }
            Self::Gzip(zlib) => {
                zlib.reset();
                output.reserve(input.len());
                let status = zlib
                    .compress_vec(input, output, FlushCompress::Finish)
                    .map_err(io::Error::other)?;
                Ok(status == Status::StreamEnd && output.len() < input.len())
            }
            Self::Lz4 => {
                output.resize(lz4_flex::block::get_maximum_output_size(input.len()), 0);
                let length =
                    lz4_flex::block::compress_into(input, output).map_err(io::Error::other)?;
                output.truncate(length);
                Ok(length < input.len())
            }
        }
    }
}

/// The part of a block that is tried first where it looks random.
const PART: usize = 16 << 10;

/// Blocks from this size on are looked at: below, there is little to save.
const LOOKED_AT_MIN: usize = 4 * PART;

/// The middle of a block.
fn part(input: &[u8]) -> &[u8] {
    let start = (input.len() - PART.min(input.len())) / 2;
    &input[start..(start + PART).min(input.len())]
}

/// Whether every byte is about as frequent as any other in a sample of 4096: what is compressed or
/// encrypted already, in hundredths of the time that a compressor takes to find it out. Whole numbers
/// only, so that every machine decides alike.
fn looks_random(input: &[u8]) -> bool {
    const SPOTS: usize = 256;
    const SPOT: usize = 16;
    // The sum of the squared counts is 4096 * 4096 / 256 for counts that are all the same, and for random
    // ones 4096 more on average, with a deviation of 360: four of them are allowed.
    const SQUARES_MAX: u32 = 65_536 + 4096 + 1440;
    if input.len() < LOOKED_AT_MIN {
        return false;
    }
    let mut counts = [0_u32; 256];
    for spot in input.chunks_exact(input.len() / SPOTS).take(SPOTS) {
        for byte in &spot[..SPOT] {
            counts[usize::from(*byte)] += 1;
        }
    }
    counts.iter().map(|count| count * count).sum::<u32>() <= SQUARES_MAX
}

/// The compressor's number in the superblock, and its options where readers want to know them.
pub(super) fn declared(compression: Compression) -> (Compressor, Option<Vec<u8>>) {
    match compression {
        // 15 is what readers take for granted, and they refuse negative levels.
        Compression::Zstd { level } if level > 0 && level != 15 => {
            (Compressor::Zstd, Some(level.to_le_bytes().to_vec()))
        }
        Compression::Zstd { .. } => (Compressor::Zstd, None),
        Compression::Gzip { level } if level != 9 => {
            let window: u16 = 15;
            let strategies: u16 = 0;
            let mut options = level.to_le_bytes().to_vec();
            options.extend_from_slice(&window.to_le_bytes());
            options.extend_from_slice(&strategies.to_le_bytes());
            (Compressor::Gzip, Some(options))
        }
        Compression::Gzip { .. } | Compression::None => (Compressor::Gzip, None),
        // Version 1, "legacy", no flags: the kernel wants to see it.
        Compression::Lz4 => (Compressor::Lz4, Some(vec![1, 0, 0, 0, 0, 0, 0, 0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 128 << 10;

    fn random(mut state: u64) -> Vec<u8> {
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..BLOCK / 8).flat_map(|_| next()).collect()
    }

    #[test]
    fn random_bytes_are_told_from_others() {
        let taken = (1..=1000).filter(|seed| looks_random(&random(*seed))).count();
        assert!(taken > 980, "{taken} of 1000");
        let text: Vec<u8> = b"the quick brown fox ".iter().copied().cycle().take(BLOCK).collect();
        let base64: Vec<u8> = random(1).iter().map(|byte| b'A' + (byte & 63)).collect();
        let counting: Vec<u8> = (0_u32..32 << 10).flat_map(u32::to_le_bytes).collect();
        let floats: Vec<u8> =
            random(2).iter().flat_map(|byte| (f32::from(*byte) / 7.0).to_le_bytes()).collect();
        for (name, bytes) in
            [("text", text), ("base64", base64), ("counting", counting), ("floats", floats)]
        {
            assert!(!looks_random(&bytes), "{name}");
        }
        assert!(!looks_random(&random(3)[..LOOKED_AT_MIN - 1]), "too short to be looked at");
    }

    #[test]
    fn what_looks_random_and_repeats_is_compressed() {
        let repeated: Vec<u8> = random(4)[..5000].iter().copied().cycle().take(BLOCK).collect();
        assert!(looks_random(&repeated));
        for compression in
            [Compression::Zstd { level: 1 }, Compression::Gzip { level: 6 }, Compression::Lz4]
        {
            let mut compressor = BlockCompressor::new(compression).unwrap();
            let mut output = Vec::with_capacity(BLOCK);
            assert!(compressor.compress(&repeated, &mut output).unwrap(), "{compression}");
            assert!(output.len() < 16 << 10, "{compression}: {} bytes", output.len());
            let mut output = Vec::with_capacity(BLOCK);
            assert!(!compressor.compress(&random(5), &mut output).unwrap(), "{compression}");
        }
    }
}
