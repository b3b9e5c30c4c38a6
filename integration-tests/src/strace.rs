//! Reads what `strace -f -xx` writes.

use std::collections::BTreeMap;

/// A system call that has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments as written.
    pub arguments: Vec<String>,
    /// What it returned; negative for an error.
    pub result: i64,
}

impl Call {
    /// An argument as written; empty when there is none.
    pub fn text(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", String::as_str)
    }

    /// An argument that is a number.
    pub fn number(&self, index: usize) -> i64 {
        self.text(index).parse().unwrap_or(-1)
    }

    /// An argument that is a string, without quotes and escapes.
    pub fn bytes(&self, index: usize) -> Vec<u8> {
        let text = self.text(index);
        assert!(!text.ends_with("..."), "the trace cuts strings: {}", self.name);
        let digits = text.trim_matches('"').split("\\x").skip(1);
        digits.map(|hex| u8::from_str_radix(hex, 16).expect("two digits")).collect()
    }
}

/// The calls of a trace of any number of threads, in the order in which they returned.
pub fn calls(trace: &str) -> Vec<Call> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, start);
        } else if let Some(end) = rest.strip_prefix("<... ") {
            let (Some(start), Some((_, end))) = (begun.remove(pid), end.split_once(" resumed>"))
            else {
                continue;
            };
            calls.extend(parse(&format!("{start}{end}")));
        } else {
            calls.extend(parse(rest));
        }
    }
    calls
}

fn parse(line: &str) -> Option<Call> {
    let (call, result) = line.rsplit_once(" = ")?;
    let (name, arguments) = call.trim_end().strip_suffix(')')?.split_once('(')?;
    let result = result.split([' ', '<']).next()?.parse().ok()?;
    // With every byte escaped there is no comma in a string.
    let arguments = arguments.split(", ").map(str::to_owned).collect();
    Some(Call { name: name.to_owned(), arguments, result })
}
