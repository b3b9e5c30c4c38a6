//! The names that an image's own `passwd` and `group` give to numbers.

use std::collections::HashMap;
use std::sync::Arc;

use sarus_image::squash::browse::{Last, find};
use sarus_image::squash::{ContentReader, ImageReader, InodeKind, Piece, ReadError};

/// Longest file that is read, in bytes: who has more sees numbers.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// Names by number; numbers that have none stay numbers.
#[derive(Debug, Default)]
pub(crate) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// Those of an image. Files that cannot be read give none.
    pub(crate) fn of_image(reader: &mut ImageReader<'_>) -> Self {
        Self { users: names(reader, b"/etc/passwd"), groups: names(reader, b"/etc/group") }
    }

    pub(crate) fn user(&self, uid: u32) -> String {
        self.users.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    pub(crate) fn group(&self, gid: u32) -> String {
        self.groups.get(&gid).cloned().unwrap_or_else(|| gid.to_string())
    }
}

fn names(reader: &mut ImageReader<'_>, path: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in read(reader, path).unwrap_or_default().lines() {
        let mut fields = line.split(':');
        let name =
            fields.next().filter(|name| !name.is_empty() && !name.contains(char::is_control));
        let number = fields.nth(1).and_then(|field| field.parse().ok());
        if let (Some(name), Some(number)) = (name, number) {
            // Of several names the first counts, as for the system.
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

fn read(reader: &mut ImageReader<'_>, path: &[u8]) -> Option<String> {
    let found = find(reader, path, Last::Follow).ok()?;
    let InodeKind::File(place) = &found.inode.kind else { return None };
    if place.size > FILE_SIZE_MAX {
        return None;
    }
    let mut text = Vec::new();
    let mut contents = ContentReader::new(reader.image(), Arc::default()).ok()?;
    contents
        .read(place, |piece| {
            match piece {
                Piece::Data(data) => text.extend_from_slice(data),
                Piece::Hole(length) => {
                    text.resize(text.len() + usize::try_from(length).unwrap_or(0), 0);
                }
            }
            Ok::<_, ReadError>(())
        })
        .ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
