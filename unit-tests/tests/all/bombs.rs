//! Archives that are small and ask for a lot: refused at a limit, with an error that names layer,
//! entry and limit. Nothing here is on disk; streams are generated as they are read.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Read};

use sarus_squash::merge::ContentSink;
use sarus_squash::{ContentId, ConvertError, Layer, merge_layers};

/// Takes nothing.
struct Nowhere;

impl ContentSink for Nowhere {
    type Error = Infallible;

    fn start_file(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn append(&mut self, _data: &[u8]) -> Result<(), Infallible> {
        Ok(())
    }

    fn append_zeros(&mut self, _length: u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn end_file(&mut self) -> Result<ContentId, Infallible> {
        Ok(ContentId(0))
    }
}

/// A header with its checksum, and the data with its padding.
fn entry(name: &str, flag: u8, link: &str, data: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000755");
    block[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    block[148..156].fill(b' ');
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(data);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn record(keyword: &str, value: &[u8]) -> Vec<u8> {
    let body = keyword.len() + value.len() + 3;
    let length = (body..).find(|length| *length == body + length.to_string().len()).unwrap();
    [format!("{length} {keyword}=").as_bytes(), value, b"\n"].concat()
}

/// What `make` gives for 0, 1, 2, …, one behind the other.
struct Generated<F> {
    make: F,
    count: u64,
    now: io::Cursor<Vec<u8>>,
}

impl<F: FnMut(u64) -> Option<Vec<u8>>> Read for Generated<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let length = self.now.read(buffer)?;
            if length > 0 || buffer.is_empty() {
                return Ok(length);
            }
            let Some(next) = (self.make)(self.count) else { return Ok(0) };
            self.count += 1;
            self.now = io::Cursor::new(next);
        }
    }
}

/// The error of a layer, with its causes.
fn refusal(make: impl FnMut(u64) -> Option<Vec<u8>> + Send) -> String {
    let generated = Generated { make, count: 0, now: io::Cursor::default() };
    let layer = Layer { name: "sha256:bomb".to_owned(), reader: Box::new(generated) };
    let layers = std::iter::once(Ok::<_, Infallible>(layer));
    let Err(error) = merge_layers(layers, Nowhere, 0, &|_| {}) else { panic!("no refusal") };
    assert!(!matches!(error, ConvertError::Abandoned));
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

#[test]
fn each_bomb_is_refused_with_layer_entry_and_limit() {
    let many = |prefix: &'static str, value: usize, count: usize| {
        let records = (0..count).flat_map(|number| {
            record(&format!("SCHILY.xattr.user.{prefix}{number:05}"), &vec![b'v'; value])
        });
        records.collect::<Vec<u8>>()
    };
    let once = |entries: Vec<Vec<u8>>| move |number: u64| (number == 0).then(|| entries.concat());
    let deep = record("path", &b"d/".repeat(2100));
    let long = record("path", &[b'n'; 256]);
    let file = || entry("f", b'0', "", b"");
    let rows: [(&str, Vec<Vec<u8>>, &str); 8] = [
        (
            "a deep path",
            vec![entry("h", b'x', "", &deep), file()],
            "entry 1 of layer `sha256:bomb`, `…`: a path of 4199 bytes, at most 4096 are allowed",
        ),
        (
            "a long name",
            vec![entry("h", b'x', "", &long), file()],
            "entry 1 of layer `sha256:bomb`, `…`: a name of 256 bytes, at most 255 are allowed",
        ),
        (
            "a large attribute",
            vec![entry("h", b'x', "", &many("a", 65537, 1)), file()],
            "entry 1 of layer `sha256:bomb`, `f`: extended attribute `user.a00000` has a value of \
             65537 bytes, at most 65536 are allowed",
        ),
        (
            "many attributes",
            vec![entry("h", b'x', "", &many("a", 1, 6000)), file()],
            "entry 1 of layer `sha256:bomb`, `f`: names of extended attributes of 72000 bytes \
             together, at most 65536 are allowed",
        ),
        (
            "a large header",
            vec![file(), entry("h", b'x', "", &vec![b' '; (1 << 20) + 1]), file()],
            "entry 2, byte 1024: a PAX header of 1048577 bytes, at most 1048576 are allowed",
        ),
        (
            "a loop of links",
            vec![
                entry("a", b'2', "b", b""),
                entry("b", b'2', "a", b""),
                entry("a/f", b'0', "", b""),
            ],
            "entry 3 of layer `sha256:bomb`, `a/f`: more than 255 symbolic links in the path",
        ),
        (
            "a global header",
            vec![file(), entry("h", b'g', "", &many("g", 6000, 11)), file()],
            "global PAX headers of 66264 bytes, at most 65536 are allowed",
        ),
        (
            "a link into itself",
            vec![entry("l", b'2', "l/x", b""), entry("l/f", b'0', "", b"")],
            "entry 2 of layer `sha256:bomb`, `l/f`: more than 255 symbolic links in the path",
        ),
    ];
    for (what, entries, want) in rows {
        let got = refusal(once(entries));
        // Long paths are cut.
        let got = match got.split_once("`, `") {
            Some((before, after)) if after.len() > 300 => {
                format!("{before}`, `…`{}", &after[after.find("`: ").unwrap() + 1..])
            }
            _ => got,
        };
        assert!(got.contains(want) && got.contains("sha256:bomb"), "{what}: {got}");
    }
}

#[test]
fn global_headers_that_add_up_are_refused() {
    let got = refusal(|number| {
        let data = record(&format!("comment{number}"), &[b'c'; 1000]);
        (number < 100_000).then(|| entry("h", b'g', "", &data))
    });
    assert!(got.contains("global PAX headers of 65"), "{got}");
    assert!(got.contains("at most 65536 are allowed"), "{got}");
}
