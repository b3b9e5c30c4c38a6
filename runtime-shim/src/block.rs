//! Writes the block that `sarus-entry` works from; its layout is in the crate `sarus_entry`.

use std::os::fd::{AsFd, OwnedFd, RawFd};

use sarus_entry as layout;

use crate::caller::Caller;
use crate::error::{ShimError, cannot};
use crate::seccomp::Filter;

/// What the entry is to do.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// Bits of [`layout::flag`].
    pub(crate) flags: u64,
    /// Program and arguments.
    pub(crate) arguments: &'a [Vec<u8>],
    /// `NAME=value`.
    pub(crate) environment: &'a [Vec<u8>],
    /// The value of `PATH`.
    pub(crate) search_path: &'a [u8],
    /// Numbers of the descriptors in the container's process.
    pub(crate) descriptors: &'a Descriptors,
    /// What the command may not do.
    pub(crate) filters: &'a [Filter],
}

/// Numbers of the descriptors that the entry uses.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    /// The user namespace to join.
    pub(crate) user_namespace: Option<RawFd>,
    /// The socket to the shim.
    pub(crate) socket: RawFd,
    /// What becomes 0, 1 and 2.
    pub(crate) stdio: [RawFd; 3],
    /// What to close before the command.
    pub(crate) close: Vec<RawFd>,
    /// What to make again under another number, from and to. The first are among what to close.
    pub(crate) moves: Vec<(RawFd, RawFd)>,
}

/// Writes the block into an empty file in memory. The command gets the CPUs of `affinity`, and all
/// else that a process has of the caller.
pub(crate) fn write_to(
    file: &OwnedFd,
    block: &Block<'_>,
    (caller, affinity): (&Caller, &[u8]),
) -> Result<(), ShimError> {
    let failed = cannot("write the block for `sarus-entry`");
    let bytes = encode(block, (caller, affinity));
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::write(file.as_fd(), rest).map_err(|e| failed(e.into()))?;
        rest = &rest[written..];
    }
    Ok(())
}

fn encode(block: &Block<'_>, (caller, affinity): (&Caller, &[u8])) -> Vec<u8> {
    let numbers = block.descriptors;
    let mut writer = Writer { words: vec![0; layout::HEADER_WORDS] };
    writer.words[0] = layout::MAGIC;
    writer.words[layout::FLAGS] = block.flags;
    writer.words[layout::USER_NAMESPACE] = number(numbers.user_namespace.unwrap_or(0));
    writer.words[layout::SOCKET] = number(numbers.socket);
    for (index, descriptor) in numbers.stdio.iter().enumerate() {
        writer.words[layout::STDIO + index] = number(*descriptor);
    }
    writer.words[layout::UMASK] = u64::from(caller.umask);
    writer.words[layout::SIGNAL_MASK] = caller.signal_mask.0;
    writer.words[layout::IGNORED_SIGNALS] = caller.ignored_signals.0;
    writer.words[layout::AFFINITY] = writer.bytes(affinity);
    writer.words[layout::AFFINITY + 1] = affinity.len() as u64;
    let close: Vec<u64> = numbers.close.iter().map(|descriptor| number(*descriptor)).collect();
    writer.words[layout::CLOSE] = writer.array(&close);
    writer.words[layout::CLOSE + 1] = close.len() as u64;
    let moves: Vec<u64> =
        numbers.moves.iter().flat_map(|(from, to)| [number(*from), number(*to)]).collect();
    writer.words[layout::MOVES] = writer.array(&moves);
    writer.words[layout::MOVES + 1] = numbers.moves.len() as u64;
    writer.words[layout::ARGUMENTS] = writer.strings(block.arguments);
    writer.words[layout::ENVIRONMENT] = writer.strings(block.environment);
    let limits: Vec<u64> = caller.limits.iter().flat_map(|(soft, hard)| [*soft, *hard]).collect();
    writer.words[layout::LIMITS] = writer.array(&limits);
    writer.words[layout::SEARCH_PATH] = writer.strings(&directories(block.search_path));
    let filters: Vec<u64> = block.filters.iter().flat_map(Filter::words).collect();
    writer.words[layout::SECCOMP] = writer.array(&filters);
    writer.words[layout::SECCOMP + 1] = block.filters.len() as u64;
    writer.words[layout::SIZE] = writer.words.len() as u64 * 8;
    writer.words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The directories of a search path, each with a `/` at its end; an empty one is the working
/// directory, as for execvp(3).
fn directories(path: &[u8]) -> Vec<Vec<u8>> {
    let with_slash = |directory: &[u8]| match directory {
        [] => b"./".to_vec(),
        [.., b'/'] => directory.to_vec(),
        _ => [directory, b"/"].concat(),
    };
    path.split(|byte| *byte == b':').map(with_slash).collect()
}

fn number(descriptor: RawFd) -> u64 {
    u64::from(descriptor.unsigned_abs())
}

/// Appends to the block, and returns the offset of what was appended.
struct Writer {
    words: Vec<u64>,
}

impl Writer {
    fn array(&mut self, words: &[u64]) -> u64 {
        let offset = self.words.len() as u64 * 8;
        self.words.extend_from_slice(words);
        offset
    }

    /// Bytes, padded with zeros to whole words.
    fn bytes(&mut self, bytes: &[u8]) -> u64 {
        let words: Vec<u64> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_ne_bytes(word)
            })
            .collect();
        self.array(&words)
    }

    /// A list of offsets of strings, closed by a zero word.
    fn strings(&mut self, strings: &[Vec<u8>]) -> u64 {
        let mut offsets: Vec<u64> =
            strings.iter().map(|text| self.bytes(&[text.as_slice(), b"\0"].concat())).collect();
        offsets.push(0);
        self.array(&offsets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_path_is_split_as_execvp_does() {
        for (given, want) in
            [("/bin:/usr/bin/", vec!["/bin/", "/usr/bin/"]), ("/bin::x", vec!["/bin/", "./", "x/"])]
        {
            let want: Vec<Vec<u8>> =
                want.into_iter().map(|text| text.as_bytes().to_vec()).collect();
            assert_eq!(directories(given.as_bytes()), want);
        }
    }

    #[test]
    fn a_list_of_strings_is_closed_by_zero_and_each_string_by_nul() {
        let mut writer = Writer { words: vec![0; 2] };
        let offset = writer.strings(&[b"ab".to_vec(), b"12345678".to_vec()]);
        let bytes: Vec<u8> = writer.words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let index = usize::try_from(offset).unwrap() / 8;
        let string = |offset: u64| {
            let start = usize::try_from(offset).unwrap();
            bytes[start..].split(|byte| *byte == 0).next().unwrap().to_vec()
        };
        assert_eq!(string(writer.words[index]), b"ab");
        assert_eq!(string(writer.words[index + 1]), b"12345678");
        assert_eq!(writer.words[index + 2], 0);
    }
}
