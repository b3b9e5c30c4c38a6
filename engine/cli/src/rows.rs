//! Lines as `ls -l` has them: columns, permissions, times.

use sarus_image::squash::{Inode, InodeKind};

use crate::error::CliError;
use crate::output::Lines;

/// Entries whose columns are made as wide as the widest of them; more are not kept at once.
const ALIGNED: usize = 1024;

/// A line.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) columns: [String; 6],
    pub(crate) name: Vec<u8>,
    pub(crate) target: Option<Vec<u8>>,
}

/// Lines that are aligned with each other.
pub(crate) struct Page {
    long: bool,
    rows: Vec<Row>,
}

impl Page {
    pub(crate) fn new(long: bool) -> Self {
        Self { long, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row, lines: &mut Lines) -> Result<(), CliError> {
        self.rows.push(row);
        if self.rows.len() < ALIGNED { Ok(()) } else { self.end(lines) }
    }

    pub(crate) fn end(&mut self, lines: &mut Lines) -> Result<(), CliError> {
        let mut widths = [0; 6];
        for row in &self.rows {
            for (width, text) in widths.iter_mut().zip(&row.columns) {
                *width = text.chars().count().max(*width);
            }
        }
        for row in self.rows.drain(..) {
            if self.long {
                for (number, (text, width)) in row.columns.iter().zip(widths).enumerate() {
                    // Numbers to the right, words to the left.
                    lines.put(match number {
                        1 | 4 => format!("{text:>width$} "),
                        _ => format!("{text:<width$} "),
                    })?;
                }
            }
            lines.name(&row.name)?;
            if let Some(target) = row.target {
                lines.put(" -> ")?;
                lines.name(&target)?;
            }
            lines.put("\n")?;
        }
        Ok(())
    }
}

/// As `ls -l`: `drwxr-xr-x`.
pub(crate) fn permissions(inode: &Inode) -> String {
    let kind = match inode.kind {
        InodeKind::Directory(_) => 'd',
        InodeKind::File(_) => '-',
        InodeKind::Symlink(_) => 'l',
        InodeKind::CharDevice { .. } => 'c',
        InodeKind::BlockDevice { .. } => 'b',
        InodeKind::Fifo => 'p',
        InodeKind::Socket => 's',
    };
    let mut text = String::from(kind);
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = inode.mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (bits & 1 != 0, inode.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// `2020-09-13 12:26`, UTC.
pub(crate) fn time(mtime: u32) -> String {
    jiff::Timestamp::from_second(i64::from(mtime)).map_or_else(
        |_never| mtime.to_string(),
        |time| time.to_string().get(..16).unwrap_or_default().replace('T', " "),
    )
}
