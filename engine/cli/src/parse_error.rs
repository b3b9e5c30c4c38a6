//! The parser's errors in the words and the form of all others. Pure.

use clap::error::ErrorKind;

/// The lines of a refused command line. `command` is the subcommand in it, if there is one.
pub fn report(error: &clap::Error, command: Option<&str>) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return error.render().to_string();
    }
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let what = paragraphs.next().unwrap_or_default().trim_end().replace('\'', "`");
    let tip = paragraphs
        .filter_map(|paragraph| paragraph.trim_start().strip_prefix("tip: "))
        .find(|tip| tip.contains("similar"))
        .and_then(|tip| tip.lines().next())
        .map(|tip| format!("{}; ", tip.trim_end().replace('\'', "`")))
        .unwrap_or_default();
    let help = command.map_or_else(|| "sarus help".to_owned(), |name| format!("sarus help {name}"));
    format!("{what}\nhint: {tip}`{help}` describes what there is\n")
}
