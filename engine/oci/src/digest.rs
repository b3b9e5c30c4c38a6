//! Content digests (`sha256:<hex>`) and the streaming computation of them.
//!
//! Grammar: OCI image specification, "Descriptor", section "Digests". Only the two algorithms
//! registered there are accepted, so that whatever has a digest can be verified.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// A hash algorithm a digest may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, 64 hexadecimal digits; what practically every image uses.
    Sha256,
    /// SHA-512, 128 hexadecimal digits.
    Sha512,
}

impl Algorithm {
    /// The name in front of the colon.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Number of hexadecimal digits after the colon.
    pub fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// The digest of some bytes: an algorithm and lower-case hexadecimal digits of the right number.
///
/// Safe as a file name once the algorithm is split off: [`Digest::hex`] holds `[0-9a-f]` only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// There is no colon between algorithm and digits.
    #[error("`{given}` is no digest: expected `sha256:` and 64 hexadecimal digits")]
    Form {
        /// The text as given.
        given: String,
    },
    /// The algorithm is none that can be verified here.
    #[error("`{given}` is no known digest algorithm: expected `sha256` or `sha512`")]
    Algorithm {
        /// The text in front of the colon.
        given: String,
    },
    /// The number of digits is wrong.
    #[error("a {algorithm} digest has {expected} hexadecimal digits, got {got}")]
    Length {
        /// The algorithm named.
        algorithm: &'static str,
        /// Digits the algorithm has.
        expected: usize,
        /// Characters given.
        got: usize,
    },
    /// A character is no lower-case hexadecimal digit.
    #[error("`{character}` is no lower-case hexadecimal digit")]
    Character {
        /// The first such character.
        character: char,
    },
}

impl Digest {
    /// Parses `ALGORITHM:HEX`.
    ///
    /// # Errors
    ///
    /// If the algorithm is unknown, or the digits are too few, too many, or not in lower case.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (name, hex) =
            text.split_once(':').ok_or_else(|| DigestError::Form { given: text.to_owned() })?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(DigestError::Algorithm { given: name.to_owned() }),
        };
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if hex.len() == algorithm.hex_len() && hex.bytes().all(is_digit) {
            return Ok(Self { algorithm, hex: hex.into() });
        }
        let got = hex.chars().count();
        if got != algorithm.hex_len() {
            let expected = algorithm.hex_len();
            return Err(DigestError::Length { algorithm: algorithm.as_str(), expected, got });
        }
        let wrong = |character: &char| !u8::try_from(*character).is_ok_and(is_digit);
        Err(DigestError::Character { character: hex.chars().find(wrong).unwrap_or_default() })
    }

    /// The SHA-256 digest of `bytes`.
    pub fn sha256_of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hexadecimal digits, in lower case, without the algorithm.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Whether `bytes` have this digest, by this digest's algorithm.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut hasher = Hasher::for_digest(self);
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}

/// Computes a digest from bytes as they pass; counts them too.
///
/// Uses the processor's SHA instructions where it has them (decided when the program runs).
#[derive(Debug, Clone)]
pub struct Hasher {
    state: State,
    bytes: u64,
}

#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Box<Sha512>),
}

impl Hasher {
    /// Starts with no bytes.
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Box::default()),
        };
        Self { state, bytes: 0 }
    }

    /// Starts a computation whose result can be compared with `digest`.
    pub fn for_digest(digest: &Digest) -> Self {
        Self::new(digest.algorithm())
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Number of bytes added so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        match self.state {
            State::Sha256(state) => {
                Digest { algorithm: Algorithm::Sha256, hex: to_hex(&state.finalize()) }
            }
            State::Sha512(state) => {
                Digest { algorithm: Algorithm::Sha512, hex: to_hex(&state.finalize()) }
            }
        }
    }
}

/// Never fails and takes all it is given, so that a hasher can end a chain of writers.
impl io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn to_hex(bytes: &[u8]) -> Box<str> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    hex.into_boxed_str()
}
