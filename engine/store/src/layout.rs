//! Names of files in the store. Does no I/O.

use sarus_oci::{Digest, Platform, Reference};

/// Directory of the images; the number is the version of the squashfs file's conventions (ids
/// all zero, real ones in the metadata).
pub(crate) const IMAGES: &str = "images/v1";
pub(crate) const NAMES: &str = "names";
pub(crate) const SHORT_NAMES: &str = "short-names";
pub(crate) const BLOBS: &str = "blobs";
pub(crate) const LEASES: &str = "leases";
pub(crate) const TEMPORARIES: &str = "tmp";

pub(crate) const SQUASHFS: &str = "image.squashfs";
pub(crate) const METADATA: &str = "image.json";
pub(crate) const REMOVED: &str = "removed";

/// Ends the name of a blob's beginning that no process owns.
pub(crate) const PARTIAL: &str = ".partial";

/// Longest encoded reference and platform that are used as they are; longer ones are cut and end
/// in a hash. Together they stay below the 255 bytes that file systems take.
const REFERENCE_LENGTH_MAX: usize = 170;
const PLATFORM_LENGTH_MAX: usize = 80;

/// Between the two: no encoded text has it.
const NAME_SEPARATOR: char = ',';

/// `sha256-HEX`: no byte in it means anything to a file system.
pub(crate) fn digest_name(digest: &Digest) -> String {
    digest.to_string().replace(':', "-")
}

/// The digest that [`digest_name`] wrote.
pub(crate) fn parse_digest_name(name: &str) -> Option<Digest> {
    Digest::parse(&name.replacen('-', ":", 1)).ok()
}

/// The file below [`NAMES`] of a reference on a platform. Platforms come in normal form, so that
/// asking for `linux/arm64` and for `linux/arm64/v8` is one name.
pub(crate) fn name_file(reference: &Reference, platform: &Platform) -> String {
    file_of(&reference.to_string(), platform)
}

/// The file below [`SHORT_NAMES`] of a reference that is short, as it was given.
pub(crate) fn short_name_file(reference: &Reference, platform: &Platform) -> Option<String> {
    let mut short = reference.short_name()?.to_owned();
    short.extend(reference.tag().map(|tag| format!(":{tag}")));
    short.extend(reference.digest().map(|digest| format!("@{digest}")));
    Some(file_of(&short, platform))
}

fn file_of(reference: &str, platform: &Platform) -> String {
    let reference = encode(reference, REFERENCE_LENGTH_MAX);
    let platform = encode(&platform.to_string().replace('/', "-"), PLATFORM_LENGTH_MAX);
    format!("{reference}{NAME_SEPARATOR}{platform}")
}

/// Whether a file below [`NAMES`] is called as [`name_file`] does.
pub(crate) fn is_name_file(name: &str) -> bool {
    name.contains(NAME_SEPARATOR)
}

/// A readable name that is safe as a file's: `/` becomes `+`, `:` becomes `=`; letters, digits,
/// `.`, `_`, `-` and `@` stay (a dot not at the beginning); all else is `%XX`. One to one up to
/// `length_max` bytes; beyond, a hash of the whole tells names apart.
fn encode(text: &str, length_max: usize) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'/' => encoded.push('+'),
            b':' => encoded.push('='),
            b'.' if encoded.is_empty() => encoded.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'@' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    if encoded.len() > length_max {
        let hash = Digest::sha256_of(text.as_bytes());
        encoded.truncate(length_max - 65);
        encoded.push('~');
        encoded.push_str(hash.hex());
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_names_are_readable_and_stay_in_their_directory() {
        for (given, want) in [
            ("docker.io/library/debian:12", "docker.io+library+debian=12"),
            ("127.0.0.1:5000/a:b", "127.0.0.1=5000+a=b"),
            ("..", "%2E."),
            ("../../etc", "%2E.+..+etc"),
            ("[::1]:5000/x", "%5B==1%5D=5000+x"),
            ("a+b%", "a%2Bb%25"),
            ("a,b", "a%2Cb"),
        ] {
            assert_eq!(encode(given, 100), want, "given {given:?}");
        }
    }

    #[test]
    fn long_names_fit_and_differ() {
        let (one, two) = ("x".repeat(300), format!("{}y", "x".repeat(299)));
        assert_eq!(encode(&one, 200).len(), 200);
        assert_ne!(encode(&one, 200), encode(&two, 200));
        let reference = format!("{}:{}", "a/".repeat(100) + "b", "t".repeat(128));
        let reference = Reference::parse(&reference).unwrap();
        let name = name_file(&reference, &Platform::new("linux", &"x".repeat(300), None));
        assert!(name.len() <= 255 && is_name_file(&name), "{name}");
    }
}
