//! `--mount`, `-v`, `--tmpfs` and `--device`: from their words to what the launch request holds.
//!
//! Pure. Paths may be any bytes, so words are taken apart as bytes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use sarus_launch::{Device, DeviceAccess, Mount, MountSource, RawString};

use crate::usage::UsageError;

const MOUNT: &str = "--mount";
const VOLUME: &str = "-v";
const TMPFS: &str = "--tmpfs";
const DEVICE: &str = "--device";

/// Parses the value of `--mount`. A relative source is taken from `cwd`.
///
/// # Errors
///
/// Names the option's word and what is wrong with it.
pub fn parse_mount(given: &OsStr, cwd: &Path) -> Result<Mount, UsageError> {
    let mut fields = MountFields::default();
    for field in split_quoted(given).ok_or_else(|| UsageError::Quotes { given: lossy(given) })? {
        fields.take(given, &field)?;
    }
    fields.finish(given, cwd)
}

/// What `--mount` gave so far; each at most once.
#[derive(Default)]
struct MountFields {
    kind: Option<Vec<u8>>,
    source: Option<Vec<u8>>,
    destination: Option<Vec<u8>>,
    read_only: Option<bool>,
    size: Option<u64>,
    mode: Option<u32>,
}

impl MountFields {
    fn take(&mut self, given: &OsStr, field: &[u8]) -> Result<(), UsageError> {
        let (key, value) = split_at(field, b'=');
        let key_text = String::from_utf8_lossy(key).into_owned();
        let needed = || {
            value.filter(|value| !value.is_empty()).map(<[u8]>::to_vec).ok_or_else(|| {
                UsageError::NoValue { option: MOUNT, given: lossy(given), key: key_text.clone() }
            })
        };
        let wrong = |expected| value_error(MOUNT, field, expected);
        let first = match key {
            b"type" => self.kind.replace(needed()?).is_none(),
            b"source" | b"src" => self.source.replace(needed()?).is_none(),
            b"destination" | b"dst" | b"target" => self.destination.replace(needed()?).is_none(),
            b"readonly" | b"ro" => {
                let on = flag(value).ok_or_else(|| wrong("`true` or `false`"))?;
                self.read_only.replace(on).is_none()
            }
            b"tmpfs-size" => {
                let size = size(&needed()?).ok_or_else(|| wrong("a size such as `64m`"))?;
                self.size.replace(size).is_none()
            }
            b"tmpfs-mode" => {
                let mode = mode(&needed()?).ok_or_else(|| wrong("an octal mode such as `1777`"))?;
                self.mode.replace(mode).is_none()
            }
            // What every mount of ours has, and the words for it that job scripts carry along.
            b"bind-propagation" => match needed()?.as_slice() {
                b"private" | b"rprivate" | b"slave" | b"rslave" => true,
                _ => return Err(wrong("`rprivate` or `rslave`")),
            },
            _ => {
                return Err(UsageError::UnknownKey {
                    option: MOUNT,
                    given: lossy(given),
                    key: key_text,
                    expected: "type, source, destination, readonly, tmpfs-size, tmpfs-mode",
                });
            }
        };
        if first {
            return Ok(());
        }
        Err(UsageError::KeyTwice { option: MOUNT, given: lossy(given), key: key_text })
    }

    fn finish(self, given: &OsStr, cwd: &Path) -> Result<Mount, UsageError> {
        let missing = |key| UsageError::MissingKey { option: MOUNT, given: lossy(given), key };
        let unfit = |key, kind| UsageError::UnfitKey { given: lossy(given), key, kind };
        let source = match self.kind.as_deref() {
            Some(b"bind") => {
                if self.size.is_some() || self.mode.is_some() {
                    return Err(unfit("tmpfs-size and tmpfs-mode", "bind"));
                }
                let path = self.source.ok_or_else(|| missing("source"))?;
                MountSource::Bind { path: absolute(&path, cwd) }
            }
            Some(b"tmpfs") if self.source.is_some() => return Err(unfit("source", "tmpfs")),
            Some(b"tmpfs") => {
                MountSource::Tmpfs { size: self.size, mode: self.mode, no_exec: false }
            }
            Some(other) => {
                let field = [b"type=", other].concat();
                return Err(value_error(MOUNT, &field, "`type=bind` or `type=tmpfs`"));
            }
            None => return Err(missing("type")),
        };
        let destination = self.destination.ok_or_else(|| missing("destination"))?;
        Ok(Mount {
            destination: destination_of(MOUNT, &destination)?,
            source,
            read_only: self.read_only.unwrap_or(false),
        })
    }
}

/// Parses the value of `-v`. A relative source is taken from `cwd`.
///
/// # Errors
///
/// Names the option's word and what is wrong with it.
pub fn parse_volume(given: &OsStr, cwd: &Path) -> Result<Mount, UsageError> {
    let wrong = |expected| value_error(VOLUME, given.as_bytes(), expected);
    let parts: Vec<&[u8]> = given.as_bytes().split(|byte| *byte == b':').collect();
    let (source, destination, options) = match parts.as_slice() {
        [source, destination] => (*source, *destination, &b""[..]),
        [source, destination, options] => (*source, *destination, *options),
        _ => return Err(wrong("SOURCE:DESTINATION or SOURCE:DESTINATION:ro")),
    };
    if source.is_empty() {
        return Err(wrong("SOURCE:DESTINATION, both not empty"));
    }
    if !source.contains(&b'/') && source != b"." && source != b".." {
        return Err(UsageError::NamedVolume { given: lossy(given), name: lossy_bytes(source) });
    }
    let mut read_only = false;
    for option in options.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
        match option {
            b"ro" => read_only = true,
            // Labels (z, Z) and propagation say what holds anyway.
            b"rw" | b"z" | b"Z" | b"private" | b"rprivate" | b"slave" | b"rslave" | b"rbind" => {}
            _ => return Err(wrong("`ro` or `rw` after the second colon")),
        }
    }
    Ok(Mount {
        destination: destination_of(VOLUME, destination)?,
        source: MountSource::Bind { path: absolute(source, cwd) },
        read_only,
    })
}

/// Parses the value of `--tmpfs`.
///
/// # Errors
///
/// Names the option's word and what is wrong with it.
pub fn parse_tmpfs(given: &OsStr) -> Result<Mount, UsageError> {
    let (destination, options) = split_at(given.as_bytes(), b':');
    let (mut read_only, mut no_exec, mut limit, mut root_mode) = (false, false, None, None);
    let options = options.unwrap_or_default();
    for option in options.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
        let wrong = |expected| value_error(TMPFS, option, expected);
        match split_at(option, b'=') {
            (b"size", Some(value)) => {
                limit = Some(size(value).ok_or_else(|| wrong("a size such as `64m`"))?);
            }
            (b"mode", Some(value)) => {
                let mode = mode(value).ok_or_else(|| wrong("an octal mode such as `1777`"))?;
                root_mode = Some(mode);
            }
            (b"ro", None) => read_only = true,
            (b"noexec", None) => no_exec = true,
            (b"exec", None) => no_exec = false,
            (b"rw" | b"nosuid" | b"nodev", None) => {}
            _ => return Err(wrong("size=SIZE, mode=MODE, ro, rw, exec or noexec")),
        }
    }
    Ok(Mount {
        destination: destination_of(TMPFS, destination)?,
        source: MountSource::Tmpfs { size: limit, mode: root_mode, no_exec },
        read_only,
    })
}

/// Whether the value of `--device` is a CDI device, `vendor.com/class=name`, and not a path.
pub fn is_cdi_device(given: &OsStr) -> bool {
    let Some((kind, name)) = given.to_str().and_then(|text| text.split_once('=')) else {
        return false;
    };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let is_word = |text: &str, others: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
        text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits)
    };
    is_word(vendor, "_-.") && is_word(class, "_-.") && is_word(name, "_-.:")
}

/// Parses the value of `--device`, which is a path.
///
/// # Errors
///
/// Names the option's word and what is wrong with it.
pub fn parse_device(given: &OsStr) -> Result<Device, UsageError> {
    let wrong = |expected| value_error(DEVICE, given.as_bytes(), expected);
    let access = |text: &[u8]| DeviceAccess::parse(std::str::from_utf8(text).ok()?);
    let is_path = |text: &[u8]| text.starts_with(b"/");
    let parts: Vec<&[u8]> = given.as_bytes().split(|byte| *byte == b':').collect();
    let (source, destination, rights) = match parts.as_slice() {
        [source] => (*source, *source, None),
        [source, second] if is_path(second) => (*source, *second, None),
        [source, rights] => (*source, *source, Some(*rights)),
        [source, destination, rights] => (*source, *destination, Some(*rights)),
        _ => return Err(wrong("HOST[:CONTAINER][:rwm]")),
    };
    if !is_path(source) || !is_path(destination) {
        return Err(wrong(
            "absolute paths of a device, as in `/dev/fuse` or `/dev/fuse:/dev/f:rw`, or a CDI device, as in `vendor.com/class=name`",
        ));
    }
    let access = match rights {
        None => DeviceAccess::ALL,
        Some(rights) => {
            access(rights).ok_or_else(|| wrong("a selection of r, w and m at the end"))?
        }
    };
    Ok(Device { source: raw(source), destination: raw(destination), access })
}

/// Splits at commas. As in CSV, which is what Docker reads `--mount` as, a field may be put into
/// double quotes to hold commas, and a double quote in it is doubled. None where quotes are left
/// open or stand in the middle of a field.
fn split_quoted(given: &OsStr) -> Option<Vec<Vec<u8>>> {
    let mut fields = Vec::new();
    let mut rest = given.as_bytes();
    loop {
        let mut field = Vec::new();
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            rest = quoted;
            loop {
                let end = rest.iter().position(|byte| *byte == b'"')?;
                field.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                match rest.strip_prefix(b"\"") {
                    Some(after) => {
                        field.push(b'"');
                        rest = after;
                    }
                    None => break,
                }
            }
        } else {
            let end = rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len());
            field.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
            if field.contains(&b'"') {
                return None;
            }
        }
        fields.push(field);
        match rest {
            [] => return Some(fields),
            [b',', after @ ..] => rest = after,
            _ => return None,
        }
    }
}

fn destination_of(option: &'static str, given: &[u8]) -> Result<RawString, UsageError> {
    if given.starts_with(b"/") {
        return Ok(raw(given));
    }
    Err(UsageError::RelativeDestination { option, given: lossy_bytes(given) })
}

/// Joined with the working directory; `.` and doubled slashes go, `..` stays for the kernel,
/// which knows what is a symbolic link.
fn absolute(given: &[u8], cwd: &Path) -> RawString {
    let joined = cwd.join(OsStr::from_bytes(given));
    let tidy: std::path::PathBuf = joined.components().collect();
    RawString::from(tidy)
}

fn flag(value: Option<&[u8]>) -> Option<bool> {
    match value {
        None | Some(b"true" | b"1") => Some(true),
        Some(b"false" | b"0") => Some(false),
        Some(_) => None,
    }
}

/// Docker reads `64mb` as `64m`: powers of 1024.
fn size(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let short = text.strip_suffix(['b', 'B']).filter(|rest| !rest.ends_with(['b', 'B']));
    sarus_config::parse_size(text).or_else(|| sarus_config::parse_size(short?))
}

fn mode(value: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(value).ok()?;
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// The parts before and after the first `by`.
fn split_at(text: &[u8], by: u8) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == by) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

fn value_error(option: &'static str, given: &[u8], expected: &'static str) -> UsageError {
    UsageError::Value { option, given: lossy_bytes(given), expected }
}

fn raw(bytes: &[u8]) -> RawString {
    RawString::from(OsString::from_vec(bytes.to_vec()))
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

fn lossy_bytes(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}
