//! What the tasks say to each other: lines of text. Pure.
//!
//! ```text
//! over TCP only   leader of the first node:  sarus-slurm-sync 1 NONCE
//!                 leader of another node:    hello NONCE MAC
//!                 leader of the first node:  known MAC
//! then            who comes:                 rank N          for each task, as they come
//!                 who is asked:              go | missing LIST | failed WORDS
//! ```
//!
//! Each MAC is HMAC-SHA-256 with the user's key over the side, the step and both nonces: who does
//! not have the key neither counts as a task nor lets one go.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The first word of a leader that is connected to, with the version of all this.
const GREETING: &str = "sarus-slurm-sync 1";

/// Longest line that is taken, in bytes.
pub(crate) const LINE_MAX: usize = 64 << 10;

/// Bytes of a key, of a nonce and of a MAC.
pub(crate) const SIZE: usize = 32;

/// Random bytes, or a MAC.
pub(crate) type Bytes = [u8; SIZE];

/// What all wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All tasks are here.
    Go,
    /// Time is up, and these are not.
    Missing(String),
    /// It cannot be known, and why.
    Failed(String),
}

impl Answer {
    /// As a line.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Go => "go\n".to_owned(),
            Self::Missing(list) => format!("missing {list}\n"),
            Self::Failed(words) => format!("failed {}\n", words.replace('\n', "; ")),
        }
    }

    /// From a line without its end.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "go" => Some(Self::Go),
            Some(("missing", list)) => Some(Self::Missing(list.to_owned())),
            Some(("failed", words)) => Some(Self::Failed(words.to_owned())),
            _ => None,
        }
    }
}

/// The line by which a task says that it is here.
pub(crate) fn rank_line(rank: u32) -> String {
    format!("rank {rank}\n")
}

/// The task of such a line.
pub(crate) fn parse_rank(line: &str) -> Option<u32> {
    line.strip_prefix("rank ")?.parse().ok()
}

/// The two sides of a connection between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Leader of the first node.
    First,
    /// Leader of another node.
    Other,
}

/// One connection's secrets as one side knows them.
#[derive(Debug)]
pub(crate) struct Handshake<'a> {
    pub(crate) key: &'a Bytes,
    /// The step's id.
    pub(crate) step: &'a str,
}

impl Handshake<'_> {
    /// What proves to the other side that this side has the key.
    pub(crate) fn proof(&self, side: Side, first: &Bytes, other: &Bytes) -> Bytes {
        self.mac(side, first, other).finalize().into_bytes().into()
    }

    /// Whether the other side has it; takes as long for every wrong proof.
    pub(crate) fn is_proof(&self, side: Side, nonces: (&Bytes, &Bytes), given: &Bytes) -> bool {
        self.mac(side, nonces.0, nonces.1).verify_slice(given).is_ok()
    }

    fn mac(&self, side: Side, first: &Bytes, other: &Bytes) -> Hmac<Sha256> {
        // A shorter key is one with zeros at its end: RFC 2104.
        let mut block = [0; 64];
        block[..SIZE].copy_from_slice(self.key);
        let mut mac = Hmac::<Sha256>::new(&block.into());
        let side: &[u8] = match side {
            Side::First => b"first\0",
            Side::Other => b"other\0",
        };
        for part in [side, first, other, self.step.as_bytes()] {
            mac.update(part);
        }
        mac
    }
}

/// The greeting with a nonce.
pub(crate) fn greeting(nonce: &Bytes) -> String {
    format!("{GREETING} {}\n", hex(nonce))
}

/// The nonce of a greeting.
pub(crate) fn parse_greeting(line: &str) -> Option<Bytes> {
    unhex(line.strip_prefix(GREETING)?.strip_prefix(' ')?)
}

/// The answer to a greeting.
pub(crate) fn hello(nonce: &Bytes, proof: &Bytes) -> String {
    format!("hello {} {}\n", hex(nonce), hex(proof))
}

/// Nonce and proof of the answer to a greeting.
pub(crate) fn parse_hello(line: &str) -> Option<(Bytes, Bytes)> {
    let (nonce, proof) = line.strip_prefix("hello ")?.split_once(' ')?;
    Some((unhex(nonce)?, unhex(proof)?))
}

/// What the first node's leader says to who has the key.
pub(crate) fn known(proof: &Bytes) -> String {
    format!("known {}\n", hex(proof))
}

/// Its proof.
pub(crate) fn parse_known(line: &str) -> Option<Bytes> {
    unhex(line.strip_prefix("known ")?)
}

/// Bytes as text.
pub(crate) fn hex(bytes: &Bytes) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Text as bytes.
pub(crate) fn unhex(text: &str) -> Option<Bytes> {
    if text.len() != 2 * SIZE || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; SIZE];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_what_they_were() {
        for answer in [Answer::Go, Answer::Missing("1-3,5".into()), Answer::Failed("no way".into())]
        {
            assert_eq!(Answer::parse(answer.line().trim_end()), Some(answer));
        }
        assert_eq!(Answer::Failed("a\nb".into()).line(), "failed a; b\n");
        assert_eq!(parse_rank(rank_line(7).trim_end()), Some(7));
        let (a, b) = ([1; SIZE], [0xfe; SIZE]);
        assert_eq!(parse_greeting(greeting(&a).trim_end()), Some(a));
        assert_eq!(parse_hello(hello(&a, &b).trim_end()), Some((a, b)));
        assert_eq!(parse_known(known(&b).trim_end()), Some(b));
    }

    #[test]
    fn other_lines_are_nothing() {
        for line in ["", "gone", "go 1", "rank", "hello", "missing", "HTTP/1.1 400 Bad Request"] {
            assert_eq!(Answer::parse(line), None, "{line}");
            assert_eq!(parse_rank(line), None, "{line}");
            assert_eq!(parse_greeting(line), None, "{line}");
            assert_eq!(parse_hello(line), None, "{line}");
        }
        assert_eq!(unhex(&"é".repeat(SIZE)), None);
        assert_eq!(unhex(&"+1".repeat(SIZE)), None);
    }

    #[test]
    fn a_proof_holds_for_one_key_step_side_and_connection() {
        let (key, first, other) = ([1; SIZE], [2; SIZE], [3; SIZE]);
        let ours = Handshake { key: &key, step: "1.0" };
        let proof = ours.proof(Side::Other, &first, &other);
        assert!(ours.is_proof(Side::Other, (&first, &other), &proof));
        assert!(!ours.is_proof(Side::First, (&first, &other), &proof));
        assert!(!ours.is_proof(Side::Other, (&other, &first), &proof));
        assert!(!Handshake { key: &other, step: "1.0" }.is_proof(
            Side::Other,
            (&first, &other),
            &proof
        ));
        assert!(!Handshake { key: &key, step: "1.1" }.is_proof(
            Side::Other,
            (&first, &other),
            &proof
        ));
    }
}
