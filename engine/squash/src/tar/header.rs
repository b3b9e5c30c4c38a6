//! One 512-byte header block: formats, checksum, numbers.
//!
//! Knows nothing of extended headers or of data.

use super::error::quoted;
use super::{BLOCK_SIZE, TarError};

/// A header block.
pub(super) type Block = [u8; BLOCK_SIZE];

/// What one header block says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) flag: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: i64,
    pub(super) mtime: i64,
    pub(super) device: (i64, i64),
    pub(super) is_gnu: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// Parses a block that is not all zeros.
pub(super) fn parse(block: &Block) -> Result<Header, TarError> {
    verify_checksum(block)?;
    let format = format_of(block);
    let mut header = Header {
        flag: block[156],
        name: text(&block[..100]).to_vec(),
        link: text(&block[157..257]).to_vec(),
        size: number("size", &block[124..136])?,
        mode: number("mode", &block[100..108])?,
        uid: number("uid", &block[108..116])?,
        gid: number("gid", &block[116..124])?,
        mtime: number("mtime", &block[136..148])?,
        device: (0, 0),
        is_gnu: format == Format::Gnu,
    };
    if format == Format::V7 {
        return Ok(header);
    }
    header.device = (number("devmajor", &block[329..337])?, number("devminor", &block[337..345])?);
    let prefix = match format {
        Format::Ustar => text(&block[345..500]),
        Format::Star => text(&block[345..476]),
        Format::Gnu => stray_prefix(block),
        Format::V7 => &[],
    };
    if !prefix.is_empty() {
        header.name = [prefix, b"/", &header.name].concat();
    }
    Ok(header)
}

/// GNU headers have no prefix, but Go before 1.8 wrote one where the times of access and change
/// belong. Taken for one only if those fields are no numbers.
fn stray_prefix(block: &Block) -> &[u8] {
    let is_time = |field: &[u8]| field[0] == 0 || number("time", field).is_ok();
    let prefix = text(&block[345..500]);
    if is_time(&block[345..357]) && is_time(&block[357..369]) || !prefix.is_ascii() {
        return &[];
    }
    prefix
}

fn format_of(block: &Block) -> Format {
    match (&block[257..263], &block[263..265], &block[508..512]) {
        (b"ustar\0", _, b"tar\0") => Format::Star,
        (b"ustar\0", ..) => Format::Ustar,
        (b"ustar ", b" \0", _) => Format::Gnu,
        _ => Format::V7,
    }
}

/// Old Sun tar summed signed bytes; both sums are accepted.
fn verify_checksum(block: &Block) -> Result<(), TarError> {
    let field = &block[148..156];
    let others = || block[..148].iter().chain(&block[156..]);
    let blanks = 8 * u32::from(b' ');
    let unsigned = blanks + others().map(|&byte| u32::from(byte)).sum::<u32>();
    let signed =
        i64::from(blanks) + others().map(|&byte| i64::from(i8::from_ne_bytes([byte]))).sum::<i64>();
    match octal(field) {
        Some(sum) if sum == i64::from(unsigned) || sum == signed => Ok(()),
        _ => Err(TarError::Checksum { stored: quoted(text(field)), computed: unsigned }),
    }
}

/// The bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in GNU's base 256 (two's complement, flagged by the first bit).
pub(super) fn number(name: &'static str, field: &[u8]) -> Result<i64, TarError> {
    let value = match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    };
    value.ok_or_else(|| TarError::Number {
        field: name,
        given: quoted(field),
        expected: "an octal or base-256 number below 2^63",
    })
}

fn base_256(field: &[u8]) -> Option<i64> {
    let invert = if field[0] & 0x40 == 0 { 0 } else { 0xff };
    let mut value: u64 = 0;
    for (index, &byte) in field.iter().enumerate() {
        let digit = (byte ^ invert) & if index == 0 { 0x7f } else { 0xff };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(digit);
    }
    let value = i64::try_from(value).ok()?;
    Some(if invert == 0 { value } else { !value })
}

fn octal(field: &[u8]) -> Option<i64> {
    let is_padding = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(start) = field.iter().position(|byte| !is_padding(byte)) else {
        return Some(0);
    };
    let end = field.iter().rposition(|byte| !is_padding(byte)).map_or(start, |last| last + 1);
    text(&field[start..end]).iter().try_fold(0_i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}
