//! `-e` and `--env-file`. Pure, but for [`read`].

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use sarus_launch::RawString;

use crate::usage::UsageError;

/// A file of variables, read.
#[derive(Debug)]
pub struct EnvFile {
    /// The file, for messages.
    pub path: PathBuf,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Reads a file of variables.
///
/// # Errors
///
/// [`UsageError::ReadEnvFile`]
pub fn read(path: &Path) -> Result<EnvFile, UsageError> {
    let content = std::fs::read(path)
        .map_err(|source| UsageError::ReadEnvFile { path: path.to_owned(), source })?;
    Ok(EnvFile { path: path.to_owned(), content })
}

/// The variables of `-e`: `NAME=VALUE` as it is, `NAME` with the host's value, where it has one.
///
/// # Errors
///
/// [`UsageError::VariableName`]
pub fn from_options(
    given: &[OsString],
    host: &[(OsString, OsString)],
) -> Result<Vec<RawString>, UsageError> {
    let mut variables = Vec::new();
    for word in given {
        let name = word.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        if name.is_empty() {
            return Err(UsageError::VariableName {
                given: format!("-e {}", word.to_string_lossy()),
            });
        }
        variables.extend(resolve(word.as_bytes(), host));
    }
    Ok(variables)
}

/// The variables of a file, by Docker's rules: a line each; blanks before it, empty lines and
/// those that begin with `#` do not count; the value is taken as it is, quotes and blanks too;
/// a name alone takes the host's value, where it has one. A byte order mark is skipped.
///
/// # Errors
///
/// [`UsageError::EnvFileLine`] names the first line that sets nothing.
pub fn from_file(
    file: &EnvFile,
    host: &[(OsString, OsString)],
) -> Result<Vec<RawString>, UsageError> {
    let content = file.content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&file.content);
    let mut variables = Vec::new();
    for (number, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line).trim_ascii_start();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let name = line.split(|byte| *byte == b'=').next().unwrap_or_default();
        if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) || line.contains(&0) {
            return Err(UsageError::EnvFileLine {
                path: file.path.clone(),
                line: number + 1,
                given: String::from_utf8_lossy(line).into_owned(),
            });
        }
        variables.extend(resolve(line, host));
    }
    Ok(variables)
}

/// `NAME=VALUE` as it is; `NAME` completed from the host.
fn resolve(word: &[u8], host: &[(OsString, OsString)]) -> Option<RawString> {
    if word.contains(&b'=') {
        return Some(raw(word));
    }
    let (name, value) = host.iter().find(|(name, _)| name == OsStr::from_bytes(word))?;
    Some(join(name, value))
}

/// `NAME=VALUE`
pub fn join(name: &OsStr, value: &OsStr) -> RawString {
    let mut variable = name.to_owned();
    variable.push("=");
    variable.push(value);
    RawString::from(variable)
}

fn raw(bytes: &[u8]) -> RawString {
    RawString::from(OsString::from_vec(bytes.to_vec()))
}
