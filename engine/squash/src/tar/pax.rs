//! PAX extended headers: records `LENGTH KEYWORD=VALUE\n`, and what they say of an entry.
//!
//! Knows nothing of header blocks.

use std::collections::BTreeMap;

use super::error::quoted;
use super::sparse::Segment;
use super::{TarError, Xattrs};

/// Records by keyword. Of several with one keyword the last counts.
#[derive(Debug, Default, Clone)]
pub(super) struct Records {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// `GNU.sparse.offset` and `.numbytes` of format 0.0, the one place where order and repetition
    /// count.
    segments: Vec<Segment>,
}

const SCHILY: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";

impl Records {
    /// Parses the data of an `x` or `g` header.
    pub(super) fn parse(data: &[u8]) -> Result<Self, TarError> {
        let mut records = Self::default();
        let mut pending_offset = None;
        let mut at = 0;
        while at < data.len() {
            let (keyword, value, length) =
                record(&data[at..]).map_err(|expected| TarError::Pax { at, expected })?;
            let order = || TarError::Pax { at, expected: "pairs of sparse offset and numbytes" };
            match keyword {
                b"GNU.sparse.offset" if pending_offset.is_none() => {
                    pending_offset = Some(decimal("GNU.sparse.offset", value)?);
                }
                b"GNU.sparse.numbytes" => {
                    let offset = pending_offset.take().ok_or_else(order)?;
                    let length = decimal("GNU.sparse.numbytes", value)?;
                    records.segments.push(Segment { offset, length });
                }
                b"GNU.sparse.offset" => return Err(order()),
                _ => {
                    records.values.insert(keyword.to_vec(), value.to_vec());
                }
            }
            at += length;
        }
        match pending_offset {
            None => Ok(records),
            Some(_) => Err(TarError::Pax { at, expected: "`GNU.sparse.numbytes`" }),
        }
    }

    /// These records, and of `defaults` those whose keyword these have not.
    pub(super) fn or(mut self, defaults: &Self) -> Self {
        for (keyword, value) in &defaults.values {
            self.values.entry(keyword.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    /// Bytes of keywords and values.
    pub(super) fn size(&self) -> usize {
        self.values.iter().map(|(keyword, value)| keyword.len() + value.len()).sum()
    }

    /// The value; an empty one means that the header block's own field counts.
    pub(super) fn get(&self, keyword: &str) -> Option<&[u8]> {
        self.values.get(keyword.as_bytes()).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// The value as a number.
    pub(super) fn number(&self, keyword: &'static str) -> Result<Option<i64>, TarError> {
        self.get(keyword).map(|value| decimal(keyword, value)).transpose()
    }

    /// `mtime` in seconds, rounded down.
    pub(super) fn mtime(&self) -> Result<Option<i64>, TarError> {
        let Some(value) = self.get("mtime") else { return Ok(None) };
        let invalid = || TarError::Number {
            field: "mtime",
            given: quoted(value),
            expected: "seconds since 1970 as a decimal number",
        };
        let mut parts = value.splitn(2, |&byte| byte == b'.');
        let whole = parts.next().unwrap_or_default();
        let fraction = parts.next().unwrap_or_default();
        if !fraction.iter().all(u8::is_ascii_digit) {
            return Err(invalid());
        }
        let seconds = integer(whole).ok_or_else(invalid)?;
        let below = whole.starts_with(b"-") && fraction.iter().any(|&digit| digit != b'0');
        Ok(Some(seconds.saturating_sub(i64::from(below))))
    }

    /// Segments of sparse format 0.0.
    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Extended attributes: `SCHILY.xattr.NAME`, and `LIBARCHIVE.xattr.NAME` (name percent-encoded,
    /// value in base 64) where the other is missing.
    pub(super) fn xattrs(&self) -> Result<Xattrs, TarError> {
        let mut xattrs = BTreeMap::new();
        for (keyword, value) in self.values.iter().filter(|(_, value)| !value.is_empty()) {
            if let Some(name) = keyword.strip_prefix(SCHILY) {
                xattrs.insert(name.to_vec(), value.clone());
            } else if let Some(name) = keyword.strip_prefix(LIBARCHIVE) {
                let decoded = base_64(value).ok_or_else(|| TarError::Number {
                    field: "LIBARCHIVE.xattr",
                    given: quoted(value),
                    expected: "a value in base 64",
                })?;
                // `L` sorts before `S`: what SCHILY says overwrites this.
                xattrs.insert(percent_decoded(name), decoded);
            }
        }
        Ok(xattrs.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}

/// Splits off the first record: keyword, value, length of the whole.
fn record(data: &[u8]) -> Result<(&[u8], &[u8], usize), &'static str> {
    let space = data.iter().take(21).position(|&byte| byte == b' ').ok_or("a record's length")?;
    let length = integer(&data[..space])
        .and_then(|length| usize::try_from(length).ok())
        .ok_or("a record's length in decimal")?;
    if length > data.len() || length < space + 4 {
        return Err("a record's length within the header");
    }
    let Some((b'\n', body)) = data[space + 1..length].split_last() else {
        return Err("a newline at the end of a record");
    };
    let equals = body.iter().position(|&byte| byte == b'=').ok_or("`=` in a record")?;
    let (keyword, value) = (&body[..equals], &body[equals + 1..]);
    let is_text = matches!(keyword, b"path" | b"linkpath" | b"uname" | b"gname");
    if keyword.is_empty() || keyword.contains(&0) || is_text && value.contains(&0) {
        return Err("a keyword, and text without NUL");
    }
    Ok((keyword, value, length))
}

/// A decimal number of a record.
pub(super) fn decimal(field: &'static str, value: &[u8]) -> Result<i64, TarError> {
    integer(value).ok_or_else(|| TarError::Number {
        field,
        given: quoted(value),
        expected: "a decimal number below 2^63",
    })
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn percent_decoded(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        let escape = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match escape.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if first == b'%' => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(first);
                rest = tail;
            }
        }
    }
    decoded
}

/// Base 64 with or without padding.
fn base_64(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0_u32);
    for &symbol in text.iter().filter(|&&symbol| symbol != b'=') {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 & 0xffff | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count & 0xff).to_le_bytes()[0]);
        }
    }
    Some(decoded)
}
