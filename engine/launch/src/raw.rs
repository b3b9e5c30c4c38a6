//! Strings of the kernel's kind (any bytes but NUL) in JSON.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An argument, variable or path: any bytes. In JSON a string where the bytes are UTF-8, else
/// an array of numbers, so that nothing a shell can pass is lost on the way.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct RawString(OsString);

impl RawString {
    /// The bytes as they are.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text, where the bytes are UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        self.0.to_str()
    }

    /// As the standard library's functions for paths and processes take it.
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// For messages, and for the bundle, whose JSON holds nothing but Unicode.
    pub fn to_string_lossy(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

impl std::fmt::Debug for RawString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Into<OsString>> From<T> for RawString {
    fn from(given: T) -> Self {
        Self(given.into())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Json {
    Text(String),
    Bytes(Vec<u8>),
}

impl Serialize for RawString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_str() {
            Some(text) => serializer.serialize_str(text),
            None => Json::Bytes(self.as_bytes().to_vec()).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for RawString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = match Json::deserialize(deserializer)? {
            Json::Text(text) => text.into_bytes(),
            Json::Bytes(bytes) => bytes,
        };
        if bytes.contains(&0) {
            return Err(serde::de::Error::custom("a string with a NUL byte"));
        }
        Ok(Self(OsString::from_vec(bytes)))
    }
}
