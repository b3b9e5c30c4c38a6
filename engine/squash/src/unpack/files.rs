//! The threads that fill regular files.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::Receiver;

use super::error::UnpackError;
use super::place;
use crate::reader::{
    ContentReader, FragmentCache, Image, ImageReader, Inode, InodeKind, Piece, ReadError,
};

/// A file that was made and is to be filled.
pub(super) struct FileJob {
    pub(super) file: OwnedFd,
    pub(super) inode: Inode,
    pub(super) path: Vec<u8>,
}

/// What all threads share.
pub(super) struct Filling<'a> {
    pub(super) image: &'a Image<'a>,
    pub(super) fragments: Arc<FragmentCache>,
    /// Bytes that the whole image needs, for errors.
    pub(super) needed: u64,
    failure: Mutex<Option<UnpackError>>,
}

impl<'a> Filling<'a> {
    pub(super) fn new(image: &'a Image<'a>, needed: u64) -> Self {
        Self { image, fragments: Arc::default(), needed, failure: Mutex::new(None) }
    }

    /// The first failure of any thread.
    pub(super) fn failure(&self) -> Option<UnpackError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: UnpackError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    /// A thread: fills files until there are no more, or one fails. Returning closes the channel
    /// for whoever makes the files.
    pub(super) fn work(&self, jobs: Receiver<FileJob>) {
        let reader = ContentReader::new(self.image, Arc::clone(&self.fragments))
            .and_then(|contents| Ok((contents, ImageReader::new(self.image)?)));
        let (mut contents, mut reader) = match reader {
            Ok(readers) => readers,
            Err(error) => return self.fail(UnpackError::Image(error)),
        };
        for job in jobs {
            if let Err(error) = self.fill(&mut contents, &mut reader, job) {
                return self.fail(error);
            }
        }
    }

    fn fill(
        &self,
        contents: &mut ContentReader<'_>,
        reader: &mut ImageReader<'_>,
        job: FileJob,
    ) -> Result<(), UnpackError> {
        let FileJob { file, inode, path } = job;
        let InodeKind::File(content) = &inode.kind else { return Ok(()) };
        let file = File::from(file);
        let (mut offset, mut written) = (0, 0);
        contents
            .read(content, |piece| {
                match piece {
                    Piece::Hole(length) => offset += length,
                    Piece::Data(bytes) => {
                        file.write_all_at(bytes, offset).map_err(Failure::Write)?;
                        offset += bytes.len() as u64;
                        written = offset;
                    }
                }
                Ok(())
            })
            .and_then(|()| match written == content.size {
                true => Ok(()),
                false => file.set_len(content.size).map_err(Failure::Write),
            })
            .and_then(|()| {
                for (name, value) in reader.xattrs(&inode)? {
                    place::set_xattr(file.as_fd(), &name, &value);
                }
                place::complete(file.as_fd(), inode.mode, inode.mtime)
                    .map_err(|error| Failure::Write(error.into()))
            })
            .map_err(|failure| match failure {
                Failure::Read(source) => UnpackError::Content { path, source },
                Failure::Write(source) => {
                    super::made("write", &path, source, (file.as_fd(), self.needed))
                }
            })
    }
}

enum Failure {
    Read(ReadError),
    Write(std::io::Error),
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}
