//! `sarus cat`

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use sarus_image::Looked;
use sarus_image::squash::browse::{BrowseError, Found, Last, find};
use sarus_image::squash::{ContentReader, ImageReader, InodeKind, Piece, ReadError};

use crate::args::CatArgs;
use crate::error::{CliError, report};
use crate::output::{Lines, visible};
use crate::settings::Settings;
use crate::to_stderr;

/// Zeros of a hole, written at a time.
const ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// `sarus cat`: like cat, it goes on with the next file when one cannot be printed.
pub(crate) fn cat(args: &CatArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let stores = settings.stores(args.place.centralized_repository)?;
    let looked = Looked::open(&stores, &args.image, &args.place.platform())?;
    let squashfs = looked.squashfs()?;
    let read = |source| looked.failure(BrowseError::at(b"/", source));
    let mut reader = ImageReader::new(&squashfs).map_err(read)?;
    let mut contents = ContentReader::new(&squashfs, Arc::default()).map_err(read)?;
    let mut out = Lines::default();
    let mut failed = Vec::new();
    for path in &args.paths {
        let place = (&looked, args.image.as_os_str(), path.as_os_str());
        match print(place, &mut reader, &mut contents, &mut out) {
            Err(error @ CliError::Output { .. }) => return Err(error),
            Err(error) => failed.push(error),
            Ok(()) => {}
        }
    }
    out.end()?;
    match (failed.pop(), args.paths.len()) {
        (None, _) => Ok(()),
        (Some(only), 1) => Err(only),
        (Some(last), total) => {
            failed.push(last);
            for error in &failed {
                to_stderr(&report(error, error.hint().as_deref()));
            }
            Err(CliError::SomeFailed { count: failed.len(), total })
        }
    }
}

/// Why a file could not be printed to its end.
enum Stopped {
    Read(ReadError),
    Output(CliError),
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

fn print(
    (looked, image, path): (&Looked, &OsStr, &OsStr),
    reader: &mut ImageReader<'_>,
    contents: &mut ContentReader<'_>,
    out: &mut Lines,
) -> Result<(), CliError> {
    let found = find(reader, path.as_bytes(), Last::Follow).map_err(|e| looked.failure(e))?;
    let Found { path, inode, .. } = found;
    let InodeKind::File(place) = &inode.kind else {
        let (image, path) = (image.to_string_lossy().into_owned(), visible(&path));
        return Err(CliError::NoContent { image, path, found: what(&inode.kind) });
    };
    let printed = contents.read(place, |piece| match piece {
        Piece::Data(data) => out.put(data).map_err(Stopped::Output),
        Piece::Hole(length) => zeros(out, length).map_err(Stopped::Output),
    });
    match printed {
        Ok(()) => Ok(()),
        Err(Stopped::Output(error)) => Err(error),
        Err(Stopped::Read(source)) => Err(looked.failure(BrowseError::at(&path, source)).into()),
    }
}

fn zeros(out: &mut Lines, mut length: u64) -> Result<(), CliError> {
    while length > 0 {
        let now = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
        out.put(&ZEROS[..now])?;
        length -= now as u64;
    }
    Ok(())
}

fn what(kind: &InodeKind) -> &'static str {
    match kind {
        InodeKind::Directory(_) => "a directory",
        InodeKind::File(_) => "a file",
        InodeKind::Symlink(_) => "a symbolic link",
        InodeKind::CharDevice { .. } | InodeKind::BlockDevice { .. } => "a device",
        InodeKind::Fifo => "a named pipe",
        InodeKind::Socket => "a socket",
    }
}
