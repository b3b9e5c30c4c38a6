//! Names: `vendor.com/class=device`, and the names of annotations.

use std::collections::BTreeMap;
use std::fmt;

/// Longest vendor, a DNS subdomain.
const VENDOR_MAX: usize = 253;

/// Longest class, and longest name of an annotation behind its `/`.
const SEGMENT_MAX: usize = 63;

/// Most that the annotations of an object may take, names and values together, in bytes.
const ANNOTATIONS_SIZE_MAX: usize = 256 << 10;

/// A fully qualified device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DeviceName {
    pub(crate) vendor: String,
    pub(crate) class: String,
    pub(crate) device: String,
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}={}", self.vendor, self.class, self.device)
    }
}

impl DeviceName {
    /// Parses `vendor.com/class=device`. The error says in words what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (kind, device) =
            text.split_once('=').ok_or("expected `vendor.com/class=device`".to_owned())?;
        let (vendor, class) = parse_kind(kind)?;
        check_device(device)?;
        let owned = str::to_owned;
        Ok(Self { vendor: owned(vendor), class: owned(class), device: owned(device) })
    }

    /// `vendor.com/class`
    pub(crate) fn kind(&self) -> String {
        format!("{}/{}", self.vendor, self.class)
    }
}

/// Splits `vendor.com/class`.
pub(crate) fn parse_kind(kind: &str) -> Result<(&str, &str), String> {
    let (vendor, class) =
        kind.split_once('/').ok_or(format!("`{kind}` is no kind: expected `vendor.com/class`"))?;
    check_word("vendor", vendor, "_-.", VENDOR_MAX)?;
    if vendor.contains("..") {
        return Err(format!("the vendor `{vendor}` has an empty label"));
    }
    check_word("class", class, "_-.", SEGMENT_MAX)?;
    Ok((vendor, class))
}

/// Checks the name of a device in its specification.
pub(crate) fn check_device(name: &str) -> Result<(), String> {
    check_word("device", name, "_-.:", usize::MAX)
}

/// Letters and digits, and `others` between them.
fn check_word(what: &str, word: &str, others: &str, max: usize) -> Result<(), String> {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if word.is_empty() {
        return Err(format!("the {what} is empty"));
    }
    if word.len() > max {
        return Err(format!("the {what} has {} characters, at most {max} are allowed", word.len()));
    }
    if !ends(word.chars().next()) || !ends(word.chars().next_back()) {
        return Err(format!("the {what} `{word}` must begin and end with a letter or a digit"));
    }
    match word.chars().find(|c| !c.is_ascii_alphanumeric() && !others.contains(*c)) {
        Some(bad) => Err(format!("the {what} `{word}` must not contain {bad:?}")),
        None => Ok(()),
    }
}

/// Checks annotations of a specification: names as those of Kubernetes, and their size.
pub(crate) fn check_annotations(annotations: &BTreeMap<String, String>) -> Result<(), String> {
    annotations.keys().try_for_each(|name| check_annotation(name))?;
    let size: usize = annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
    if size > ANNOTATIONS_SIZE_MAX {
        return Err(format!("{size} bytes, at most {ANNOTATIONS_SIZE_MAX} are allowed"));
    }
    Ok(())
}

/// Checks `[prefix/]name`.
pub(crate) fn check_annotation(name: &str) -> Result<(), String> {
    let (prefix, rest) = match name.split_once('/') {
        Some((prefix, rest)) => (Some(prefix), rest),
        None => (None, name),
    };
    if let Some(prefix) = prefix {
        check_word("prefix", prefix, "-.", VENDOR_MAX)?;
        let is_label = |label: &str| check_word("prefix", label, "-", SEGMENT_MAX).is_ok();
        if !prefix.split('.').all(is_label) {
            return Err(format!("the prefix `{prefix}` is no DNS subdomain"));
        }
    }
    check_word("name", rest, "_-.", SEGMENT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_a_vendor_a_class_and_a_name() {
        let long = format!("v.com/{}=a", "c".repeat(64));
        let cases = [
            ("nvidia.com/gpu=0", true),
            ("nvidia.com/gpu=GPU-5b0c:1", true),
            ("foo.bar.baz/foo-bar123.B_az=all", true),
            ("hpe.com/cxi=all", true),
            ("nvidia.com/gpu", false),
            ("gpu=0", false),
            ("/dev/null", false),
            ("v.com/a/b=0", false),
            ("v.com/=0", false),
            ("/gpu=0", false),
            ("v.com/gpu=", false),
            ("v.com/gpu=-1", false),
            ("v.com/gpu=1-", false),
            ("v.com/gpu=a=b", false),
            ("v.com/gpu=a b", false),
            ("-v.com/gpu=0", false),
            ("v..com/gpu=0", false),
            ("v.com/gpu:x=0", false),
            ("v.com/gpu=0,v.com/gpu=1", false),
            ("vénd.com/gpu=0", false),
            (&long, false),
            ("", false),
        ];
        for (text, ok) in cases {
            let parsed = DeviceName::parse(text);
            assert_eq!(parsed.is_ok(), ok, "{text}: {parsed:?}");
            if let Ok(name) = parsed {
                assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn annotations_are_named_as_those_of_kubernetes() {
        let long = "n".repeat(64);
        let cases = [
            ("name", true),
            ("vendor.com/name_with.all-three", true),
            ("vendor.com/", false),
            ("/name", false),
            ("vendor_x.com/name", false),
            ("a/b/c", false),
            ("-a", false),
            ("", false),
            (&long, false),
        ];
        for (name, ok) in cases {
            assert_eq!(check_annotation(name).is_ok(), ok, "{name}");
        }
        let large = BTreeMap::from([("a".to_owned(), "x".repeat(ANNOTATIONS_SIZE_MAX))]);
        assert!(check_annotations(&large).unwrap_err().contains("bytes"));
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        let cases = [
            ("gpu=0", "`gpu` is no kind: expected `vendor.com/class`"),
            ("v.com/g u=0", "the class `g u` must not contain ' '"),
            ("v.com/gpu=", "the device is empty"),
            ("v.com/gpu=_", "the device `_` must begin and end with a letter or a digit"),
        ];
        for (text, want) in cases {
            assert_eq!(DeviceName::parse(text).unwrap_err(), want);
        }
    }
}
