//! A stream that is needed more than once, kept in a file without a name until it is loaded.
//!
//! An archive tells what its images are at its end, so one that comes from a pipe, or compressed,
//! has to be kept. The file is on the node, has no name, and is gone with the process, however
//! that ends.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::LoadError;

/// Part of the free room of the file system that a stream may take: the rest is for others.
const ROOM_PERCENT: u64 = 90;

/// Bytes copied at once.
const CHUNK: usize = 256 << 10;

/// `open(2)`.
#[expect(clippy::cast_possible_wrap, reason = "the flag is far below the sign bit")]
const O_TMPFILE: i32 = OFlags::TMPFILE.bits() as i32;

/// Copies a stream to its end into a file without a name in `directory`.
///
/// # Errors
///
/// The stream fails or is too long; the file cannot be written. Nothing is left.
pub(super) fn keep(
    stream: &mut dyn Read,
    (from, directory): (&str, &Path),
) -> Result<File, LoadError> {
    let failed = |source| LoadError::Spool {
        from: from.to_owned(),
        directory: directory.to_owned(),
        source,
    };
    let mut file = unnamed(directory).map_err(failed)?;
    let limit = room(&file).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    let mut bytes: u64 = 0;
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(LoadError::Read { from: from.to_owned(), source }),
        };
        bytes += count as u64;
        if bytes > limit {
            let (from, directory) = (from.to_owned(), PathBuf::from(directory));
            return Err(LoadError::SpoolFull { from, directory, limit });
        }
        file.write_all(&buffer[..count]).map_err(failed)?;
    }
    log::info!("{bytes} bytes of `{from}` are kept in `{}` until loaded", directory.display());
    Ok(file)
}

/// A file that nobody else can open.
fn unnamed(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options.clone().custom_flags(O_TMPFILE).open(directory) {
        Ok(file) => return Ok(file),
        // Some network file systems have none.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {
        }
        Err(error) => return Err(error),
    }
    let path = directory.join(format!(".sarus-load-{}", std::process::id()));
    let file = options.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn room(file: &File) -> io::Result<u64> {
    let found = rustix::fs::fstatvfs(file)?;
    Ok((found.f_bavail.saturating_mul(found.f_frsize) / 100).saturating_mul(ROOM_PERCENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_kept_in_a_file_that_has_no_name() {
        let place = std::env::temp_dir().join(format!("sarus-spool-{}", std::process::id()));
        std::fs::create_dir(&place).unwrap();
        let file = keep(&mut &b"content"[..], ("stream", &place)).unwrap();
        let left = std::fs::read_dir(&place).unwrap().count();
        std::fs::remove_dir(&place).unwrap();
        assert_eq!((file.metadata().unwrap().len(), left), (7, 0));
    }
}
