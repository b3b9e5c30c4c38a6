//! What can be wrong with a tar archive.

use std::io;

/// Why an archive cannot be read on. The caller knows which archive, entry and offset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream under the archive failed.
    #[error("cannot read the tar stream")]
    Read(#[source] io::Error),
    /// The stream ended inside something.
    #[error("the archive ends within {within}: {missing} more bytes expected")]
    Truncated {
        /// What was being read.
        within: &'static str,
        /// Bytes that are missing at least.
        missing: u64,
    },
    /// A header's checksum is wrong: what is there is no tar header.
    #[error("no tar header: its checksum field is {stored}, the sum of its bytes {computed}")]
    Checksum {
        /// The checksum field, quoted.
        stored: String,
        /// The sum of the block's bytes.
        computed: u32,
    },
    /// A numeric field of a header or PAX record cannot be read.
    #[error("`{field}` is {given}, expected {expected}")]
    Number {
        /// Field or PAX keyword.
        field: &'static str,
        /// What is there, quoted.
        given: String,
        /// What should be there.
        expected: &'static str,
    },
    /// One block of zeros, then something else.
    #[error("one block of zeros is followed by data; two end an archive")]
    LoneZeroBlock,
    /// A PAX header is malformed.
    #[error("malformed PAX header at its byte {at}: expected {expected}")]
    Pax {
        /// Offset in the header's data.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// An extended header is larger than allowed.
    #[error("{what} of {given} bytes, at most {limit} are allowed")]
    TooLarge {
        /// The kind of header.
        what: &'static str,
        /// Its size.
        given: u64,
        /// The limit.
        limit: u64,
    },
    /// A map of a sparse file makes no sense.
    #[error("the map of a sparse file {fault}")]
    Sparse {
        /// What is wrong, as a predicate.
        fault: &'static str,
    },
}

impl TarError {
    /// Whether this, at the first header, says that there is no tar archive at all.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self, Self::Checksum { .. } | Self::Truncated { within: "a header", .. })
    }
}

/// Bytes as an error message shows them between backticks: text as it is, what is none escaped, cut
/// when long.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 512;
    let cut = &bytes[..bytes.len().min(SHOWN_MAX)];
    let mut text = match std::str::from_utf8(cut) {
        Ok(clean) if !clean.chars().any(char::is_control) => clean.to_owned(),
        _ => cut.escape_ascii().to_string(),
    };
    if cut.len() < bytes.len() {
        text.push('…');
    }
    text
}

/// The same with the backticks.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    format!("`{}`", shown(bytes))
}
