//! A compressed stream as what it was before, for whoever is not a conversion.

use std::fmt;
use std::io::{self, Read};

use crate::decompress::{self, Allowance, Format};

/// A stream, inflated if it was compressed with gzip or zstd, which is seen from its first bytes.
pub struct Inflated<'a> {
    /// The bytes.
    pub reader: Box<dyn Read + Send + 'a>,
    /// Whether they were compressed.
    pub was_compressed: bool,
    /// The name of a compression that is known and not read; `reader` has it as it is then.
    pub foreign: Option<&'static str>,
}

impl fmt::Debug for Inflated<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflated")
            .field("was_compressed", &self.was_compressed)
            .finish_non_exhaustive()
    }
}

/// Looks at the first bytes of a stream, and inflates it while it is read, to `allowance` bytes at
/// most: beyond, reading fails with [`io::ErrorKind::FileTooLarge`].
///
/// # Errors
///
/// The first bytes cannot be read.
pub fn inflate<'a>(
    reader: Box<dyn Read + Send + 'a>,
    allowance: Allowance,
) -> io::Result<Inflated<'a>> {
    let (format, stream) = decompress::open(reader, allowance)?;
    Ok(Inflated {
        reader: Box::new(stream),
        was_compressed: matches!(format, Format::Gzip | Format::Zstd),
        foreign: match format {
            Format::Foreign(name) => Some(name),
            _ => None,
        },
    })
}
