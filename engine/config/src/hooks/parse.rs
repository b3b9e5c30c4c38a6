//! From the text of a hook file to a [`Hook`]. Does no I/O.
//!
//! Stricter than `oci-hooks(5)`, which is silent on unknown keys: a condition with a misspelt key
//! would let a hook run where the site does not want it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regex::{Regex, RegexBuilder};

use super::{Hook, HookError, Stage, When};
use crate::document;
use crate::error::Fault;
use crate::field::Field;
use crate::keys::KeyTable;

/// The version of the format.
const VERSION: &str = "1.0.0";

/// The most memory that one compiled regular expression may take, in bytes.
pub const REGEX_SIZE_MAX: usize = 256 << 10;

/// Each object of a hook file, by the way to it, and the keys that it may have.
pub const KEYS: KeyTable = &[
    ("", &["version", "hook", "when", "stages", "sarus"]),
    ("sarus", &["plan"]),
    ("hook", &["path", "args", "env", "timeout"]),
    ("when", &["always", "annotations", "commands", "hasBindMounts"]),
];

fn known(path: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(object, _)| *object == path).map_or(&[], |(_, keys)| *keys)
}

impl Hook {
    /// Parses a hook file; `file` is named in errors and messages only.
    ///
    /// # Errors
    ///
    /// [`HookError::Invalid`] names the first offending key and its line.
    pub fn parse(text: &str, file: &Path) -> Result<Self, HookError> {
        document::parse(text)
            .and_then(|node| hook(&Field::root(&node), file))
            .map_err(|fault| HookError::Invalid { path: file.to_owned(), fault })
    }
}

fn hook(root: &Field<'_>, file: &Path) -> Result<Hook, Fault> {
    if !root.is_object() {
        return Err(Fault::Syntax { line: root.line(), reason: "expected an object".to_owned() });
    }
    // Before the keys: a file of another version has others.
    if let Some((_, version)) = root.map()?.iter().find(|(key, _)| *key == "version") {
        version.one_of(&[(VERSION, ())])?;
    }
    let object = root.object(known(""))?;
    object.required("version")?;
    let entry = object.required("hook")?.object(known("hook"))?;
    let strings = |key, read: fn(&Field<'_>) -> Result<String, Fault>| {
        entry.optional(key).map_or(Ok(Vec::new()), |list| list.list_of(read))
    };
    Ok(Hook {
        file: file.to_owned(),
        path: entry.required("path")?.absolute()?,
        args: strings("args", |arg| arg.text().map(str::to_owned))?,
        env: strings("env", variable)?,
        timeout: entry.optional("timeout").map(|timeout| timeout.seconds(1)).transpose()?,
        when: when(object.required("when")?)?,
        stages: stages(object.required("stages")?)?,
        plans: object.optional("sarus").map_or(Ok(false), plans)?,
    })
}

/// Other engines ignore the object that holds it.
fn plans(field: &Field<'_>) -> Result<bool, Fault> {
    let object = field.object(known("sarus"))?;
    object.optional("plan").map_or(Ok(false), Field::boolean)
}

fn variable(field: &Field<'_>) -> Result<String, Fault> {
    let text = field.text()?;
    if text.find('=').is_none_or(|at| at == 0) {
        return Err(field.wrong("a variable in the form `NAME=value`"));
    }
    Ok(text.to_owned())
}

fn when(field: &Field<'_>) -> Result<When, Fault> {
    let object = field.object(known("when"))?;
    let boolean = |key| object.optional(key).map(Field::boolean).transpose();
    let when = When {
        always: boolean("always")?,
        has_bind_mounts: boolean("hasBindMounts")?,
        annotations: object.optional("annotations").map_or(Ok(Vec::new()), annotations)?,
        commands: object
            .optional("commands")
            .map_or(Ok(Vec::new()), |list| list.list_of(|item| regex(item, item.text()?)))?,
    };
    let is_empty = when.always.is_none()
        && when.has_bind_mounts.is_none()
        && when.annotations.is_empty()
        && when.commands.is_empty();
    if is_empty {
        return Err(field.wrong("at least one condition, e.g. {\"always\": true}"));
    }
    Ok(when)
}

fn annotations(field: &Field<'_>) -> Result<Vec<(Regex, Regex)>, Fault> {
    let pair = |(key, value): &(&str, Field<'_>)| {
        let name = regex(value, key).map_err(|fault| of_key(fault, field, key))?;
        Ok((name, regex(value, value.text()?)?))
    };
    field.map()?.iter().map(pair).collect()
}

/// Says that it is the key of an annotation that was refused, not its value.
fn of_key(fault: Fault, annotations: &Field<'_>, name: &str) -> Fault {
    match fault {
        Fault::Value { line, expected, .. } => Fault::Value {
            line,
            key: format!("{}, key", annotations.path()),
            given: format!("{name:?}"),
            expected,
        },
        other => other,
    }
}

fn regex(field: &Field<'_>, pattern: &str) -> Result<Regex, Fault> {
    let built = RegexBuilder::new(pattern)
        .size_limit(REGEX_SIZE_MAX)
        .dfa_size_limit(REGEX_SIZE_MAX)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(limit) => {
            field.wrong(format!("a regular expression that takes at most {limit} bytes"))
        }
        error => {
            // The last line is the reason; those above draw an arrow under the place.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            field.wrong(format!("a regular expression ({reason})"))
        }
    })
}

fn stages(field: &Field<'_>) -> Result<BTreeSet<Stage>, Fault> {
    let names = Stage::ALL.map(|stage| (stage.name(), stage));
    let stages: BTreeSet<Stage> = field.list_of(|item| item.one_of(&names))?.into_iter().collect();
    if stages.is_empty() {
        return Err(field.wrong("at least one stage"));
    }
    Ok(stages)
}

impl Hook {
    /// The file's name, by which hooks are ordered and listed.
    pub fn name(&self) -> PathBuf {
        self.file.file_name().map(PathBuf::from).unwrap_or_default()
    }
}
