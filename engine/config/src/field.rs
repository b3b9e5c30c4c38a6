//! A value of a configuration with the way to it, read as the type that is expected.
//!
//! Each reader refuses with line, key, what was given and what is expected.

use std::path::PathBuf;
use std::time::Duration;

use crate::document::{Node, Value};
use crate::error::Fault;
use crate::keys::nearest;

/// Longest part of a refused value that a message repeats, in characters.
const GIVEN_MAX: usize = 80;

#[derive(Debug, Clone)]
pub(crate) struct Field<'n> {
    node: &'n Node,
    path: String,
}

/// An object of which all keys are known.
#[derive(Debug)]
pub(crate) struct Object<'n> {
    line: usize,
    path: String,
    members: Vec<(&'n str, Field<'n>)>,
}

impl<'n> Field<'n> {
    pub(crate) fn root(node: &'n Node) -> Self {
        Self { node, path: String::new() }
    }

    pub(crate) fn line(&self) -> usize {
        self.node.line
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The refusal of this value.
    pub(crate) fn wrong(&self, expected: impl Into<String>) -> Fault {
        Fault::Value {
            line: self.node.line,
            key: self.path.clone(),
            given: shown(self.node),
            expected: expected.into(),
        }
    }

    fn scalar(&self) -> Option<&'n serde_json::Value> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::List(_) | Value::Object(_) => None,
        }
    }

    pub(crate) fn is_object(&self) -> bool {
        matches!(self.node.value, Value::Object(_))
    }

    pub(crate) fn is_null(&self) -> bool {
        self.scalar().is_some_and(serde_json::Value::is_null)
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    /// A string without NUL bytes.
    pub(crate) fn text(&self) -> Result<&'n str, Fault> {
        let text = self.scalar().and_then(serde_json::Value::as_str);
        let text = text.ok_or_else(|| self.wrong("a string"))?;
        if text.contains('\0') {
            return Err(self.wrong("a string without NUL bytes"));
        }
        Ok(text)
    }

    pub(crate) fn nonempty(&self) -> Result<String, Fault> {
        match self.text()? {
            "" => Err(self.wrong("a string that is not empty")),
            text => Ok(text.to_owned()),
        }
    }

    pub(crate) fn boolean(&self) -> Result<bool, Fault> {
        let boolean = self.scalar().and_then(serde_json::Value::as_bool);
        boolean.ok_or_else(|| self.wrong("`true` or `false`"))
    }

    /// A whole number from `least` to `most`.
    pub(crate) fn integer(&self, least: u32, most: u32) -> Result<u32, Fault> {
        let number = self.scalar().and_then(serde_json::Value::as_u64);
        number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| self.wrong(format!("a whole number from {least} to {most}")))
    }

    /// A whole number of 64 bits, without a sign.
    pub(crate) fn unsigned(&self) -> Result<u64, Fault> {
        let number = self.scalar().and_then(serde_json::Value::as_u64);
        number.ok_or_else(|| self.wrong(format!("a whole number from 0 to {}", u64::MAX)))
    }

    pub(crate) fn seconds(&self, least: u32) -> Result<Duration, Fault> {
        let most = i32::MAX.unsigned_abs();
        match self.integer(least, most) {
            Ok(seconds) => Ok(Duration::from_secs(u64::from(seconds))),
            Err(_) => Err(self.wrong(format!("a whole number of seconds, at least {least}"))),
        }
    }

    /// Bytes: a number, or as [`parse_size`] reads it.
    pub(crate) fn size(&self) -> Result<u64, Fault> {
        let bytes = match self.scalar() {
            Some(serde_json::Value::Number(number)) => number.as_u64(),
            Some(serde_json::Value::String(text)) => parse_size(text),
            _ => None,
        };
        bytes.ok_or_else(|| self.wrong("a number of bytes or a string like \"512MiB\""))
    }

    pub(crate) fn absolute(&self) -> Result<PathBuf, Fault> {
        let text = self.text().map_err(|_fault| self.wrong("an absolute path"))?;
        if !text.starts_with('/') {
            return Err(self.wrong("an absolute path"));
        }
        Ok(PathBuf::from(text))
    }

    /// The value that belongs to the string given.
    pub(crate) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Fault> {
        let text = self.scalar().and_then(serde_json::Value::as_str);
        let choice = choices.iter().find(|(name, _)| Some(*name) == text);
        choice.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<String> =
                choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            let one_of = if names.len() > 1 { "one of " } else { "" };
            self.wrong(format!("{one_of}{}", names.join(", ")))
        })
    }

    pub(crate) fn list(&self) -> Result<Vec<Self>, Fault> {
        let Value::List(nodes) = &self.node.value else {
            return Err(self.wrong("a list"));
        };
        let item = |(index, node)| Self { node, path: format!("{}[{index}]", self.path) };
        Ok(nodes.iter().enumerate().map(item).collect())
    }

    /// Each item of a list, read by `read`.
    pub(crate) fn list_of<T>(
        &self,
        read: impl Fn(&Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        self.list()?.iter().map(read).collect()
    }

    /// The members of an object whose keys are free.
    pub(crate) fn map(&self) -> Result<Vec<(&'n str, Self)>, Fault> {
        let Value::Object(members) = &self.node.value else {
            return Err(self.wrong("an object"));
        };
        let field = |key: &str, node| Self { node, path: below(&self.path, key) };
        Ok(members.iter().map(|m| (m.key.as_str(), field(&m.key, &m.node))).collect())
    }

    /// The members of an object that may have the keys in `known`.
    pub(crate) fn object(&self, known: &[&str]) -> Result<Object<'n>, Fault> {
        if let Value::Object(members) = &self.node.value
            && let Some(stranger) = members.iter().find(|m| !known.contains(&m.key.as_str()))
        {
            return Err(Fault::UnknownKey {
                line: stranger.line,
                key: below(&self.path, &stranger.key),
                nearest: nearest(&stranger.key, known).map(|key| below(&self.path, key)),
            });
        }
        Ok(Object { line: self.node.line, path: self.path.clone(), members: self.map()? })
    }
}

impl<'n> Object<'n> {
    pub(crate) fn members(&self) -> &[(&'n str, Field<'n>)] {
        &self.members
    }

    pub(crate) fn optional(&self, key: &str) -> Option<&Field<'n>> {
        self.members.iter().find(|(name, _)| *name == key).map(|(_, field)| field)
    }

    pub(crate) fn required(&self, key: &str) -> Result<&Field<'n>, Fault> {
        let missing = || Fault::Missing { line: self.line, key: below(&self.path, key) };
        self.optional(key).ok_or_else(missing)
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A scalar as JSON, shortened; of the others the type.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::List(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Scalar(scalar) => {
            let text = scalar.to_string();
            match text.char_indices().nth(GIVEN_MAX) {
                Some((end, _)) => format!("{}...", &text[..end]),
                None => text,
            }
        }
    }
}

/// Bytes from a text like `4096`, `512MiB` or `2 GiB`: a whole number, then `B`, `KiB`, `MiB`,
/// `GiB` or `TiB` (`K`, `M`, `G`, `T` for short, powers of 1024 all), in any case. None where it is
/// something else or exceeds 64 bits.
pub fn parse_size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}
