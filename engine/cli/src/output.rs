//! Writes results to standard output: text, tables, JSON.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::error::CliError;

/// Blanks between two columns.
const GAP: usize = 3;

/// Writes a text as it is.
///
/// # Errors
///
/// [`CliError::Output`]
pub fn text(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::output)
}

/// Writes a value as indented JSON.
///
/// # Errors
///
/// [`CliError::Output`]
pub fn json<T: Serialize>(value: &T) -> Result<(), CliError> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::output(io::Error::from(error)))?;
    text(&format!("{json}\n"))
}

/// A table: columns as wide as their widest cell, the last one without blanks behind it.
pub fn table<T: AsRef<str>>(header: &[&str], rows: &[Vec<T>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| width(cell)).collect();
    for row in rows {
        for (column, cell) in widths.iter_mut().zip(row) {
            *column = width(cell.as_ref()).max(*column);
        }
    }
    let mut text = String::new();
    line(&mut text, header, &widths);
    for row in rows {
        line(&mut text, row, &widths);
    }
    text
}

fn line<T: AsRef<str>>(text: &mut String, cells: &[T], widths: &[usize]) {
    let start = text.len();
    for (cell, column) in cells.iter().zip(widths) {
        let cell = cell.as_ref();
        text.push_str(cell);
        text.extend(blanks(column + GAP - width(cell)));
    }
    text.truncate(start + text[start..].trim_end().len());
    text.push('\n');
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

fn blanks(count: usize) -> impl Iterator<Item = &'static str> {
    const BLANKS: &str = "                                ";
    let whole = std::iter::repeat_n(BLANKS, count / BLANKS.len());
    whole.chain([&BLANKS[..count % BLANKS.len()]])
}

/// Where lines go that are not kept until all are known: a buffered standard output. Names from
/// images are written as they are, but on a terminal, which they could steer, without control
/// characters and bytes that are no text: those are `?`.
#[derive(Debug)]
pub struct Lines {
    out: io::BufWriter<io::StdoutLock<'static>>,
    is_terminal: bool,
}

impl Default for Lines {
    fn default() -> Self {
        let stdout = io::stdout().lock();
        let is_terminal = stdout.is_terminal();
        Self { out: io::BufWriter::with_capacity(64 << 10, stdout), is_terminal }
    }
}

impl Lines {
    /// Writes text of our own, or the bytes of a file.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`]
    pub fn put(&mut self, text: impl AsRef<[u8]>) -> Result<(), CliError> {
        self.out.write_all(text.as_ref()).map_err(CliError::output)
    }

    /// Writes a name that an image has.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`]
    pub fn name(&mut self, name: &[u8]) -> Result<(), CliError> {
        if self.is_terminal { self.put(visible(name)) } else { self.put(name) }
    }

    /// Writes what is buffered; before this, the end of a program may lose it.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`]
    pub fn end(mut self) -> Result<(), CliError> {
        self.out.flush().map_err(CliError::output)
    }
}

/// A name as a terminal may have it.
pub fn visible(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    text.chars().map(|c| if c.is_control() || c == '\u{fffd}' { '?' } else { c }).collect()
}

/// A JSON array that is written record by record.
#[derive(Debug, Default)]
pub struct Records {
    lines: Lines,
    count: usize,
}

impl Records {
    /// Writes one record.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`]
    pub fn put<T: Serialize>(&mut self, record: &T) -> Result<(), CliError> {
        let json = serde_json::to_string(record)
            .map_err(|error| CliError::output(io::Error::from(error)))?;
        self.lines.put(if self.count == 0 { "[\n  " } else { ",\n  " })?;
        self.count += 1;
        self.lines.put(json)
    }

    /// Ends the array.
    ///
    /// # Errors
    ///
    /// [`CliError::Output`]
    pub fn end(mut self) -> Result<(), CliError> {
        self.lines.put(if self.count == 0 { "[]\n" } else { "\n]\n" })?;
        self.lines.end()
    }
}

/// Bytes for people, in powers of 1000 as Docker shows them: `117MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

/// The first twelve digits of an id, as Docker shows it.
pub fn short_id(hex: &str) -> &str {
    &hex[..hex.len().min(12)]
}

/// How long ago a time was, in the largest unit that is at least two: `3 weeks ago`.
pub fn ago(seconds: i64) -> String {
    const UNITS: [(i64, &str); 7] = [
        (365 * 86_400, "years"),
        (30 * 86_400, "months"),
        (7 * 86_400, "weeks"),
        (86_400, "days"),
        (3600, "hours"),
        (60, "minutes"),
        (1, "seconds"),
    ];
    for (length, unit) in UNITS {
        if seconds >= 2 * length {
            return format!("{} {unit} ago", seconds / length);
        }
    }
    "just now".to_owned()
}
