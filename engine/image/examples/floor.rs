//! What no conversion can leave away, timed on one thread: `floor LAYER...` prints the seconds that
//! inflating gzip, SHA-256 of the blobs, and zstd level 1 of the tar in blocks take.

use std::error::Error;
use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use sarus_oci::{Algorithm, Hasher};

/// The block size of images.
const BLOCK: usize = 128 << 10;

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let [mut inflating, mut hashing, mut compressing] = [Duration::ZERO; 3];
    let mut compressor = zstd::bulk::Compressor::new(1)?;
    let mut tar = vec![0; 64 * BLOCK];
    let mut packed = Vec::with_capacity(zstd::zstd_safe::compress_bound(BLOCK));
    for path in std::env::args_os().skip(1) {
        let blob = fs_err::read(&path)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let begun = Instant::now();
        hasher.update(&blob);
        hasher.finish();
        hashing += begun.elapsed();
        drop(blob);
        let file = BufReader::with_capacity(256 << 10, fs_err::File::open(&path)?);
        let mut stream = flate2::bufread::GzDecoder::new(file);
        loop {
            let begun = Instant::now();
            let mut filled = 0;
            while filled < tar.len() {
                match stream.read(&mut tar[filled..])? {
                    0 => break,
                    count => filled += count,
                }
            }
            inflating += begun.elapsed();
            if filled == 0 {
                break;
            }
            let begun = Instant::now();
            for block in tar[..filled].chunks(BLOCK) {
                packed.clear();
                compressor.compress_to_buffer(block, &mut packed)?;
            }
            compressing += begun.elapsed();
        }
    }
    let seconds = [inflating, hashing, compressing].map(|time| time.as_secs_f64());
    println!("{} {} {}", seconds[0], seconds[1], seconds[2]);
    Ok(())
}
