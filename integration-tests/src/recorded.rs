//! What a program did to the files below one directory, as `strace` saw it, and what a power cut
//! would have left of it.
//!
//! The model is harsher than file systems are: what was written to a file lasts once the file is
//! synchronised, and what was done to a directory once that directory is, in no other order.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::strace::{Call, calls};

type Inode = usize;

/// The directory at the root of the model.
const ROOT: Inode = 0;

#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Inode>),
}

/// One change, and the step at which it was made to last, if it was.
#[derive(Debug, Clone)]
struct Change {
    action: Action,
    lasting: Option<usize>,
}

#[derive(Debug, Clone)]
enum Action {
    Link { directory: Inode, name: Vec<u8>, inode: Inode },
    Unlink { directory: Inode, name: Vec<u8> },
    Move { from: (Inode, Vec<u8>), to: (Inode, Vec<u8>), inode: Inode },
    Swap { one: (Inode, Vec<u8>, Inode), other: (Inode, Vec<u8>, Inode) },
    Write { inode: Inode, offset: usize, bytes: Vec<u8> },
    Truncate { inode: Inode, length: usize },
}

/// Which unsynchronised changes a power cut spares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spared {
    /// All: as if the process had been killed.
    All,
    /// Those of directories: new names of files without their content.
    Directories,
    /// Those of files: content whose names are lost.
    Files,
    /// All but what was renamed: what happened later lasts, and the renaming does not.
    AllButMoves,
    /// None.
    Nothing,
}

/// What a directory held, and what happened to it.
#[derive(Debug)]
pub struct Recorded {
    start: Vec<Node>,
    changes: Vec<Change>,
    kinds: Vec<bool>,
}

/// Paths of directories and files, with the content of files.
pub type Tree = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

impl Recorded {
    /// Reads a directory before the program runs.
    pub fn before(directory: &Path) -> Self {
        let mut start = vec![Node::Directory(BTreeMap::new())];
        read(directory, ROOT, &mut start);
        Self { start, changes: Vec::new(), kinds: Vec::new() }
    }

    /// Adds what a trace says of `directory`.
    pub fn follow(mut self, directory: &Path, trace: &str) -> Self {
        let mut live = Live {
            nodes: self.start.clone(),
            prefix: directory.as_os_str().as_bytes().to_vec(),
            open: BTreeMap::new(),
            changes: Vec::new(),
        };
        for call in calls(trace) {
            live.step(&call);
        }
        self.kinds = live.nodes.iter().map(|node| matches!(node, Node::File(_))).collect();
        self.changes = live.changes;
        self
    }

    /// How many changes there were.
    pub fn steps(&self) -> usize {
        self.changes.len()
    }

    /// What is there after a power cut when so many changes were made.
    pub fn cut(&self, steps: usize, spared: Spared) -> Tree {
        let mut nodes = self.start.clone();
        for is_file in &self.kinds[nodes.len()..] {
            let node = match is_file {
                true => Node::File(Vec::new()),
                false => Node::Directory(BTreeMap::new()),
            };
            nodes.push(node);
        }
        for change in &self.changes[..steps] {
            let of_file = matches!(change.action, Action::Write { .. } | Action::Truncate { .. });
            let lasting = change.lasting.is_some_and(|at| at <= steps);
            let is_spared = match spared {
                Spared::All => true,
                Spared::Directories => !of_file,
                Spared::Files => of_file,
                Spared::AllButMoves => {
                    !matches!(change.action, Action::Move { .. } | Action::Swap { .. })
                }
                Spared::Nothing => false,
            };
            if lasting || is_spared {
                apply(&mut nodes, &change.action);
            }
        }
        let mut tree = Tree::new();
        collect(&nodes, ROOT, b"", &mut tree);
        tree
    }
}

/// Writes a tree to a new directory.
pub fn restore(tree: &Tree, directory: &Path) {
    fs_err::create_dir(directory).expect("a new directory");
    for (path, content) in tree {
        let path = directory.join(std::ffi::OsStr::from_bytes(path));
        match content {
            Some(content) => fs_err::write(path, content).expect("a file"),
            None => fs_err::create_dir(path).expect("a directory"),
        }
    }
}

fn read(directory: &Path, inode: Inode, nodes: &mut Vec<Node>) {
    for entry in fs_err::read_dir(directory).into_iter().flatten() {
        let entry = entry.expect("a directory");
        let next = nodes.len();
        let path = entry.path();
        if path.is_dir() {
            nodes.push(Node::Directory(BTreeMap::new()));
            read(&path, next, nodes);
        } else {
            nodes.push(Node::File(fs_err::read(&path).expect("a file")));
        }
        entries(nodes, inode).insert(entry.file_name().as_bytes().to_vec(), next);
    }
}

fn entries(nodes: &mut [Node], inode: Inode) -> &mut BTreeMap<Vec<u8>, Inode> {
    match &mut nodes[inode] {
        Node::Directory(entries) => entries,
        Node::File(_) => panic!("a file is used as a directory"),
    }
}

fn apply(nodes: &mut [Node], action: &Action) {
    match action {
        Action::Link { directory, name, inode } => {
            entries(nodes, *directory).insert(name.clone(), *inode);
        }
        Action::Unlink { directory, name } => {
            entries(nodes, *directory).remove(name);
        }
        Action::Move { from, to, inode } => {
            entries(nodes, from.0).remove(&from.1);
            entries(nodes, to.0).insert(to.1.clone(), *inode);
        }
        Action::Swap { one, other } => {
            entries(nodes, one.0).insert(one.1.clone(), other.2);
            entries(nodes, other.0).insert(other.1.clone(), one.2);
        }
        Action::Write { inode, offset, bytes } => {
            let Node::File(content) = &mut nodes[*inode] else { return };
            let end = offset + bytes.len();
            content.resize(content.len().max(end), 0);
            content[*offset..end].copy_from_slice(bytes);
        }
        Action::Truncate { inode, length } => {
            let Node::File(content) = &mut nodes[*inode] else { return };
            content.resize(*length, 0);
        }
    }
}

fn collect(nodes: &[Node], inode: Inode, path: &[u8], tree: &mut Tree) {
    let Node::Directory(entries) = &nodes[inode] else { return };
    for (name, next) in entries {
        let below = if path.is_empty() { name.clone() } else { [path, b"/", name].concat() };
        match &nodes[*next] {
            Node::File(content) => {
                tree.insert(below, Some(content.clone()));
            }
            Node::Directory(_) => {
                tree.insert(below.clone(), None);
                collect(nodes, *next, &below, tree);
            }
        }
    }
}

struct Descriptor {
    inode: Inode,
    position: usize,
    append: bool,
}

struct Live {
    nodes: Vec<Node>,
    prefix: Vec<u8>,
    open: BTreeMap<i64, Descriptor>,
    changes: Vec<Change>,
}

impl Live {
    fn change(&mut self, action: Action) {
        apply(&mut self.nodes, &action);
        self.changes.push(Change { action, lasting: None });
    }

    fn step(&mut self, call: &Call) {
        if call.result < 0 {
            return;
        }
        match call.name.as_str() {
            "openat" => self.opened(call),
            "close" => drop(self.open.remove(&call.number(0))),
            "fcntl" if call.text(1).starts_with("F_DUPFD") => self.copied(call),
            "lseek" => self.seek(call),
            "write" | "pwrite64" => self.written(call),
            "ftruncate" => {
                let length = usize::try_from(call.number(1)).expect("a length");
                if let Some(inode) = self.open.get(&call.number(0)).map(|open| open.inode) {
                    self.change(Action::Truncate { inode, length });
                }
            }
            "fsync" | "fdatasync" => self.synchronised(call.number(0)),
            "mkdir" => {
                let place = self.resolve(None, &call.bytes(0));
                self.make(place, Node::Directory(BTreeMap::new()));
            }
            "rename" => self.moved(call, (None, 0), (None, 1), false),
            "renameat2" | "renameat" => {
                let swap = call.text(4).contains("EXCHANGE");
                self.moved(call, (Some(0), 1), (Some(2), 3), swap);
            }
            "unlink" | "rmdir" => self.removed(None, &call.bytes(0)),
            "unlinkat" => self.removed(Some(call.text(0)), &call.bytes(1)),
            _ => {}
        }
    }

    /// The directory and the name that a path means; none for one that is elsewhere.
    fn resolve(&self, at: Option<&str>, path: &[u8]) -> Option<(Inode, Vec<u8>)> {
        let (mut inode, rest) = match at.and_then(|at| at.parse::<i64>().ok()) {
            Some(descriptor) if !path.starts_with(b"/") => {
                (self.open.get(&descriptor)?.inode, path)
            }
            _ => (ROOT, path.strip_prefix(self.prefix.as_slice())?.strip_prefix(b"/")?),
        };
        let mut parts: Vec<&[u8]> = rest.split(|byte| *byte == b'/').collect();
        let name = parts.pop()?.to_vec();
        for part in parts {
            inode = self.find(inode, part)?;
        }
        Some((inode, name))
    }

    fn find(&self, directory: Inode, name: &[u8]) -> Option<Inode> {
        match &self.nodes[directory] {
            Node::Directory(entries) => entries.get(name).copied(),
            Node::File(_) => None,
        }
    }

    fn make(&mut self, place: Option<(Inode, Vec<u8>)>, node: Node) -> Option<Inode> {
        let (directory, name) = place?;
        let inode = self.nodes.len();
        self.nodes.push(node);
        self.change(Action::Link { directory, name, inode });
        Some(inode)
    }

    fn opened(&mut self, call: &Call) {
        let path = call.bytes(1);
        let inode = if path == self.prefix {
            Some(ROOT)
        } else {
            let place = self.resolve(Some(call.text(0)), &path);
            let found = place.as_ref().and_then(|(at, name)| self.find(*at, name));
            match found {
                None if call.text(2).contains("O_CREAT") => {
                    self.make(place, Node::File(Vec::new()))
                }
                found => found,
            }
        };
        let Some(inode) = inode else { return };
        let append = call.text(2).contains("O_APPEND");
        self.open.insert(call.result, Descriptor { inode, position: 0, append });
    }

    fn copied(&mut self, call: &Call) {
        if let Some(Descriptor { inode, position, append }) = self.open.get(&call.number(0)) {
            let copy = Descriptor { inode: *inode, position: *position, append: *append };
            self.open.insert(call.result, copy);
        }
    }

    fn seek(&mut self, call: &Call) {
        if let Some(open) = self.open.get_mut(&call.number(0)) {
            open.position = usize::try_from(call.result).expect("a position");
        }
    }

    fn written(&mut self, call: &Call) {
        let Some(open) = self.open.get_mut(&call.number(0)) else { return };
        let mut bytes = call.bytes(1);
        bytes.truncate(usize::try_from(call.result).expect("a count"));
        let inode = open.inode;
        let length = match &self.nodes[inode] {
            Node::File(content) => content.len(),
            Node::Directory(_) => return,
        };
        let offset = if call.name == "pwrite64" {
            usize::try_from(call.number(3)).expect("an offset")
        } else {
            let offset = if open.append { length } else { open.position };
            open.position = offset + bytes.len();
            offset
        };
        self.change(Action::Write { inode, offset, bytes });
    }

    fn synchronised(&mut self, descriptor: i64) {
        let Some(inode) = self.open.get(&descriptor).map(|open| open.inode) else { return };
        let now = self.changes.len();
        for change in self.changes.iter_mut().filter(|change| change.lasting.is_none()) {
            let touched: BTreeSet<Inode> = match &change.action {
                Action::Link { directory, .. } | Action::Unlink { directory, .. } => {
                    [*directory].into()
                }
                Action::Move { from, to, .. } => [from.0, to.0].into(),
                Action::Swap { one, other } => [one.0, other.0].into(),
                Action::Write { inode, .. } | Action::Truncate { inode, .. } => [*inode].into(),
            };
            if touched.contains(&inode) {
                change.lasting = Some(now);
            }
        }
    }

    fn moved(
        &mut self,
        call: &Call,
        (from_at, from): (Option<usize>, usize),
        (to_at, to): (Option<usize>, usize),
        swap: bool,
    ) {
        let from = self.resolve(from_at.map(|at| call.text(at)), &call.bytes(from));
        let to = self.resolve(to_at.map(|at| call.text(at)), &call.bytes(to));
        let (Some(from), Some(to)) = (from, to) else { return };
        let Some(inode) = self.find(from.0, &from.1) else { return };
        if swap {
            let Some(other) = self.find(to.0, &to.1) else { return };
            let (one, other) = ((from.0, from.1, inode), (to.0, to.1, other));
            self.change(Action::Swap { one, other });
        } else {
            self.change(Action::Move { from, to, inode });
        }
    }

    fn removed(&mut self, at: Option<&str>, path: &[u8]) {
        if let Some((directory, name)) = self.resolve(at, path)
            && self.find(directory, &name).is_some()
        {
            self.change(Action::Unlink { directory, name });
        }
    }
}
