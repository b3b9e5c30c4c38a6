//! The dynamic loader's cache, `/etc/ld.so.cache` of the GNU C library.
//!
//! Format: `glibc-ld.so.cache1.1`, as `sysdeps/generic/dl-cache.h` of glibc defines it, alone or
//! behind the old `ld.so-1.7.0`, as glibc before 2.32 writes it. What is written is the former
//! alone, which every glibc since 2.2 reads.
//!
//! Nothing here trusts the bytes: entries that point out of the file are left out, and what would
//! grow beyond [`SIZE_MAX`] is refused.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Largest cache that is written, in bytes.
pub const SIZE_MAX: usize = 64 << 20;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const OLD_HEADER_SIZE: usize = 16;
const OLD_ENTRY_SIZE: usize = 12;
const HEADER_SIZE: usize = 48;
const ENTRY_SIZE: usize = 24;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const EXTENSION_HWCAPS: u32 = 1;
/// The bit of an entry's `hwcap` that says: the low half is an index of the names of
/// `glibc-hwcaps` subdirectories.
const HWCAP_NAMED: u64 = 1 << 62;
/// The header's byte for the order of bytes, as this machine writes them.
const BYTE_ORDER: u8 = if cfg!(target_endian = "little") { 2 } else { 3 };
/// Longest name or path, in bytes; the kernel's own limit of a path.
const STRING_SIZE_MAX: usize = 4096;

/// What an entry says of the library's format on this machine: `FLAG_ELF_LIBC6` and the
/// machine's own flag.
const NATIVE_FLAGS: Option<i32> = if cfg!(all(target_arch = "x86_64", target_pointer_width = "64"))
{
    Some(0x0303)
} else if cfg!(target_arch = "aarch64") {
    Some(0x0a03)
} else if cfg!(target_arch = "powerpc64") {
    Some(0x0503)
} else if cfg!(target_arch = "s390x") {
    Some(0x0403)
} else if cfg!(target_arch = "riscv64") {
    Some(0x1003)
} else {
    None
};

/// For which processors a library is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hwcap<'c> {
    /// For those with all of these capabilities; 0 is any.
    Bits(u64),
    /// For those that use this subdirectory of `glibc-hwcaps`, such as `x86-64-v3`.
    Named(&'c OsStr),
}

/// One library of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'c> {
    /// Name by which programs ask for it.
    pub name: &'c OsStr,
    /// Where it is.
    pub path: &'c Path,
    /// Its format: see [`Entry::is_native`].
    pub flags: i32,
    /// Oldest kernel that it works on; 0 is any.
    pub os_version: u32,
    /// For which processors it is.
    pub hwcap: Hwcap<'c>,
}

impl Entry<'_> {
    /// Whether it is for programs of this machine's own architecture and word size.
    pub fn is_native(&self) -> bool {
        NATIVE_FLAGS.is_none_or(|native| self.flags == native)
    }

    /// Whether any processor of the architecture can use it.
    pub fn is_for_all(&self) -> bool {
        self.hwcap == Hwcap::Bits(0)
    }
}

/// The libraries of a cache, in the file's order. Of one name the loader takes the first that its
/// architecture and processor fit, but better `glibc-hwcaps` before others.
///
/// # Errors
///
/// In words, if the bytes are not a cache of this machine's byte order.
pub fn entries(cache: &[u8]) -> Result<Vec<Entry<'_>>, String> {
    let cache = without_old(cache)?;
    if cache.len() < HEADER_SIZE {
        return Err("it is cut short".to_owned());
    }
    if ![0, BYTE_ORDER].contains(&(cache[28] & 3)) {
        return Err("it was written by a machine of another byte order".to_owned());
    }
    let count = number(cache, 20).unwrap_or_default();
    let table = cache[HEADER_SIZE..].chunks_exact(ENTRY_SIZE);
    if table.len() < count {
        return Err(format!("it is cut short: it says that it has {count} entries"));
    }
    let names = hwcap_names(cache).unwrap_or_default();
    let entry = |raw: &'_ [u8]| {
        let hwcap = u64::from_ne_bytes(raw[16..24].try_into().ok()?);
        let low = usize::try_from(hwcap & u64::from(u32::MAX)).ok()?;
        Some(Entry {
            name: OsStr::from_bytes(string(cache, number(raw, 4)?)?),
            path: Path::new(OsStr::from_bytes(string(cache, number(raw, 8)?)?)),
            flags: i32::from_ne_bytes(raw[..4].try_into().ok()?),
            os_version: u32::from_ne_bytes(raw[12..16].try_into().ok()?),
            hwcap: if hwcap >> 32 == HWCAP_NAMED >> 32 {
                Hwcap::Named(names.get(low).copied()?)
            } else {
                Hwcap::Bits(hwcap)
            },
        })
    };
    Ok(table.take(count).filter_map(entry).collect())
}

/// Adds libraries, each with the name by which programs ask for it and its absolute path, before
/// those of the same name. Returns the new cache.
///
/// # Errors
///
/// In words, if `old` is not a cache, and if the new one would be larger than [`SIZE_MAX`].
pub fn add(old: &[u8], libraries: &[(String, PathBuf)]) -> Result<Vec<u8>, String> {
    let old = entries(old)?;
    let flags = NATIVE_FLAGS.or_else(|| old.first().map(|entry| entry.flags)).unwrap_or(3);
    let added = libraries.iter().map(|(name, path)| Entry {
        name: OsStr::new(name),
        path,
        flags,
        os_version: 0,
        hwcap: Hwcap::Bits(0),
    });
    let mut all: Vec<Entry<'_>> = added.collect();
    let new = all.len();
    for entry in old {
        if !all[..new].contains(&entry) {
            all.push(entry);
        }
    }
    // The order is stable: what was added stays first among those of its name.
    all.sort_by(|one, other| compare(other.name.as_bytes(), one.name.as_bytes()));
    write(&all)
}

/// The part of the new format, from which its offsets count.
fn without_old(cache: &[u8]) -> Result<&[u8], String> {
    let new = if cache.starts_with(OLD_MAGIC) {
        let count = number(cache, 12).unwrap_or_default();
        let size = count.saturating_mul(OLD_ENTRY_SIZE).saturating_add(OLD_HEADER_SIZE);
        let start = size.checked_next_multiple_of(align_of::<u64>());
        start.and_then(|start| cache.get(start..)).unwrap_or_default()
    } else {
        cache
    };
    if new.starts_with(MAGIC) { Ok(new) } else { Err("it is no `glibc-ld.so.cache1.1`".to_owned()) }
}

/// The 32-bit number at an offset.
fn number(bytes: &[u8], offset: usize) -> Option<usize> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    usize::try_from(u32::from_ne_bytes(bytes.try_into().ok()?)).ok()
}

/// The string at an offset, up to its NUL.
fn string(bytes: &[u8], offset: usize) -> Option<&[u8]> {
    let rest = bytes.get(offset..)?;
    let rest = &rest[..rest.len().min(STRING_SIZE_MAX)];
    Some(&rest[..rest.iter().position(|byte| *byte == 0)?])
}

/// The names of `glibc-hwcaps` subdirectories, in the order of their indices.
fn hwcap_names(cache: &[u8]) -> Option<Vec<&OsStr>> {
    let directory = number(cache, 32).filter(|offset| *offset != 0)?;
    let sections = cache.get(directory.checked_add(8)?..)?.chunks_exact(16);
    if number(cache, directory)? != usize::try_from(EXTENSION_MAGIC).ok()? {
        return None;
    }
    let mut sections = sections.take(number(cache, directory + 4)?);
    let section = sections.find(|section| number(section, 0) == Some(EXTENSION_HWCAPS as usize))?;
    let (offset, size) = (number(section, 8)?, number(section, 12)?);
    let list = cache.get(offset..offset.checked_add(size)?)?.chunks_exact(4);
    list.map(|raw| Some(OsStr::from_bytes(string(cache, number(raw, 0)?)?))).collect()
}

/// The loader's own order of names (`_dl_cache_libcmp`): runs of digits count as numbers, and come
/// after all else. The file is sorted the other way round.
pub(crate) fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let (mut one, mut other) = (one, other);
    // What `char` is in C decides over bytes above 127.
    let char_at =
        |name: &[u8]| name.first().map_or(0, |byte| i32::from(c_char::from_ne_bytes([*byte])));
    while let Some(first) = one.first() {
        let digits = (first.is_ascii_digit(), other.first().is_some_and(u8::is_ascii_digit));
        match digits {
            (true, true) => match run_of_digits(&mut one).cmp(&run_of_digits(&mut other)) {
                Ordering::Equal => {}
                unequal => return unequal,
            },
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => match char_at(one).cmp(&char_at(other)) {
                Ordering::Equal => (one, other) = (&one[1..], &other[1..]),
                unequal => return unequal,
            },
        }
    }
    char_at(one).cmp(&char_at(other))
}

fn run_of_digits(name: &mut &[u8]) -> i32 {
    let mut value = 0_i32;
    while let Some(digit) = name.first().filter(|byte| byte.is_ascii_digit()) {
        value = value.wrapping_mul(10).wrapping_add(i32::from(digit - b'0'));
        *name = &name[1..];
    }
    value
}

/// Strings, each written once, with offsets from the file's start.
struct Strings<'c> {
    start: usize,
    bytes: Vec<u8>,
    known: HashMap<&'c [u8], u32>,
}

impl<'c> Strings<'c> {
    fn offset(&mut self, string: &'c [u8]) -> Result<u32, String> {
        if let Some(offset) = self.known.get(string) {
            return Ok(*offset);
        }
        let offset = self.start + self.bytes.len();
        if offset + string.len() >= SIZE_MAX {
            return Err(format!("it would be larger than {} MiB", SIZE_MAX >> 20));
        }
        let offset = small(offset)?;
        self.bytes.extend_from_slice(string);
        self.bytes.push(0);
        self.known.insert(string, offset);
        Ok(offset)
    }
}

fn small(number: usize) -> Result<u32, String> {
    u32::try_from(number).map_err(|_too_large| "it would be too large".to_owned())
}

fn write(entries: &[Entry<'_>]) -> Result<Vec<u8>, String> {
    let start = HEADER_SIZE + entries.len() * ENTRY_SIZE;
    let mut strings = Strings { start, bytes: Vec::new(), known: HashMap::new() };
    // The loader walks through them beside its own sorted list.
    let hwcaps: BTreeSet<&[u8]> = entries.iter().filter_map(hwcap_name).collect();
    let hwcaps: Vec<&[u8]> = hwcaps.into_iter().collect();
    let mut table = Vec::with_capacity(start);
    for entry in entries {
        let hwcap = match (entry.hwcap, hwcap_name(entry)) {
            (Hwcap::Bits(bits), _) => bits,
            (_, name) => {
                let index = hwcaps.iter().position(|known| Some(*known) == name);
                HWCAP_NAMED | index.unwrap_or_default() as u64
            }
        };
        table.extend(entry.flags.to_ne_bytes());
        table.extend(strings.offset(entry.name.as_bytes())?.to_ne_bytes());
        table.extend(strings.offset(entry.path.as_os_str().as_bytes())?.to_ne_bytes());
        table.extend(entry.os_version.to_ne_bytes());
        table.extend(hwcap.to_ne_bytes());
    }
    let mut hwcap_offsets = Vec::new();
    for name in &hwcaps {
        hwcap_offsets.extend(strings.offset(name)?.to_ne_bytes());
    }
    let end = start + strings.bytes.len();
    let extension = end.next_multiple_of(4);
    let mut cache = Vec::from(MAGIC);
    cache.extend(small(entries.len())?.to_ne_bytes());
    cache.extend(small(strings.bytes.len())?.to_ne_bytes());
    cache.extend([BYTE_ORDER, 0, 0, 0]);
    cache.extend(if hwcaps.is_empty() { 0 } else { small(extension)? }.to_ne_bytes());
    cache.extend([0; 12]);
    cache.append(&mut table);
    cache.append(&mut strings.bytes);
    if !hwcaps.is_empty() {
        cache.resize(extension, 0);
        let (list, size) = (small(extension + 24)?, small(hwcap_offsets.len())?);
        for field in [EXTENSION_MAGIC, 1, EXTENSION_HWCAPS, 0, list, size] {
            cache.extend(field.to_ne_bytes());
        }
        cache.append(&mut hwcap_offsets);
    }
    Ok(cache)
}

fn hwcap_name<'c>(entry: &Entry<'c>) -> Option<&'c [u8]> {
    match entry.hwcap {
        Hwcap::Named(name) => Some(name.as_bytes()),
        Hwcap::Bits(_) => None,
    }
}

#[cfg(test)]
#[path = "ld_cache_tests.rs"]
mod tests;
