//! JSON with the line of every key and value, so that a refusal can point at its cause.
//!
//! `serde_json` does all the parsing; lines come from where its raw values lie in the text. Knows
//! nothing of what the keys mean.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::Fault;

/// The largest configuration or hook file that is read, in bytes.
pub const FILE_SIZE_MAX: usize = 1 << 20;

/// The deepest nesting of objects and lists in such a file.
pub const DEPTH_MAX: usize = 16;

/// A value and the line on which it starts, counted from 1.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// `null`, `true`, `false`, a number or a string.
    Scalar(serde_json::Value),
    List(Vec<Node>),
    Object(Vec<Member>),
}

/// A member of an object, and the line of its key.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) node: Node,
}

/// The text of a file's bytes.
pub(crate) fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        Fault::Syntax { line, reason: "the text is not UTF-8".to_owned() }
    })
}

/// Parses a whole file.
pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
    if text.len() > FILE_SIZE_MAX {
        return Err(Fault::TooLarge);
    }
    // An editor of another system may have put a byte order mark first.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| {
        // Parsed into values, the same text is refused in clearer words.
        syntax(&serde_json::from_str::<serde_json::Value>(text).err().unwrap_or(error), 1)
    })?;
    let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    let source = Source { text, newlines: newlines.map(|(offset, _)| offset).collect() };
    source.node(raw, &mut Vec::new())
}

struct Source<'a> {
    text: &'a str,
    /// Offsets of all line feeds.
    newlines: Vec<usize>,
}

impl<'a> Source<'a> {
    /// `path` is the way to `raw`, for messages; it is left as it was found, except on failure.
    fn node(&self, raw: &'a RawValue, path: &mut Vec<String>) -> Result<Node, Fault> {
        let text = raw.get();
        let start = self.offset(text);
        let line = self.line(start);
        if path.len() > DEPTH_MAX {
            return Err(Fault::TooDeep { line, key: key_path(path) });
        }
        let value = match text.as_bytes().first() {
            Some(b'{') => Value::Object(self.members(text, line, path)?),
            Some(b'[') => Value::List(self.items(text, line, path)?),
            _ => Value::Scalar(serde_json::from_str(text).map_err(|error| syntax(&error, line))?),
        };
        Ok(Node { line, value })
    }

    fn items(
        &self,
        text: &'a str,
        line: usize,
        path: &mut Vec<String>,
    ) -> Result<Vec<Node>, Fault> {
        let raws: Vec<&'a RawValue> =
            serde_json::from_str(text).map_err(|error| syntax(&error, line))?;
        let mut nodes = Vec::with_capacity(raws.len());
        for (index, raw) in raws.into_iter().enumerate() {
            path.push(format!("[{index}]"));
            nodes.push(self.node(raw, path)?);
            path.pop();
        }
        Ok(nodes)
    }

    fn members(
        &self,
        text: &'a str,
        line: usize,
        path: &mut Vec<String>,
    ) -> Result<Vec<Member>, Fault> {
        let RawObject(raws) = serde_json::from_str(text).map_err(|error| syntax(&error, line))?;
        let mut members: Vec<Member> = Vec::with_capacity(raws.len());
        let mut seen = std::collections::BTreeMap::new();
        for (key, raw) in raws {
            let line = self.key_line(self.offset(raw.get()));
            path.push(key.clone());
            if let Some(first) = seen.insert(key.clone(), line) {
                return Err(Fault::Twice { line, key: key_path(path), first });
            }
            let node = self.node(raw, path)?;
            path.pop();
            members.push(Member { line, key, node });
        }
        Ok(members)
    }

    /// Where `part`, a slice of the text, starts.
    fn offset(&self, part: &str) -> usize {
        (part.as_ptr().addr()).saturating_sub(self.text.as_ptr().addr())
    }

    fn line(&self, offset: usize) -> usize {
        1 + self.newlines.partition_point(|newline| *newline < offset)
    }

    /// The line of the key whose value starts at `offset`: only white space and a colon lie
    /// between, and no key holds a line feed.
    fn key_line(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or_default();
        let key = before.trim_end_matches([' ', '\t', '\r', '\n', ':']);
        self.line(key.len())
    }
}

/// `line` is the one on which the text given to the parser starts.
fn syntax(error: &serde_json::Error, line: usize) -> Fault {
    let text = error.to_string();
    let reason = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    Fault::Syntax { line: line + error.line().saturating_sub(1), reason: reason.to_owned() }
}

/// `["siteMounts", "[0]", "type"]` as `siteMounts[0].type`.
fn key_path(parts: &[String]) -> String {
    let mut text = String::new();
    for part in parts {
        if !text.is_empty() && !part.starts_with('[') {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}

/// In the order of the file, keys given twice included.
struct RawObject<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Self)
    }
}
