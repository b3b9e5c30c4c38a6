//! `sarus run --explain`: the shim's answer, for people.

use std::fmt::Write;

use serde_json::Value;

use crate::args::ReportFormat;
use crate::error::CliError;
use crate::output::{self, table};

/// Prints an answer of the shim's.
pub(crate) fn print(answer: &[u8], format: ReportFormat) -> Result<(), CliError> {
    let answer: Value =
        serde_json::from_slice(answer).map_err(|error| CliError::output(error.into()))?;
    match format {
        ReportFormat::Json => output::json(&answer),
        ReportFormat::Text => output::text(&text(&answer)),
    }
}

/// The sections of an explanation, each a heading and a table or lines.
pub fn text(answer: &Value) -> String {
    let mut text = head(answer);
    for (name, title, columns) in [
        ("namespaces", "Namespaces", &["kind", "value", "reason"][..]),
        ("mounts", "Mounts", &["destination", "source", "access", "origin", "reason"]),
        ("devices", "Devices", &["destination", "source", "origin", "reason"]),
        ("environment", "Environment", &["name", "value", "origin", "hook"]),
    ] {
        let header: Vec<String> = columns.iter().map(|column| column.to_uppercase()).collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        text.push_str(&format!("\n{title}\n{}", table(&header, &rows(&answer[name], columns))));
    }
    hooks(&mut text, &answer["hooks"]);
    text
}

fn head(answer: &Value) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _never_fails = writeln!(text, "{name:<9}{value}");
    };
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let image = &answer["image"];
    let digest = image["digest"].as_str().map_or(String::new(), |digest| format!(" ({digest})"));
    line("Image", &format!("{}{digest}", word(&image["name"])));
    line("", &format!("{}, mounted by {}", word(&image["file"]), word(&image["mountedBy"])));
    let because =
        |value: &Value, of: &str| format!("{}: {}", word(&value[of]), word(&value["reason"]));
    line("Mode", &because(&answer["mode"], "value"));
    line("Runtime", &because(&answer["runtime"], "path"));
    line("Command", &format!("{} in {}", word(&answer["command"]), word(&answer["workdir"])));
    let user = &answer["user"];
    let ids = [&user["uid"], &user["gid"], &user["groups"]].map(word);
    line("User", &format!("uid {}, gid {}, groups {}", ids[0], ids[1], ids[2]));
    for (name, value) in answer["restrictions"].as_object().into_iter().flatten() {
        if !value.is_null() {
            line("", &format!("{name}: {}", word(value)));
        }
    }
    text
}

fn rows(list: &Value, columns: &[&str]) -> Vec<Vec<String>> {
    let cell = |entry: &Value, column: &str| match (column, &entry[column]) {
        ("access", _) if entry["readOnly"] == true => "read-only".to_owned(),
        ("access", _) => "read-write".to_owned(),
        ("reason", Value::String(reason)) if entry["replaces"] == true => {
            format!("{reason} (in place of the image's)")
        }
        (_, Value::String(text)) => text.clone(),
        _ => String::new(),
    };
    let entries = list.as_array().into_iter().flatten();
    entries.map(|entry| columns.iter().map(|column| cell(entry, column)).collect()).collect()
}

fn hooks(text: &mut String, list: &Value) {
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line("\nHooks".to_owned());
    for hook in list.as_array().into_iter().flatten() {
        let word = |name: &str| hook[name].as_str().unwrap_or_default();
        let verb = if hook["runs"] == true { "runs" } else { "does not run" };
        line(format!("{} {verb}: {}", word("name"), word("reason")));
        let stages: Vec<&str> =
            hook["stages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        line(format!("  {} at {}, from {}", word("program"), stages.join(", "), word("file")));
        for said in ["note", "problem"] {
            if let Some(words) = hook[said].as_str() {
                line(format!("  {said}: {}", words.replace('\n', "\n    ")));
            }
        }
        let plan = &hook["plan"];
        for step in plan["steps"].as_array().into_iter().flatten() {
            line(format!("  - {}", step_in_words(step)));
        }
        for note in plan["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            line(format!("  note: {note}"));
        }
    }
}

/// A step of a plan: its kind, what it names, and why.
fn step_in_words(step: &Value) -> String {
    let mut words = step["do"].as_str().unwrap_or("?").to_owned();
    for (name, value) in step.as_object().into_iter().flatten() {
        if !["do", "reason"].contains(&name.as_str()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _never_fails = write!(words, " {name}={value}");
        }
    }
    format!("{words}: {}", step["reason"].as_str().unwrap_or("no reason given"))
}
