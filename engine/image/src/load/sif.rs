//! SIF files, Singularity's and Apptainer's format: where in one the root file system is.
//!
//! A header of fixed length, then a table of descriptors of fixed length, all numbers little
//! endian; the root file system is the partition of type `*System`. Format: the package `sif` of
//! <https://github.com/apptainer/sif>, version 01. Nothing of the file is trusted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use sarus_oci::Platform;

/// Header: launch script, magic, version, architecture, id, and eight numbers.
const HEADER_SIZE: usize = 128;
const MAGIC: std::ops::Range<usize> = 32..42;
const VERSION: std::ops::Range<usize> = 42..45;
/// Byte of the number of descriptors, and of the table's place.
const TOTAL_AT: usize = 88;
const TABLE_AT: usize = 96;

/// A descriptor: 73 bytes of numbers, a name of 128, and 384 that depend on the type.
const DESCRIPTOR_SIZE: usize = 585;
const EXTRA_AT: usize = 201;
/// Most descriptors that are looked at; Apptainer makes room for 48.
const DESCRIPTORS_MAX: u64 = 4096;

/// Type of a partition, and of the index of an OCI image (SingularityCE's OCI-SIF).
const PARTITION: u32 = 0x4004;
const OCI_INDEX: u32 = 0x400a;
/// File systems of partitions.
const SQUASHFS: u32 = 1;
const ENCRYPTED: u32 = 5;
/// The partition that holds the root file system.
const PRIMARY: u32 = 2;

/// Names of architectures, by their number.
const ARCHITECTURES: [(&str, &str); 9] = [
    ("01", "386"),
    ("02", "amd64"),
    ("03", "arm"),
    ("04", "arm64"),
    ("05", "ppc64"),
    ("06", "ppc64le"),
    ("11", "s390x"),
    ("12", "riscv64"),
    ("10", "mips64le"),
];

/// Why a SIF file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SifError {
    /// The file cannot be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// The magic is missing.
    #[error("it does not begin as a SIF file")]
    NotSif,
    /// A version that is not known.
    #[error("it is of version `{given}`, expected `01`")]
    Version {
        /// The version.
        given: String,
    },
    /// A part lies beyond the file's end, or is absurd.
    #[error("it is damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// The container is encrypted.
    #[error("its root file system is encrypted")]
    Encrypted,
    /// The root file system is of another kind.
    #[error("its root file system is no squashfs image (type {kind})")]
    FileSystem {
        /// The number of the kind.
        kind: u32,
    },
    /// There is no root file system, but an OCI image.
    #[error("it is an OCI-SIF, which holds an OCI image instead of a root file system")]
    Oci,
    /// There is no root file system.
    #[error("it has no root file system (no primary system partition)")]
    NoRoot,
}

impl SifError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Oci => "load the OCI image that it was made from",
            Self::Encrypted => "decrypt it first: `apptainer build --sandbox` with the key",
            Self::Damaged { .. } => "copy it again, or build it again",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// The root file system of a SIF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootPartition {
    /// Its first byte in the file.
    pub(crate) offset: u64,
    /// What it was built for, where the file says so.
    pub(crate) platform: Option<Platform>,
}

/// Whether a file begins as a SIF file.
pub(crate) fn is_sif(file: &File) -> bool {
    let mut magic = [0; 10];
    file.read_exact_at(&mut magic, 32).is_ok() && &magic == b"SIF_MAGIC\0"
}

/// Finds the root file system. The partition lies in the file; whether it is an image is for its
/// reader.
///
/// # Errors
///
/// [`SifError`]
pub(crate) fn root_partition(file: &File) -> Result<RootPartition, SifError> {
    let length = file.metadata().map_err(SifError::Read)?.len();
    let mut header = [0; HEADER_SIZE];
    let short = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => SifError::Damaged { what: "it ends in its headers" },
        _ => SifError::Read(error),
    };
    file.read_exact_at(&mut header, 0).map_err(short)?;
    if &header[MAGIC] != b"SIF_MAGIC\0" {
        return Err(SifError::NotSif);
    }
    if &header[VERSION] != b"01\0" {
        let given = String::from_utf8_lossy(&header[VERSION]).trim_end_matches('\0').to_owned();
        return Err(SifError::Version { given });
    }
    let (total, table) = (number(&header, TOTAL_AT), number(&header, TABLE_AT));
    if total > DESCRIPTORS_MAX {
        return Err(SifError::Damaged { what: "it has more than 4096 descriptors" });
    }
    let mut is_oci = false;
    for index in 0..total {
        let at = table.checked_add(index * DESCRIPTOR_SIZE as u64);
        let at = at.ok_or(SifError::Damaged { what: "its table lies nowhere" })?;
        let mut descriptor = [0; DESCRIPTOR_SIZE];
        file.read_exact_at(&mut descriptor, at).map_err(short)?;
        let is_used = descriptor[4] != 0;
        let kind = small(&descriptor, 0);
        is_oci |= is_used && kind == OCI_INDEX;
        if is_used && kind == PARTITION && small(&descriptor, EXTRA_AT + 4) == PRIMARY {
            return partition(&descriptor, length);
        }
    }
    Err(if is_oci { SifError::Oci } else { SifError::NoRoot })
}

fn partition(descriptor: &[u8], length: u64) -> Result<RootPartition, SifError> {
    match small(descriptor, EXTRA_AT) {
        SQUASHFS => {}
        ENCRYPTED => return Err(SifError::Encrypted),
        kind => return Err(SifError::FileSystem { kind }),
    }
    let (offset, size) = (number(descriptor, 17), number(descriptor, 25));
    if offset.checked_add(size).is_none_or(|end| end > length) {
        return Err(SifError::Damaged { what: "its root file system lies beyond its end" });
    }
    let code = &descriptor[EXTRA_AT + 8..EXTRA_AT + 10];
    let found = ARCHITECTURES.iter().find(|(number, _)| number.as_bytes() == code);
    let platform = found.map(|(_, name)| Platform::new("linux", name, None));
    Ok(RootPartition { offset, platform })
}

/// 64 bits; what is negative is larger than any file.
fn number(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

fn small(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}
