//! JSON read strictly: an object with a key twice is refused, and so is a key nobody asked for.
//!
//! Two programs that read one text must not see two policies, or two payloads.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool,
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Object(BTreeMap<String, Node>),
}

/// What is wrong with a value, and where in the document it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Keys from the top: `transports.docker."a.org/b"[0]`; empty for the document itself.
    pub(crate) at: String,
    pub(crate) what: String,
}

impl Fault {
    pub(crate) fn new(at: &str, what: impl Into<String>) -> Self {
        Self { at: at.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at.is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "`{}`: {}", self.at, self.what)
    }
}

/// The keys of an object; each is taken once, and none may be left.
#[derive(Debug)]
pub(crate) struct Fields {
    at: String,
    entries: BTreeMap<String, Node>,
}

impl Fields {
    pub(crate) fn of(node: Node, at: &str) -> Result<Self, Fault> {
        match node {
            Node::Object(entries) => Ok(Self { at: at.to_owned(), entries }),
            other => Err(Fault::new(at, format!("expected an object, got {}", other.kind()))),
        }
    }

    /// Where a value of this object is.
    pub(crate) fn place(&self, key: &str) -> String {
        let plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let key = if plain && !key.is_empty() { key.to_owned() } else { format!("{key:?}") };
        if self.at.is_empty() { key } else { format!("{}.{key}", self.at) }
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        self.entries.remove(key)
    }

    pub(crate) fn need(&mut self, key: &str) -> Result<Node, Fault> {
        self.take(key).ok_or_else(|| Fault::new(&self.at, format!("the key `{key}` is missing")))
    }

    /// A text that is not empty, if the key is there.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, Fault> {
        let at = self.place(key);
        self.take(key).map(|node| node.text(&at)).transpose()
    }

    pub(crate) fn need_text(&mut self, key: &str) -> Result<String, Fault> {
        let at = self.place(key);
        self.need(key)?.text(&at)
    }

    /// Texts that are not empty, at least one, if the key is there.
    pub(crate) fn texts(&mut self, key: &str) -> Result<Option<Vec<String>>, Fault> {
        let at = self.place(key);
        let Some(node) = self.take(key) else { return Ok(None) };
        let texts: Vec<String> = (node.list(&at)?.into_iter().enumerate())
            .map(|(number, node)| node.text(&format!("{at}[{number}]")))
            .collect::<Result<_, _>>()?;
        if texts.is_empty() { Err(Fault::new(&at, "the list is empty")) } else { Ok(Some(texts)) }
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> BTreeMap<String, Node> {
        std::mem::take(&mut self.entries)
    }

    pub(crate) fn end(self) -> Result<(), Fault> {
        match self.entries.keys().next() {
            None => Ok(()),
            Some(key) => Err(Fault::new(&self.at, format!("unknown key `{key}`"))),
        }
    }
}

impl Node {
    /// Parses a document. The error has the line and the column.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    pub(crate) fn text(self, at: &str) -> Result<String, Fault> {
        match self {
            Self::Text(text) if text.is_empty() => Err(Fault::new(at, "the text is empty")),
            Self::Text(text) => Ok(text),
            other => Err(Fault::new(at, format!("expected a text, got {}", other.kind()))),
        }
    }

    pub(crate) fn list(self, at: &str) -> Result<Vec<Self>, Fault> {
        match self {
            Self::List(list) => Ok(list),
            other => Err(Fault::new(at, format!("expected a list, got {}", other.kind()))),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a truth value",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Node, E> {
        Ok(Node::Bool)
    }

    #[expect(clippy::cast_precision_loss, reason = "compared with whole numbers only")]
    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "compared with whole numbers only")]
    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut object = BTreeMap::new();
        while let Some(key) = items.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is there twice")));
            }
            object.insert(key, items.next_value()?);
        }
        Ok(Node::Object(object))
    }
}
