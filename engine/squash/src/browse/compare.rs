//! Compares two images: what was added, changed and deleted from one to the other.

use super::content::{Comparer, Sided};
use super::walk::{Level, Met};
use super::{BrowseError, Found, Last, Visited, Walk, find};
use crate::reader::{Image, ImageReader, Inode, InodeKind, ReadError};

/// An image to be compared.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The image.
    pub image: &'a Image<'a>,
    /// The real owners by index, where the image's own table does not have them.
    pub ids: Option<&'a [u32]>,
}

/// What counts as a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompareOptions {
    /// Times of modification count.
    pub times: bool,
}

/// An entry that is not the same in both images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its path, absolute.
    pub path: Vec<u8>,
    /// What happened to it.
    pub change: Change,
}

/// What happened to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Only the second image has it. What is in an added directory is told, too.
    Added,
    /// Both have it, and these are not the same: never none.
    Changed(Vec<Aspect>),
    /// Only the first image has it. What is in a deleted directory is not told.
    Deleted,
}

/// What of an entry changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Directory, file, symbolic link, ... Then nothing else is told.
    Type,
    /// Permission bits.
    Mode,
    /// User or group.
    Owner,
    /// Bytes in a file; then its content is not compared.
    Size,
    /// The content of a file of the same size.
    Content,
    /// The target of a symbolic link.
    Target,
    /// The numbers of a device.
    Device,
    /// Extended attributes.
    Attributes,
    /// The time of modification.
    Time,
}

/// Why images could not be compared.
#[derive(Debug)]
pub enum CompareError<E> {
    /// The first image cannot be read.
    A(BrowseError),
    /// The second image cannot be read.
    B(BrowseError),
    /// What the visitor says.
    Visit(E),
}

impl<E> From<Sided<BrowseError>> for CompareError<E> {
    fn from(error: Sided<BrowseError>) -> Self {
        match error {
            Sided::A(error) => Self::A(error),
            Sided::B(error) => Self::B(error),
        }
    }
}

/// Calls `visit` for every difference, in the order of paths: a directory before what is in it.
/// Nothing is unpacked; blocks of data that are stored alike are not even decompressed.
///
/// # Errors
///
/// [`CompareError`]
pub fn compare<E>(
    a: Subject<'_>,
    b: Subject<'_>,
    options: CompareOptions,
    mut visit: impl FnMut(Difference) -> Result<(), E>,
) -> Result<(), CompareError<E>> {
    let mut sides = Sides::new(a, b, options)?;
    let root_a = sides.a.root().map_err(CompareError::A)?;
    let root_b = sides.b.root().map_err(CompareError::B)?;
    let mut step = |difference: Option<Difference>| match difference {
        Some(difference) => visit(difference).map_err(CompareError::Visit),
        None => Ok(()),
    };
    step(sides.changed(b"/", &root_a.inode, &root_b.inode)?)?;
    let mut levels = Vec::new();
    levels.extend(sides.enter(b"/", &root_a.inode, &root_b.inode));
    while let Some(level) = levels.last_mut() {
        let (of_a, of_b) = level.next(&mut sides)?;
        match (of_a, of_b) {
            (None, None) => {
                levels.pop();
            }
            (Some(gone), None) => {
                step(Some(Difference { path: gone.path, change: Change::Deleted }))?;
            }
            (None, Some(new)) => sides.added(new, &mut step)?,
            (Some(old), Some(new)) => {
                let difference = sides.changed(&old.path, &old.inode, &new.inode)?;
                step(difference)?;
                match sides.enter(&old.path, &old.inode, &new.inode) {
                    Some(level) => levels.push(level),
                    None => sides.below(new, &mut step)?,
                }
            }
        }
    }
    Ok(())
}

/// One image and its reader.
struct Side<'a> {
    reader: ImageReader<'a>,
    ids: Option<&'a [u32]>,
    met: Met,
}

impl<'a> Side<'a> {
    fn new(subject: Subject<'a>) -> Result<Self, BrowseError> {
        let reader = ImageReader::new(subject.image).map_err(BrowseError::read(b"/"))?;
        Ok(Self { reader, ids: subject.ids, met: Met::default() })
    }

    fn root(&mut self) -> Result<Found, BrowseError> {
        let root = find(&mut self.reader, b"/", Last::Keep)?;
        self.met.add(&root.path, root.reference, &root.inode)?;
        Ok(root)
    }

    fn owners(&mut self, inode: &Inode) -> Result<(u32, u32), ReadError> {
        let reader = &mut self.reader;
        Ok((reader.owner(inode.owner, self.ids)?, reader.owner(inode.group, self.ids)?))
    }

    fn next(&mut self, level: &mut Level) -> Result<Option<Visited>, BrowseError> {
        let next = level.next(&mut self.reader)?;
        if let Some(visited) = &next {
            self.met.add(&visited.path, visited.entry.inode, &visited.inode)?;
        }
        Ok(next)
    }
}

struct Sides<'a> {
    a: Side<'a>,
    b: Side<'a>,
    contents: Comparer<'a>,
    options: CompareOptions,
}

impl<'a> Sides<'a> {
    fn new(
        a: Subject<'a>,
        b: Subject<'a>,
        options: CompareOptions,
    ) -> Result<Self, Sided<BrowseError>> {
        Ok(Self {
            a: Side::new(a).map_err(Sided::A)?,
            b: Side::new(b).map_err(Sided::B)?,
            contents: Comparer::new(a.image, b.image).map_err(|error| placed(error, b"/"))?,
            options,
        })
    }

    /// Both listings of a directory; none where not both are directories.
    fn enter(&self, path: &[u8], a: &Inode, b: &Inode) -> Option<Pair> {
        let a = Level::open(&self.a.reader, path, a)?;
        let b = Level::open(&self.b.reader, path, b)?;
        Some(Pair { a, b, next_a: None, next_b: None })
    }

    /// Tells of an entry that only B has, and of all below it.
    fn added<E>(
        &mut self,
        new: Visited,
        step: &mut impl FnMut(Option<Difference>) -> Result<(), CompareError<E>>,
    ) -> Result<(), CompareError<E>> {
        step(Some(Difference { path: new.path.clone(), change: Change::Added }))?;
        self.below(new, step)
    }

    /// Tells of all below an entry that only B has as a directory.
    fn below<E>(
        &mut self,
        new: Visited,
        step: &mut impl FnMut(Option<Difference>) -> Result<(), CompareError<E>>,
    ) -> Result<(), CompareError<E>> {
        let start = Found { path: new.path, reference: new.entry.inode, inode: new.inode };
        let mut walk = Walk::new(&self.b.reader, &start).map_err(CompareError::B)?;
        while let Some(found) = walk.next(&mut self.b.reader).map_err(CompareError::B)? {
            self.b
                .met
                .add(&found.path, found.entry.inode, &found.inode)
                .map_err(CompareError::B)?;
            step(Some(Difference { path: found.path, change: Change::Added }))?;
        }
        Ok(())
    }

    /// What of an entry changed that both have.
    fn changed(
        &mut self,
        path: &[u8],
        a: &Inode,
        b: &Inode,
    ) -> Result<Option<Difference>, Sided<BrowseError>> {
        let aspects = self.aspects(a, b).map_err(|error| placed(error, path))?;
        let change = Change::Changed(aspects);
        Ok((change != Change::Changed(Vec::new()))
            .then(|| Difference { path: path.to_vec(), change }))
    }

    fn aspects(&mut self, a: &Inode, b: &Inode) -> Result<Vec<Aspect>, Sided<ReadError>> {
        let own = match (&a.kind, &b.kind) {
            (InodeKind::File(of_a), InodeKind::File(of_b)) if of_a.size != of_b.size => {
                Some(Aspect::Size)
            }
            (InodeKind::File(of_a), InodeKind::File(of_b)) => {
                (!self.contents.is_same(of_a, of_b)?).then_some(Aspect::Content)
            }
            (InodeKind::Symlink(of_a), InodeKind::Symlink(of_b)) => {
                (of_a != of_b).then_some(Aspect::Target)
            }
            (InodeKind::CharDevice { .. }, InodeKind::CharDevice { .. })
            | (InodeKind::BlockDevice { .. }, InodeKind::BlockDevice { .. }) => {
                (a.kind != b.kind).then_some(Aspect::Device)
            }
            (of_a, of_b) if std::mem::discriminant(of_a) != std::mem::discriminant(of_b) => {
                return Ok(vec![Aspect::Type]);
            }
            _ => None,
        };
        let mut aspects = Vec::new();
        aspects.extend((a.mode != b.mode).then_some(Aspect::Mode));
        let owners_a = self.a.owners(a).map_err(Sided::A)?;
        let owners_b = self.b.owners(b).map_err(Sided::B)?;
        aspects.extend((owners_a != owners_b).then_some(Aspect::Owner));
        aspects.extend(own);
        let mut xattrs_a = self.a.reader.xattrs(a).map_err(Sided::A)?;
        let mut xattrs_b = self.b.reader.xattrs(b).map_err(Sided::B)?;
        xattrs_a.sort_unstable();
        xattrs_b.sort_unstable();
        aspects.extend((xattrs_a != xattrs_b).then_some(Aspect::Attributes));
        aspects.extend((self.options.times && a.mtime != b.mtime).then_some(Aspect::Time));
        Ok(aspects)
    }
}

fn placed(error: Sided<ReadError>, path: &[u8]) -> Sided<BrowseError> {
    match error {
        Sided::A(error) => Sided::A(BrowseError::read(path)(error)),
        Sided::B(error) => Sided::B(BrowseError::read(path)(error)),
    }
}

/// The two listings of one directory, side by side.
struct Pair {
    a: Level,
    b: Level,
    next_a: Option<Visited>,
    next_b: Option<Visited>,
}

impl Pair {
    /// The next name, from whichever has it; two for a name that both have.
    fn next(
        &mut self,
        sides: &mut Sides<'_>,
    ) -> Result<(Option<Visited>, Option<Visited>), Sided<BrowseError>> {
        if self.next_a.is_none() {
            self.next_a = sides.a.next(&mut self.a).map_err(Sided::A)?;
        }
        if self.next_b.is_none() {
            self.next_b = sides.b.next(&mut self.b).map_err(Sided::B)?;
        }
        let (Some(a), Some(b)) = (&self.next_a, &self.next_b) else {
            return Ok((self.next_a.take(), self.next_b.take()));
        };
        Ok(match a.entry.name.cmp(&b.entry.name) {
            std::cmp::Ordering::Less => (self.next_a.take(), None),
            std::cmp::Ordering::Greater => (None, self.next_b.take()),
            std::cmp::Ordering::Equal => (self.next_a.take(), self.next_b.take()),
        })
    }
}
