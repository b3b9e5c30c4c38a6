//! Closes the gaps that contents without a name leave in the image.
//!
//! A file that a newer layer replaces or removes was written already, since layers are read as a
//! stream. What is alive moves forward, in order; nothing is done where nothing is dead.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::contents::Contents;
use super::error::WriteError;
use crate::format::NO_FRAGMENT;

/// Bytes moved at a time.
const CHUNK: usize = 1 << 20;

/// A piece of the image that belongs to one content or one fragment block.
struct Extent {
    start: u64,
    length: u64,
    owner: Owner,
}

enum Owner {
    Content(usize),
    Fragment(usize),
}

/// Moves everything that `live` contents need to the front, in place, and cuts the file there.
/// Fragment blocks with no live tail go; those that stay are numbered again.
pub(super) fn squeeze(contents: &mut Contents, live: &[bool], from: u64) -> Result<(), WriteError> {
    let kept = live_fragments(contents, live);
    let mut extents = live_extents(contents, live, &kept);
    extents.sort_by_key(|extent| extent.start);
    let mut target = from;
    let mut run = Run { start: from, target: from, length: 0 };
    for extent in &extents {
        if run.start + run.length != extent.start {
            run.move_down(&contents.file)?;
            run = Run { start: extent.start, target, length: 0 };
        }
        run.length += extent.length;
        match extent.owner {
            Owner::Content(index) => contents.list[index].start = target,
            Owner::Fragment(index) => contents.fragments[index].start = target,
        }
        target += extent.length;
    }
    run.move_down(&contents.file)?;
    contents.position = target;
    renumber_fragments(contents, &kept);
    Ok(())
}

fn live_fragments(contents: &Contents, live: &[bool]) -> Vec<bool> {
    let mut kept = vec![false; contents.fragments.len()];
    for (content, _live) in contents.list.iter().zip(live).filter(|(_content, live)| **live) {
        if let Some(kept) = kept.get_mut(content.fragment as usize) {
            *kept = true;
        }
    }
    kept
}

fn live_extents(contents: &Contents, live: &[bool], kept: &[bool]) -> Vec<Extent> {
    let data = contents.list.iter().zip(live).enumerate();
    let data = data.filter(|(_index, (content, live))| **live && content.start > 0);
    let data = data.map(|(index, (content, _live))| Extent {
        start: content.start,
        length: contents.stored(content),
        owner: Owner::Content(index),
    });
    let tails =
        contents.fragments.iter().zip(kept).enumerate().filter(|(_index, (_, kept))| **kept);
    let tails = tails.map(|(index, (fragment, _kept))| Extent {
        start: fragment.start,
        length: fragment.stored(),
        owner: Owner::Fragment(index),
    });
    data.chain(tails).collect()
}

fn renumber_fragments(contents: &mut Contents, kept: &[bool]) {
    let mut numbers = Vec::with_capacity(kept.len());
    let mut next = 0;
    for &kept in kept {
        numbers.push(if kept { next } else { NO_FRAGMENT });
        next += u32::from(kept);
    }
    for content in &mut contents.list {
        if let Some(&number) = numbers.get(content.fragment as usize) {
            content.fragment = number;
        }
    }
    let mut kept = kept.iter();
    contents.fragments.retain(|_fragment| kept.next().is_some_and(|&kept| kept));
}

/// Bytes that move together.
struct Run {
    start: u64,
    target: u64,
    length: u64,
}

impl Run {
    /// Forward in chunks, so that an overlap does no harm: the target is before the start.
    fn move_down(&self, file: &File) -> Result<(), WriteError> {
        if self.start == self.target || self.length == 0 {
            return Ok(());
        }
        let size = usize::try_from(self.length).unwrap_or(usize::MAX).min(CHUNK);
        let mut chunk = vec![0; size];
        let mut moved = 0;
        while moved < self.length {
            let left = usize::try_from(self.length - moved).unwrap_or(usize::MAX);
            let chunk = &mut chunk[..left.min(size)];
            let offset = self.start + moved;
            file.read_exact_at(chunk, offset)
                .map_err(|source| WriteError::Read { offset, source })?;
            let offset = self.target + moved;
            file.write_all_at(chunk, offset)
                .map_err(|source| WriteError::Write { offset, source })?;
            moved += chunk.len() as u64;
        }
        Ok(())
    }
}
