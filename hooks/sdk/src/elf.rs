//! What the dynamic loader, and a hook that replaces libraries, want to know of an ELF file.
//!
//! Reads only the tables that it needs, never the whole file. Files of an image are to be read in
//! [`crate::Container::survey`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};
use object::read::{ReadCache, ReadRef, StringTable, SymbolIndex};
use serde::{Deserialize, Serialize};

/// For which processors and which word size a file is: files that differ in it cannot be in one
/// process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// `e_machine`, as `EM_X86_64` (62) and `EM_AARCH64` (183).
    pub machine: u16,
    /// Whether addresses have 64 bits.
    pub is_64: bool,
    /// Whether numbers are stored with the low byte first.
    pub is_little: bool,
}

/// A name that one file defines and another uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Its version, such as `GLIBC_2.34`.
    pub version: Option<String>,
}

/// A program or shared library.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elf {
    /// Its processors.
    pub format: Format,
    /// The dynamic loader that it asks for; a library has none.
    pub interpreter: Option<String>,
    /// Whether it is linked dynamically at all.
    pub is_dynamic: bool,
    /// The name by which it is asked for, `DT_SONAME`.
    pub soname: Option<String>,
    /// The libraries that it asks for, `DT_NEEDED`.
    pub needed: Vec<String>,
    /// Directories searched for these and for those of its libraries, `DT_RPATH`; without effect
    /// where there is a `DT_RUNPATH`.
    pub rpath: Vec<String>,
    /// Directories searched for these only, `DT_RUNPATH`.
    pub runpath: Vec<String>,
    /// Whether the cache and the default directories are not searched (`DF_1_NODEFLIB`).
    pub no_default: bool,
    /// What it defines for others.
    pub exported: BTreeSet<Symbol>,
    /// What it needs of others and cannot do without: no weak symbols.
    pub undefined: BTreeSet<Symbol>,
    /// The versions that it needs, by the library that is to define them.
    pub versions_needed: BTreeMap<String, BTreeSet<String>>,
    /// The versions that it defines.
    pub versions_defined: BTreeSet<String>,
}

impl Elf {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// In words, where it is not an ELF file or a damaged one.
    pub fn read(file: File) -> Result<Self, String> {
        let cache = ReadCache::new(file);
        let magic = (&cache).read_bytes_at(0, 5).map_err(|()| "it is no ELF file".to_owned())?;
        let parsed = match magic {
            [0x7f, b'E', b'L', b'F', 2] => parse::<elf::FileHeader64<Endianness>, _>(&cache),
            [0x7f, b'E', b'L', b'F', 1] => parse::<elf::FileHeader32<Endianness>, _>(&cache),
            _ => return Err("it is no ELF file".to_owned()),
        };
        parsed.map_err(|error| format!("it is a damaged ELF file: {error}"))
    }

    /// The highest version of a series that it needs: of `GLIBC`, `GLIBC_2.34`.
    pub fn highest_needed(&self, series: &str) -> Option<&str> {
        highest(self.versions_needed.values().flatten(), series)
    }

    /// The highest version of a series that it defines.
    pub fn highest_defined(&self, series: &str) -> Option<&str> {
        highest(self.versions_defined.iter(), series)
    }

    /// Whether it defines a symbol, of whatever version.
    pub fn exports(&self, name: &str) -> bool {
        let first = Symbol { name: name.to_owned(), version: None };
        self.exported.range(first..).next().is_some_and(|symbol| symbol.name == name)
    }
}

/// The highest of the versions of a series, `GLIBC_2.4` before `GLIBC_2.34`.
pub fn highest<'v>(
    versions: impl IntoIterator<Item = &'v String>,
    series: &str,
) -> Option<&'v str> {
    let of_series = |version: &&str| numbers(version, series).is_some();
    let versions = versions.into_iter().map(String::as_str).filter(of_series);
    versions.max_by(|one, other| compare_versions(one, other))
}

/// Compares two versions of one series by their numbers.
pub fn compare_versions(one: &str, other: &str) -> Ordering {
    let numbers = |version: &str| -> Vec<u32> {
        let numbers = version.rsplit('_').next().unwrap_or_default();
        numbers.split('.').map(|number| number.parse().unwrap_or_default()).collect()
    };
    numbers(one).cmp(&numbers(other))
}

/// The numbers of a version of a series; `GLIBC_PRIVATE` and the like have none.
fn numbers<'v>(version: &'v str, series: &str) -> Option<&'v str> {
    let rest = version.strip_prefix(series)?.strip_prefix('_')?;
    rest.starts_with(|first: char| first.is_ascii_digit()).then_some(rest)
}

fn parse<'d, Header, R>(data: R) -> object::read::Result<Elf>
where
    Header: FileHeader<Endian = Endianness>,
    R: ReadRef<'d>,
{
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let format = Format {
        machine: header.e_machine(endian).0,
        is_64: header.is_class_64(),
        is_little: endian == Endianness::Little,
    };
    let mut parsed = Elf { format, ..Elf::default() };
    let segments = header.program_headers(endian, data)?;
    for segment in segments {
        if let Some(interpreter) = segment.interpreter(endian, data)? {
            parsed.interpreter = Some(text(interpreter));
        }
        if let Some(entries) = segment.dynamic(endian, data)? {
            parsed.is_dynamic = true;
            read_dynamic::<Header, R>(&mut parsed, endian, data, (segments, entries));
        }
    }
    // A library whose section headers were removed still loads; its symbols are not known then.
    if let Ok(sections) = header.sections(endian, data) {
        read_symbols::<Header, R>(&mut parsed, endian, data, &sections)?;
    }
    Ok(parsed)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The dynamic segment is read as the loader does, by addresses.
fn read_dynamic<'d, Header, R>(
    parsed: &mut Elf,
    endian: Endianness,
    data: R,
    (segments, entries): (&'d [Header::ProgramHeader], &'d [Header::Dyn]),
) where
    Header: FileHeader<Endian = Endianness>,
    R: ReadRef<'d>,
{
    let ended = entries.iter().position(|entry| entry.d_tag(endian) == elf::DT_NULL);
    let entries = &entries[..ended.unwrap_or(entries.len())];
    let value = |tag| {
        let found = entries.iter().find(|entry| entry.d_tag(endian) == tag);
        found.map(|entry| -> u64 { entry.d_val(endian).into() })
    };
    let (Some(address), Some(size)) = (value(elf::DT_STRTAB), value(elf::DT_STRSZ)) else { return };
    // By hand: the library would read the whole segment, which is the library's code and data.
    let strings = segments.iter().find_map(|segment| {
        let (start, length): (u64, u64) =
            (segment.p_vaddr(endian).into(), segment.p_filesz(endian).into());
        let below = address.checked_sub(start).filter(|below| *below < length)?;
        let offset: u64 = segment.p_offset(endian).into();
        data.read_bytes_at(offset.checked_add(below)?, size).ok()
    });
    let strings = strings.unwrap_or_default();
    let strings = StringTable::new(strings, 0, strings.len() as u64);
    parsed.no_default = value(elf::DT_FLAGS_1).is_some_and(|flags| flags & 0x800 != 0);
    for entry in entries {
        let offset: u64 = entry.d_val(endian).into();
        let string = || u32::try_from(offset).ok().and_then(|offset| strings.get(offset).ok());
        let list = || text(string().unwrap_or_default()).split(':').map(str::to_owned).collect();
        match entry.d_tag(endian) {
            elf::DT_NEEDED => parsed.needed.extend(string().map(text)),
            elf::DT_SONAME => parsed.soname = string().map(text),
            elf::DT_RPATH => parsed.rpath = list(),
            elf::DT_RUNPATH => parsed.runpath = list(),
            _ => {}
        }
    }
}

fn read_symbols<'d, Header, R>(
    parsed: &mut Elf,
    endian: Endianness,
    data: R,
    sections: &SectionTable<'d, Header, R>,
) -> object::read::Result<()>
where
    Header: FileHeader<Endian = Endianness>,
    R: ReadRef<'d>,
{
    let symbols = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    let strings = sections.section(symbols.string_section());
    let strings = strings.and_then(|section| section.data(endian, data)).unwrap_or_default();
    let strings = StringTable::new(strings, 0, strings.len() as u64);
    let versions = sections.versions(endian, data)?.unwrap_or_default();
    read_versions::<Header, R>(parsed, endian, data, sections)?;
    // Sorted at once and not one by one: that is a third of the time of a large library.
    let (mut exported, mut undefined) = (Vec::new(), Vec::new());
    for (index, symbol) in symbols.iter().enumerate() {
        let bind = symbol.st_bind();
        let Ok(name) = strings.get(symbol.st_name(endian)) else { continue };
        if bind == elf::STB_LOCAL || name.is_empty() {
            continue;
        }
        let number = versions.version_index(endian, SymbolIndex(index));
        let version = versions.version(number.index()).ok().flatten();
        let version = version.map(|version| text(version.name()));
        let symbol_named = Symbol { name: text(name), version };
        if symbol.st_shndx(endian) != elf::SHN_UNDEF {
            exported.push(symbol_named);
        } else if bind != elf::STB_WEAK {
            undefined.push(symbol_named);
        }
    }
    parsed.exported = exported.into_iter().collect();
    parsed.undefined = undefined.into_iter().collect();
    Ok(())
}

fn read_versions<'d, Header, R>(
    parsed: &mut Elf,
    endian: Endianness,
    data: R,
    sections: &SectionTable<'d, Header, R>,
) -> object::read::Result<()>
where
    Header: FileHeader<Endian = Endianness>,
    R: ReadRef<'d>,
{
    if let Some((mut defined, link)) = sections.gnu_verdef(endian, data)? {
        let strings = sections.strings(endian, data, link)?;
        while let Some((definition, mut names)) = defined.next()? {
            let is_base = definition.vd_flags.get(endian).contains(elf::VER_FLG_BASE);
            if let Some(name) = names.next()?.filter(|_name| !is_base) {
                parsed.versions_defined.insert(text(name.name(endian, strings)?));
            }
        }
    }
    if let Some((mut needed, link)) = sections.gnu_verneed(endian, data)? {
        let strings = sections.strings(endian, data, link)?;
        while let Some((file, mut names)) = needed.next()? {
            let versions = parsed.versions_needed.entry(text(file.file(endian, strings)?));
            let versions = versions.or_default();
            while let Some(name) = names.next()? {
                // The loader only warns where such a version is missing.
                if !name.vna_flags.get(endian).contains(elf::VER_FLG_WEAK) {
                    versions.insert(text(name.name(endian, strings)?));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn this_test_is_a_program_that_needs_a_c_library() {
        let own = Elf::read(File::open("/proc/self/exe").unwrap()).unwrap();
        assert!(own.is_dynamic && own.format.is_64, "{:?}", own.format);
        assert!(own.interpreter.unwrap().contains("ld-"));
        assert!(own.needed.contains(&"libc.so.6".to_owned()), "{:?}", own.needed);
        assert!(own.versions_needed["libc.so.6"].iter().any(|name| name.starts_with("GLIBC_2.")));
        assert!(own.undefined.iter().any(|symbol| symbol.name == "malloc"
            && symbol.version.as_deref().is_some_and(|version| version.starts_with("GLIBC_"))));
    }

    #[test]
    fn versions_are_compared_by_number() {
        let versions = ["GLIBC_2.4", "GLIBC_2.34", "GLIBC_PRIVATE", "GLIBC_2.3.4", "GCC_9.0"];
        let versions: Vec<String> = versions.map(str::to_owned).into();
        assert_eq!(highest(&versions, "GLIBC"), Some("GLIBC_2.34"));
        assert_eq!(highest(&versions, "GCC"), Some("GCC_9.0"));
        assert_eq!(highest(&versions, "GLIBCXX"), None);
    }

    #[test]
    fn a_damaged_file_is_survived() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let head = &own[..own.len().min(64 << 10)];
        for at in 0..512 {
            let mut bytes = head.to_vec();
            bytes[at] ^= 0xff;
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let _either = Elf::read(file);
        }
        let mut short = tempfile::tempfile().unwrap();
        short.write_all(b"#!/bin/sh\n").unwrap();
        assert_eq!(Elf::read(short).unwrap_err(), "it is no ELF file");
    }
}
