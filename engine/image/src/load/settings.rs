//! How an image that has no configuration wants to be run: what Singularity and Apptainer leave in
//! its root file system below `/.singularity.d`.
//!
//! Their scripts are not executed. Of the files in `env` the lines count that begin with
//! `export NAME=`, with a value that is a word or quoted; variables in it are those of lines
//! before. `runscript` is the default command.

use std::fs::File;
use std::sync::Arc;

use sarus_oci::Execution;
use sarus_squash::{
    ContentReader, FragmentCache, Image, ImageReader, Inode, InodeKind, Piece, ReadError,
};

/// Longest script that is read, in bytes.
const SCRIPT_MAX: u64 = 64 << 10;
/// Entries of a directory that are looked at.
const ENTRIES_MAX: usize = 1 << 16;
/// Scripts that are read.
const SCRIPTS_MAX: usize = 64;

/// What `PATH` is before any line sets it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Reads the settings of the image that begins at byte `offset` of a file; empty where it has
/// none.
///
/// # Errors
///
/// The image cannot be read, or is damaged.
pub(crate) fn read(file: &File, offset: u64) -> Result<Execution, ReadError> {
    let image = Image::open_at(file, offset)?;
    let mut reader = ImageReader::new(&image)?;
    let mut execution = Execution::default();
    let root = reader.inode(image.root())?;
    let Some(home) = find(&mut reader, &root, b".singularity.d")? else { return Ok(execution) };
    if find(&mut reader, &home, b"runscript")?.is_some() {
        execution.cmd = Some(vec!["/.singularity.d/runscript".to_owned()]);
    }
    let Some(scripts) = find(&mut reader, &home, b"env")? else { return Ok(execution) };
    let mut contents = ContentReader::new(&image, Arc::<FragmentCache>::default())?;
    for (_, script) in list(&mut reader, &scripts)?.into_iter().take(SCRIPTS_MAX) {
        let InodeKind::File(place) = &script.kind else { continue };
        if place.size > SCRIPT_MAX {
            continue;
        }
        let mut text = Vec::new();
        contents.read(place, |piece| {
            if let Piece::Data(bytes) = piece {
                text.extend_from_slice(bytes);
            }
            Ok::<_, ReadError>(())
        })?;
        exports(&String::from_utf8_lossy(&text), &mut execution.env);
    }
    Ok(execution)
}

fn find(
    reader: &mut ImageReader<'_>,
    directory: &Inode,
    name: &[u8],
) -> Result<Option<Inode>, ReadError> {
    let InodeKind::Directory(place) = &directory.kind else { return Ok(None) };
    let mut entries = reader.entries(place);
    for _ in 0..ENTRIES_MAX {
        match entries.next(reader)? {
            Some(entry) if entry.name == name => return reader.inode(entry.inode).map(Some),
            Some(_) => {}
            None => break,
        }
    }
    Ok(None)
}

/// The entries of a directory whose names end in `.sh`, sorted.
fn list(
    reader: &mut ImageReader<'_>,
    directory: &Inode,
) -> Result<Vec<(Vec<u8>, Inode)>, ReadError> {
    let InodeKind::Directory(place) = &directory.kind else { return Ok(Vec::new()) };
    let mut entries = reader.entries(place);
    let mut found = Vec::new();
    for _ in 0..ENTRIES_MAX {
        let Some(entry) = entries.next(reader)? else { break };
        if entry.name.ends_with(b".sh") && found.len() < SCRIPTS_MAX {
            found.push((entry.name, reader.inode(entry.inode)?));
        }
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

/// Adds the variables that a script sets to `env`, as `NAME=VALUE`.
fn exports(script: &str, env: &mut Vec<String>) {
    for line in script.lines() {
        let Some((name, value)) = line.strip_prefix("export ").and_then(|it| it.split_once('='))
        else {
            continue;
        };
        let is_name = |name: &str| {
            !name.starts_with(|c: char| c.is_ascii_digit())
                && !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let value = default_of(name, value.trim_end());
        if let (true, Some(value)) = (is_name(name), word(value, env)) {
            let prefix = format!("{name}=");
            env.retain(|known| !known.starts_with(&prefix));
            env.push(prefix + &value);
        }
    }
}

/// The value in `"${NAME:-"VALUE"}"`, as images made from Docker's have it; else all.
fn default_of<'a>(name: &str, value: &'a str) -> &'a str {
    let inner = value.strip_prefix("\"${").and_then(|rest| rest.strip_prefix(name));
    let inner = inner.and_then(|rest| rest.strip_prefix(":-"));
    inner.and_then(|rest| rest.strip_suffix("}\"")).unwrap_or(value)
}

/// The value of a shell word. None where that takes a shell to tell.
fn word(text: &str, env: &[String]) -> Option<String> {
    if let Some(inner) = text.strip_prefix('\'') {
        return inner.strip_suffix('\'').filter(|it| !it.contains('\'')).map(str::to_owned);
    }
    let (text, quoted) = match text.strip_prefix('"') {
        Some(rest) => (rest.strip_suffix('"')?, true),
        None => (text, false),
    };
    let mut value = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                escaped @ ('\\' | '"' | '`' | '$') => value.push(escaped),
                other if quoted => value.extend(['\\', other]),
                other => value.push(other),
            },
            '$' => {
                let braced = chars.next_if_eq(&'{').is_some();
                let mut name = String::new();
                while let Some(c) = chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                if braced && chars.next() != Some('}') {
                    return None;
                }
                value.push_str(&known(&name, env)?);
            }
            '`' | '"' => return None,
            ' ' | '\t' | ';' | '&' | '|' | '<' | '>' | '(' | ')' | '#' | '\'' | '*' | '?' | '~'
                if !quoted =>
            {
                return None;
            }
            other => value.push(other),
        }
    }
    Some(value)
}

/// The value of a variable that a line before set.
fn known(name: &str, env: &[String]) -> Option<String> {
    let prefix = format!("{name}=");
    let found = env.iter().find_map(|known| known.strip_prefix(&prefix)).map(str::to_owned);
    found.or_else(|| (name == "PATH").then(|| PATH.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_those_that_need_no_shell_to_tell() {
        let script = r#"#!/bin/sh
export PATH="/opt/conda/bin:/usr/bin"
export LANG="${LANG:-"C.UTF-8"}"
export EMPTY=""
export QUOTED="a\"b \$c"
export SINGLE='$HOME is kept'
export PATH=$PATH:/extra
export LATER="${PATH}/x"
export UNKNOWN=$HOME/x
export COMMAND=$(date)
export TICKS=`date`
export TWO=a b
export 1X=a
if true; then
    export INDENTED=1
fi
OTHER=1
export LANG
"#;
        let mut env = Vec::new();
        exports(script, &mut env);
        let want = [
            "LANG=C.UTF-8",
            "EMPTY=",
            "QUOTED=a\"b $c",
            "SINGLE=$HOME is kept",
            "PATH=/opt/conda/bin:/usr/bin:/extra",
            "LATER=/opt/conda/bin:/usr/bin:/extra/x",
        ];
        assert_eq!(env, want);
        let mut env = Vec::new();
        exports("export PATH=/opt/bin:$PATH", &mut env);
        assert_eq!(env, [format!("PATH=/opt/bin:{PATH}")]);
    }
}
