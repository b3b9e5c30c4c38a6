//! Trees to be written, and what a reader makes of the image, in one comparable form.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::Arc;

use sarus_squash::{
    ContentId, ContentReader, Image, ImageReader, Inode, InodeKind, InodeReference, Kind, Metadata,
    Node, NodeId, Piece, ReadError, Settings, Tree, Writer, Written,
};

/// What goes into the content of a file.
#[derive(Clone)]
pub(super) enum Part {
    Bytes(Vec<u8>),
    Zeros(u64),
}

/// A tree and the contents of its files, by number.
pub(super) struct Sample {
    pub(super) tree: Tree,
    pub(super) contents: Vec<Vec<Part>>,
}

pub(super) fn metadata() -> Metadata {
    Metadata { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: None }
}

pub(super) fn settings(compression: &str, block_size: u32, threads: usize) -> Settings {
    Settings {
        compression: compression.parse().unwrap(),
        block_size,
        threads: NonZeroUsize::new(threads).unwrap(),
        time: 1_600_000_000,
    }
}

/// A small generator (Knuth's constants), so that failures repeat.
pub(super) fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33).try_into().unwrap()
}

/// Bytes that no compressor makes smaller.
pub(super) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    (0..length).map(|_| (random(&mut seed) >> 7).to_le_bytes()[0]).collect()
}

impl Sample {
    pub(super) fn new() -> Self {
        Self { tree: Tree::new(metadata()), contents: Vec::new() }
    }

    pub(super) fn content(&mut self, parts: Vec<Part>) -> Kind {
        self.contents.push(parts);
        Kind::File(ContentId((self.contents.len() - 1).try_into().unwrap()))
    }

    pub(super) fn add(&mut self, path: &str, kind: Kind) -> NodeId {
        self.add_with(path, kind, metadata())
    }

    pub(super) fn add_with(&mut self, path: &str, kind: Kind, metadata: Metadata) -> NodeId {
        let id = self.tree.add(Node { metadata, kind });
        self.link(path, id);
        id
    }

    pub(super) fn file(&mut self, path: &str, bytes: Vec<u8>) -> NodeId {
        let kind = self.content(vec![Part::Bytes(bytes)]);
        self.add(path, kind)
    }

    /// Gives a node a name; the parent is there.
    pub(super) fn link(&mut self, path: &str, id: NodeId) {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.link_in(above, name.as_bytes(), id);
    }

    pub(super) fn link_in(&mut self, above: &str, name: &[u8], id: NodeId) {
        let mut parent = Tree::ROOT;
        for part in above.split('/').filter(|part| !part.is_empty()) {
            let Kind::Directory(names) = &self.tree.node(parent).kind else { panic!("{above}") };
            parent = names.get(part.as_bytes()).unwrap();
        }
        let Kind::Directory(names) = &mut self.tree.node_mut(parent).kind else {
            panic!("{above}")
        };
        names.insert(name, id);
    }

    /// Writes it to a file without a name.
    pub(super) fn write(&self, settings: &Settings) -> (File, Written) {
        let file = tempfile::tempfile().unwrap();
        let mut writer = Writer::new(file.try_clone().unwrap(), settings).unwrap();
        for content in &self.contents {
            writer.start_file().unwrap();
            for part in content {
                match part {
                    Part::Bytes(bytes) => writer.append(bytes).unwrap(),
                    Part::Zeros(count) => writer.append_zeros(*count).unwrap(),
                }
            }
            writer.end_file().unwrap();
        }
        let written = writer.finish(&self.tree).unwrap();
        (file, written)
    }

    /// What a reader of the image has to find, by path.
    pub(super) fn expected(&self) -> BTreeMap<Vec<u8>, Found> {
        let mut all = BTreeMap::new();
        let mut names: HashMap<NodeId, Vec<Vec<u8>>> = HashMap::new();
        let mut pending = vec![(Vec::new(), Tree::ROOT)];
        while let Some((path, id)) = pending.pop() {
            let node = self.tree.node(id);
            names.entry(id).or_default().push(path.clone());
            let (what, links) = match &node.kind {
                Kind::Directory(entries) => {
                    let mut links = 2;
                    for (name, child) in entries.iter() {
                        links +=
                            u32::from(matches!(self.tree.node(child).kind, Kind::Directory(_)));
                        pending.push((join(&path, name), child));
                    }
                    (What::Directory, links)
                }
                Kind::File(content) => {
                    (What::File(self.bytes(&self.contents[content.0 as usize])), 0)
                }
                Kind::Symlink(target) => (What::Symlink(target.to_vec()), 0),
                &Kind::CharDevice { major, minor } => (What::Device('c', major, minor), 0),
                &Kind::BlockDevice { major, minor } => (What::Device('b', major, minor), 0),
                Kind::Fifo => (What::Fifo, 0),
                Kind::Socket => (What::Socket, 0),
            };
            let Metadata { mode, uid, gid, mtime, xattrs } = node.metadata.clone();
            let xattrs = xattrs
                .iter()
                .flat_map(|set| set.iter())
                .map(|(name, value)| (name.to_vec(), value.to_vec()));
            let owner = (uid, gid);
            let xattrs = xattrs.collect();
            all.insert(path, Found { what, mode, owner, mtime, xattrs, links, first: Vec::new() });
        }
        for mut paths in names.into_values() {
            paths.sort();
            for path in &paths {
                let found = all.get_mut(path).unwrap();
                found.first.clone_from(&paths[0]);
                if found.links == 0 {
                    found.links = paths.len().try_into().unwrap();
                }
            }
        }
        all
    }

    fn bytes(&self, parts: &[Part]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts {
            match part {
                Part::Bytes(more) => bytes.extend(more),
                Part::Zeros(count) => {
                    bytes.resize(bytes.len() + usize::try_from(*count).unwrap(), 0);
                }
            }
        }
        bytes
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// An entry of an image.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) struct Found {
    pub(super) what: What,
    pub(super) mode: u16,
    pub(super) owner: (u32, u32),
    pub(super) mtime: u32,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) links: u32,
    /// The first of all names of the inode.
    pub(super) first: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) enum What {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Device(char, u32, u32),
    Fifo,
    Socket,
}

/// Reads all of an image; `ids` stands for the id table, or None for the image's own. Directories
/// met again are not entered again.
pub(super) fn read_all(
    file: &File,
    ids: Option<&[u32]>,
) -> Result<BTreeMap<Vec<u8>, Found>, ReadError> {
    let image = Image::open(file)?;
    let mut reader = ImageReader::new(&image)?;
    let mut contents = ContentReader::new(&image, Arc::default())?;
    let mut all = BTreeMap::new();
    let mut names: HashMap<InodeReference, Vec<Vec<u8>>> = HashMap::new();
    let mut pending = vec![(Vec::new(), image.root())];
    while let Some((path, reference)) = pending.pop() {
        let inode = reader.inode(reference)?;
        let known = names.entry(reference).or_default();
        known.push(path.clone());
        if let InodeKind::Directory(place) = &inode.kind
            && known.len() == 1
        {
            let mut entries = reader.entries(place);
            while let Some(entry) = entries.next(&mut reader)? {
                pending.push((join(&path, &entry.name), entry.inode));
            }
        }
        let what = what(&mut contents, &inode)?;
        let mut id = |index: u16| match ids {
            Some(ids) => Ok(ids[usize::from(index)]),
            None => reader.id(index),
        };
        let owner = (id(inode.owner)?, id(inode.group)?);
        let xattrs = reader.xattrs(&inode)?;
        let Inode { mode, mtime, links, .. } = inode;
        all.insert(path, Found { what, mode, owner, mtime, xattrs, links, first: Vec::new() });
    }
    for mut paths in names.into_values() {
        paths.sort();
        for path in &paths {
            if let Some(found) = all.get_mut(path) {
                found.first.clone_from(&paths[0]);
            }
        }
    }
    Ok(all)
}

fn what(contents: &mut ContentReader<'_>, inode: &Inode) -> Result<What, ReadError> {
    Ok(match &inode.kind {
        InodeKind::Directory(_) => What::Directory,
        InodeKind::File(place) => {
            let (mut bytes, mut length) = (Vec::new(), 0);
            contents.read(place, |piece| {
                match piece {
                    Piece::Data(data) => {
                        bytes.extend(data);
                        length += data.len() as u64;
                    }
                    Piece::Hole(count) => {
                        length += count;
                        // A damaged image may tell of holes larger than memory.
                        bytes.resize(usize::try_from(length.min(64 << 20)).unwrap(), 0);
                    }
                }
                Ok::<_, ReadError>(())
            })?;
            assert_eq!(length, place.size, "the pieces are the file");
            What::File(bytes)
        }
        InodeKind::Symlink(target) => What::Symlink(target.clone()),
        &InodeKind::CharDevice { major, minor } => What::Device('c', major, minor),
        &InodeKind::BlockDevice { major, minor } => What::Device('b', major, minor),
        InodeKind::Fifo => What::Fifo,
        InodeKind::Socket => What::Socket,
    })
}

/// All compressors, with a level or two.
pub(super) const COMPRESSIONS: [&str; 6] = ["zstd", "zstd:9", "gzip", "gzip:1", "lz4", "none"];

/// A tree with all that an image can hold, some of it twice.
pub(super) fn torture(block_size: usize) -> Sample {
    let mut sample = Sample::new();
    let directory = || Kind::Directory(Box::default());
    let xattr = |pairs: &[(&str, &[u8])]| {
        let pairs = pairs.iter().map(|(name, value)| (name.as_bytes().into(), (*value).into()));
        Some(pairs.collect::<Vec<_>>().into())
    };
    let set = xattr(&[("security.capability", b"\x01\0\0\x02\0\0\0\0"), ("user.a", b"1")]);
    let large = vec![b'v'; 65536];
    for (path, mode) in [("d", 0o1777), ("d/e", 0), ("d/e/f", 0o2750), ("empty", 0o7777)] {
        sample.add_with(path, directory(), Metadata { mode, mtime: u32::MAX, ..metadata() });
    }
    let text = b"a line of text that any compressor likes\n".repeat(block_size / 20);
    for (index, length) in [0, 1, block_size - 1, block_size, block_size + 1, 3 * block_size + 7]
        .into_iter()
        .enumerate()
    {
        sample.file(&format!("d/noise{index}"), noise(length, index as u64));
        sample.file(&format!("d/text{index}"), text.iter().copied().cycle().take(length).collect());
        let zeros = sample.content(vec![Part::Zeros(length as u64)]);
        sample.add(&format!("d/zeros{index}"), zeros);
        sample.file(&format!("d/stored-zeros{index}"), vec![0; length]);
    }
    let sparse = sample.content(vec![
        Part::Zeros(5),
        Part::Bytes(b"x".to_vec()),
        Part::Zeros(5 * block_size as u64),
        Part::Bytes(noise(block_size, 3)),
        Part::Zeros(block_size as u64 + 5000),
    ]);
    let owned = Metadata { uid: 1000, gid: u32::MAX - 1, xattrs: set.clone(), ..metadata() };
    let sparse = sample.add_with("d/e/sparse", sparse, owned.clone());
    sample.link("sparse too", sparse);
    for (path, kind) in [
        ("link", Kind::Symlink((*b"../\xff nowhere").into())),
        ("long link", Kind::Symlink(vec![b't'; 4095].into())),
        ("char", Kind::CharDevice { major: 4095, minor: 1_048_575 }),
        ("block", Kind::BlockDevice { major: 8, minor: 256 }),
        ("pipe", Kind::Fifo),
        ("socket", Kind::Socket),
    ] {
        let id = sample.add(path, kind.clone());
        sample.link(&format!("d/{path} again"), id);
        sample.link(&format!("d/e/{path} again"), id);
        sample.add_with(&format!("{path} with attributes"), kind, owned.clone());
    }
    sample.add_with("d/x", directory(), owned);
    let many = xattr(&[
        ("security.x", b"1"),
        ("trusted.large", &large),
        ("trusted.t", b"\0\xff"),
        ("user.b", &noise(3000, 1)),
        ("user.empty", b""),
    ]);
    let id = sample.file("attributes", b"x".to_vec());
    sample.tree.node_mut(id).metadata.xattrs = many;
    for name in [
        &b"\xff\xfe"[..],
        b"\n",
        b"-",
        b"..a",
        b"A",
        b"a",
        b"a b",
        b"\xc3\xa9",
        &[b'n'; 255],
        &[b'n'; 256],
    ] {
        sample.link_in("d/e/f", name, id);
    }
    sample
}
