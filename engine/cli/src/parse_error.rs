//! The parser's errors in the words and the form of all others. Pure.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::foreign;

/// The lines of a refused command line. `command` is the subcommand in it, if there is one.
pub fn report(error: &clap::Error, command: Option<&str>) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return error.render().to_string();
    }
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let what = paragraphs.next().unwrap_or_default().trim_end().replace('\'', "`");
    if let Some(advice) = advice(error, command) {
        return format!("{what}\nhint: {advice}\n");
    }
    let tip = paragraphs
        .filter_map(|paragraph| paragraph.trim_start().strip_prefix("tip: "))
        .find(|tip| tip.contains("similar"))
        .and_then(|tip| tip.lines().next())
        .map(|tip| format!("{}; ", tip.trim_end().replace('\'', "`")))
        .unwrap_or_default();
    let help = command.map_or_else(|| "sarus help".to_owned(), |name| format!("sarus help {name}"));
    format!("{what}\nhint: {tip}`{help}` describes what there is\n")
}

/// What takes the place of a word that other engines know.
fn advice(error: &clap::Error, command: Option<&str>) -> Option<&'static str> {
    let (kind, command) = match error.kind() {
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, Some(command?)),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, None),
        _ => return None,
    };
    match error.get(kind)? {
        ContextValue::String(word) => foreign::advice(command, word),
        _ => None,
    }
}
