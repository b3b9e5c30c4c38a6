//! The kinds of files that hold an image, and how each is told from its first bytes. No I/O.

use std::fmt;
use std::str::FromStr;

/// Bytes from the beginning of a file that [`Look::at`] wants, where there are as many.
pub(super) const HEAD_SIZE: usize = 512;

/// What a file or stream holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// An archive of `docker save`: images by `manifest.json`.
    DockerArchive,
    /// A tar archive of an OCI image layout.
    OciArchive,
    /// A directory with an OCI image layout.
    OciDirectory,
    /// A tar archive of a root file system, as `docker export` writes it.
    RootTar,
    /// A squashfs file.
    Squashfs,
    /// Singularity's and Apptainer's format.
    Sif,
}

/// All formats with their names, the first of which is shown.
const NAMES: [(Format, &[&str]); 6] = [
    (Format::DockerArchive, &["docker-archive"]),
    (Format::OciArchive, &["oci-archive"]),
    (Format::OciDirectory, &["oci", "oci-dir"]),
    (Format::RootTar, &["rootfs-tar", "tar"]),
    (Format::Squashfs, &["squashfs"]),
    (Format::Sif, &["sif"]),
];

impl Format {
    /// Names as `--format` takes them.
    pub const EXPECTED: &'static str =
        "`docker-archive`, `oci-archive`, `oci`, `rootfs-tar`, `squashfs` or `sif`";
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = NAMES.iter().find(|(format, _)| format == self);
        f.write_str(found.and_then(|(_, names)| names.first()).unwrap_or(&""))
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(_, names)| names.contains(&text));
        found.map(|(format, _)| *format).ok_or_else(|| format!("expected {}", Self::EXPECTED))
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Squashfs,
    Sif,
    /// gzip or zstd.
    Compressed,
    Tar,
    Unknown,
}

impl Look {
    pub(super) fn at(head: &[u8]) -> Self {
        match head {
            [b'h', b's', b'q', b's', ..] => Self::Squashfs,
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Compressed,
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Compressed,
            _ if head.get(32..42) == Some(b"SIF_MAGIC\0") => Self::Sif,
            _ if is_tar(head) => Self::Tar,
            _ => Self::Unknown,
        }
    }
}

/// Whether a header's checksum is right, which V7 archives have too; or only zeros, the end of an
/// archive without entries.
fn is_tar(head: &[u8]) -> bool {
    let Some(block) = head.get(..HEAD_SIZE) else { return false };
    if block.iter().all(|&byte| byte == 0) {
        return true;
    }
    let field = block[148..156].iter().map(|&byte| char::from(byte)).collect::<String>();
    let said = u64::from_str_radix(field.trim_matches([' ', '\0']), 8);
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    let of_field: u64 = block[148..156].iter().map(|&byte| u64::from(byte)).sum();
    said == Ok(sum - of_field + 8 * u64::from(b' '))
}

/// Whether a top-level name is one that archives of images have, rather than root file systems.
pub(super) fn is_archive_member(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    let stem = first.split('.').next().unwrap_or_default();
    let is_id = stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id
        || matches!(first, "manifest.json" | "repositories" | "index.json" | "oci-layout" | "blobs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_named_as_they_are_parsed() {
        for (format, names) in NAMES {
            for name in names {
                assert_eq!(name.parse::<Format>(), Ok(format));
            }
            assert_eq!(format.to_string(), names[0]);
            assert!(Format::EXPECTED.contains(&format!("`{format}`")));
        }
        assert!("zip".parse::<Format>().is_err());
    }

    #[test]
    fn what_is_no_archive_is_told_from_its_first_bytes() {
        for (head, want) in [
            (&b"hsqs"[..], Look::Squashfs),
            (b"\x1f\x8b\x08", Look::Compressed),
            (b"\x28\xb5\x2f\xfd", Look::Compressed),
            (b"PK\x03\x04", Look::Unknown),
            (b"", Look::Unknown),
            (&[0; 512], Look::Tar),
            (&[1; 512], Look::Unknown),
        ] {
            assert_eq!(Look::at(head), want, "{head:?}");
        }
    }

    #[test]
    fn archives_of_images_are_told_from_root_file_systems_by_their_names() {
        let id = "a8df429fc1ebec76d4e908936971116ddc7525961dba02d18a8eba81c0d4a652";
        for name in [id, &format!("{id}.tar"), &format!("{id}/layer.tar"), "blobs/sha256/x"] {
            assert!(is_archive_member(name), "{name}");
        }
        for name in ["etc/passwd", "bin", "", "deadbeef", "usr/manifest.json"] {
            assert!(!is_archive_member(name), "{name}");
        }
    }
}
