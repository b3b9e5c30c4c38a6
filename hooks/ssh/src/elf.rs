//! Of an ELF file the one thing needed: which dynamic loader it names. Pure.
//!
//! <https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html>; 64-bit files of this
//! machine's byte order.

/// Program header of the loader's name.
const PT_INTERP: u32 = 3;

/// Size of a program header.
const HEADER_SIZE: usize = 56;

/// What a program needs to start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A loader, at that path.
    Dynamic(String),
    /// Nothing.
    Static,
}

/// `None` if it is not a 64-bit ELF file of this machine's byte order.
pub(crate) fn kind(file: &[u8]) -> Option<Kind> {
    let class_and_order = if cfg!(target_endian = "little") { [2, 1] } else { [2, 2] };
    if file.get(..4)? != b"\x7fELF" || file.get(4..6)? != class_and_order {
        return None;
    }
    let headers = usize::try_from(u64::from_ne_bytes(bytes(file, 32)?)).ok()?;
    let count = u16::from_ne_bytes(bytes(file, 56)?);
    for index in 0..usize::from(count) {
        let at = headers.checked_add(index.checked_mul(HEADER_SIZE)?)?;
        if u32::from_ne_bytes(bytes(file, at)?) != PT_INTERP {
            continue;
        }
        let start = usize::try_from(u64::from_ne_bytes(bytes(file, at + 8)?)).ok()?;
        let size = usize::try_from(u64::from_ne_bytes(bytes(file, at + 32)?)).ok()?;
        let name = file.get(start..start.checked_add(size)?)?;
        let name = name.split(|byte| *byte == 0).next()?;
        return Some(Kind::Dynamic(String::from_utf8(name.to_vec()).ok()?));
    }
    Some(Kind::Static)
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_names_its_loader_and_a_script_is_no_program() {
        let own = fs_err::read("/proc/self/exe").unwrap();
        match kind(&own) {
            Some(Kind::Dynamic(loader)) => assert!(loader.starts_with('/'), "{loader}"),
            other => assert_eq!(other, Some(Kind::Static)),
        }
        assert_eq!(kind(b"#!/bin/sh"), None);
        assert_eq!(kind(b""), None);
        for size in 0..own.len().min(4096) {
            let _no_panic = kind(&own[..size]);
        }
    }
}
