//! What a pull of an image of several gigabytes takes: memory, and room on disk besides the image.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use sarus_integration_tests::{Dialect, FakeRegistry, Image, Packing, Session, Who};
use serde_json::json;

const LAYERS: usize = 16;
/// Parts of a layer's one file, each a member of the gzip file.
const PARTS: usize = 16;
const PART: usize = 16 << 20;
/// Bytes of a part that do not compress.
const RANDOM: usize = 1 << 20;
/// Layers that are fetched and not yet converted, at most.
const AHEAD: u64 = 8;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The header of a regular file, as POSIX has it.
fn header(name: &str, size: usize) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put =
        |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "14000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// 4 GiB unpacked, 256 MiB as layers.
fn large() -> Image {
    let mut state = 1_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut part: Vec<u8> = (0..RANDOM / 8).flat_map(|_| random()).collect();
    let line = b"what compresses well, again and again\n";
    part.extend(line.iter().cycle().take(PART - RANDOM));
    let part = gzip(&part);
    let end = gzip(&[0; 1024]);
    let layer = |number: usize| {
        let mut blob = gzip(&header(&format!("file{number}"), PARTS * PART));
        (0..PARTS).for_each(|_| blob.extend_from_slice(&part));
        blob.extend_from_slice(&end);
        blob
    };
    let layers = (0..LAYERS).map(layer);
    layers.fold(Image::new(), |image, blob| image.raw_layer(blob, Packing::Plain, Dialect::Oci))
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = fs_err::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}

#[test]
fn memory_and_room_do_not_grow_with_the_image() {
    let image = large().pack();
    let largest = image.blobs.values().map(Vec::len).max().unwrap() as u64;
    let session = Session::new(Who::User);
    let blobs: PathBuf = session.home().join(".local/share/sarus/blobs");
    let sampled = Arc::new(Mutex::new(Vec::new()));
    let (place, samples) = (blobs.clone(), Arc::clone(&sampled));
    let registry = FakeRegistry::serve(image, move |request| {
        if request.path.contains("/blobs/") {
            samples.lock().unwrap().push(bytes_in(&place));
        }
        None
    });
    session.trust(&[registry.host()]);
    session.configure("sarus.json", json!({"blobCacheSize": 0}).to_string());
    let reference = format!("{}/large:1", registry.host());
    // The kernel refuses more memory than that to the process.
    let limited = ["prlimit", "--data=200000000", "sarus", "pull", "--quiet", &reference];
    session.program(limited).run().ok();
    let sampled = sampled.lock().unwrap();
    assert!(sampled.len() > LAYERS, "{sampled:?}");
    let most = sampled.iter().max().copied().unwrap();
    assert!(
        most > 0 && most <= AHEAD * largest,
        "{most} bytes in {sampled:?}, layers of {largest}"
    );
    assert_eq!(bytes_in(&blobs), 0, "nothing is kept");
}

/// 300,000 empty files took 90 MB more than an empty image when the tree was kept less tightly.
#[test]
fn many_files_take_little_memory_each() {
    const FILES: usize = 300_000;
    let session = Session::new(Who::User);
    let archive = session.home().join("many.tar.gz");
    let mut encoder = GzEncoder::new(fs_err::File::create(&archive).unwrap(), Compression::fast());
    for number in 0..FILES {
        let name = format!("packages/{}/module-{number}", number % 300);
        encoder.write_all(&header(&name, 0)).unwrap();
    }
    encoder.write_all(&[0; 1024]).unwrap();
    encoder.finish().unwrap();
    let load = ["sarus", "load", "--quiet", "many.tar.gz", "many:1"];
    let limited = [&["prlimit", "--data=110000000"], &load[..]].concat();
    session.program(limited).run().ok();
    let listed = session.sarus(["ls", "many:1", "packages/299"]).run();
    assert_eq!(listed.ok().lines().count(), FILES / 300);
}
