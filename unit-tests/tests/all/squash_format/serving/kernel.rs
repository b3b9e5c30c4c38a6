//! The kernel's side of a connection, without a kernel.

use std::collections::{BTreeMap, HashMap};

use sarus_fuse::protocol::{IN_HEADER, OUT_HEADER, ROOT, opcode};
use sarus_fuse::{Server, Worker};

use super::super::sample::{Found, What};
use super::{ENOENT, ENOSYS, ERANGE};

/// The kernel's side of a connection.
pub(super) struct Kernel<'a> {
    worker: Worker<'a>,
    unique: u64,
}

/// `fuse_attr`, in the order of its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    number: u64,
    pub(super) size: u64,
    mtime: u64,
    mode: u32,
    pub(super) links: u32,
    owner: (u32, u32),
    device: u32,
}

/// An entry of a listing; with node and attributes where it was asked for those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: Vec<u8>,
    number: u64,
    pub(super) next: u64,
    kind: u32,
    pub(super) known: Option<(u64, Stat)>,
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub(super) fn request(opcode: u32, unique: u64, node: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(IN_HEADER + body.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), opcode.to_ne_bytes()].concat();
    bytes.extend([unique.to_ne_bytes(), node.to_ne_bytes()].concat());
    bytes.resize(IN_HEADER, 0);
    bytes.extend_from_slice(body);
    bytes
}

/// `fuse_read_in`.
pub(super) fn range(offset: u64, size: u32) -> Vec<u8> {
    let mut body = [0_u64.to_ne_bytes(), offset.to_ne_bytes()].concat();
    body.extend_from_slice(&size.to_ne_bytes());
    body.resize(40, 0);
    body
}

/// `fuse_getxattr_in` and a name.
pub(super) fn attribute(size: u32, name: &[u8]) -> Vec<u8> {
    [&size.to_ne_bytes()[..], &[0; 4], name, b"\0"].concat()
}

/// `fuse_init_in` of a kernel that offers all there is.
pub(super) fn greeting(major: u32, minor: u32, flags: u32) -> Vec<u8> {
    let numbers = [major, minor, 128 << 10, flags, 0].map(u32::to_ne_bytes);
    let mut body = numbers.concat();
    body.resize(64, 0);
    body
}

impl Stat {
    fn parse(bytes: &[u8]) -> Self {
        assert_eq!((u64_at(bytes, 24), u64_at(bytes, 40)), (u64_at(bytes, 32), u64_at(bytes, 24)));
        Self {
            number: u64_at(bytes, 0),
            size: u64_at(bytes, 8),
            mtime: u64_at(bytes, 32),
            mode: u32_at(bytes, 60),
            links: u32_at(bytes, 64),
            owner: (u32_at(bytes, 68), u32_at(bytes, 72)),
            device: u32_at(bytes, 76),
        }
    }
}

impl<'a> Kernel<'a> {
    pub(super) fn new(server: &'a Server<'a>) -> Self {
        Self { worker: Worker::new(server).unwrap(), unique: 2 }
    }

    /// The answer to a whole request, without its header; or its error.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Option<Result<Vec<u8>, i32>> {
        let reply = self.worker.answer(bytes)?;
        self.worker.read_ahead();
        let reply = reply.slices().iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>();
        assert_eq!(u32_at(&reply, 0) as usize, reply.len(), "the length told is the answer's");
        assert_eq!(u64_at(&reply, 8), u64_at(bytes, 8), "the answer is to this request");
        let error = -i32::from_ne_bytes(reply[4..8].try_into().unwrap());
        let body = reply[OUT_HEADER..].to_vec();
        assert!((0..512).contains(&error), "{error}");
        assert!(error == 0 || body.is_empty(), "an error has no body");
        Some(if error == 0 { Ok(body) } else { Err(error) })
    }

    pub(super) fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.unique += 2;
        self.send(&request(opcode, self.unique, node, body)).unwrap()
    }

    /// Node and attributes of a name.
    pub(super) fn look_up(&mut self, node: u64, name: &[u8]) -> Result<(u64, Stat), i32> {
        let answer = self.ask(opcode::LOOKUP, node, &[name, b"\0"].concat())?;
        assert_eq!(answer.len(), 128);
        assert!(u64_at(&answer, 16) > 1 << 30, "the entry is good for ever");
        match u64_at(&answer, 0) {
            0 => Err(ENOENT),
            node => Ok((node, Stat::parse(&answer[40..]))),
        }
    }

    pub(super) fn stat(&mut self, node: u64) -> Result<Stat, i32> {
        let answer = self.ask(opcode::GETATTR, node, &[0; 16])?;
        assert_eq!(answer.len(), 104);
        Ok(Stat::parse(&answer[16..]))
    }

    /// One answer's entries from a place on.
    pub(super) fn page(
        &mut self,
        node: u64,
        offset: u64,
        size: u32,
        plus: bool,
    ) -> Result<Vec<Listed>, i32> {
        let code = if plus { opcode::READDIRPLUS } else { opcode::READDIR };
        let answer = self.ask(code, node, &range(offset, size))?;
        assert!(answer.len() <= size as usize);
        let mut rest = &answer[..];
        let mut page = Vec::new();
        while !rest.is_empty() {
            let mut known = None;
            if plus {
                let found = u64_at(rest, 0);
                known = (found != 0).then(|| (found, Stat::parse(&rest[40..])));
                rest = &rest[128..];
            }
            let length = u32_at(rest, 16) as usize;
            let (number, next, kind) = (u64_at(rest, 0), u64_at(rest, 8), u32_at(rest, 20));
            page.push(Listed { name: rest[24..24 + length].to_vec(), number, next, kind, known });
            rest = &rest[(24 + length).next_multiple_of(8)..];
        }
        Ok(page)
    }

    /// All entries but `.` and `..`, which come first.
    pub(super) fn list(&mut self, node: u64, size: u32, plus: bool) -> Result<Vec<Listed>, i32> {
        let mut all = Vec::new();
        let mut offset = 0;
        loop {
            let page = self.page(node, offset, size, plus)?;
            let Some(last) = page.last() else { break };
            assert!(last.next > offset, "listing goes on");
            offset = last.next;
            all.extend(page);
        }
        let dots = all.drain(..2).map(|entry| entry.name).collect::<Vec<_>>();
        assert_eq!(dots, [&b"."[..], b".."]);
        Ok(all)
    }

    fn content(&mut self, node: u64, size: u64, step: u32) -> Result<Vec<u8>, i32> {
        let mut bytes = Vec::new();
        // A damaged image may tell of files larger than memory.
        while (bytes.len() as u64) < size.min(1 << 20) {
            let more = self.ask(opcode::READ, node, &range(bytes.len() as u64, step))?;
            assert_eq!(more.len() as u64, u64::from(step).min(size - bytes.len() as u64));
            bytes.extend(more);
        }
        Ok(bytes)
    }

    pub(super) fn xattrs(&mut self, node: u64) -> Result<Vec<(Vec<u8>, Vec<u8>)>, i32> {
        let names = match self.ask(opcode::LISTXATTR, node, &attribute(1 << 16, b"")) {
            Err(ENOSYS) => return Ok(Vec::new()),
            names => names?,
        };
        let mut all = Vec::new();
        for name in names.split_inclusive(|&byte| byte == 0) {
            let name = name.strip_suffix(b"\0").unwrap().to_vec();
            let size = self.ask(opcode::GETXATTR, node, &attribute(0, &name))?;
            let size = u32_at(&size, 0);
            if size > 1 {
                let short = self.ask(opcode::GETXATTR, node, &attribute(size - 1, &name));
                assert_eq!(short, Err(ERANGE));
            }
            let value = self.ask(opcode::GETXATTR, node, &attribute(size.max(1), &name))?;
            assert_eq!(value.len(), size as usize);
            all.push((name, value));
        }
        Ok(all)
    }

    pub(super) fn what(&mut self, node: u64, stat: &Stat) -> Result<What, i32> {
        let device = |kind| {
            What::Device(kind, stat.device >> 8 & 0xfff, {
                stat.device & 0xff | stat.device >> 12 & 0xf_ff00
            })
        };
        Ok(match stat.mode >> 12 {
            1 => What::Fifo,
            2 => device('c'),
            4 => What::Directory,
            6 => device('b'),
            8 => What::File(self.content(node, stat.size, 70_000)?),
            10 => What::Symlink(self.ask(opcode::READLINK, node, b"")?),
            12 => What::Socket,
            kind => panic!("{kind}"),
        })
    }

    /// Everything, by path. Directories met again are not entered again.
    pub(super) fn walk(&mut self) -> Result<BTreeMap<Vec<u8>, Found>, i32> {
        let mut all = BTreeMap::new();
        let mut first: HashMap<u64, Vec<u8>> = HashMap::new();
        let mut pending = vec![(Vec::new(), ROOT)];
        while let Some((path, node)) = pending.pop() {
            let stat = self.stat(node)?;
            let seen = first.contains_key(&node);
            let known = first.entry(node).or_insert_with(|| path.clone());
            *known = known.clone().min(path.clone());
            if stat.mode >> 12 == 4 && !seen {
                for entry in self.list(node, 4096, true)? {
                    let (found, stat) = self.look_up(node, &entry.name)?;
                    assert_eq!(entry.known, Some((found, stat.clone())), "both ways tell the same");
                    assert_eq!((entry.number, entry.kind), (stat.number, stat.mode >> 12));
                    let below = if path.is_empty() { vec![] } else { [&path[..], b"/"].concat() };
                    pending.push(([below, entry.name].concat(), found));
                }
            }
            let what = self.what(node, &stat)?;
            let xattrs = self.xattrs(node)?;
            let mode = u16::try_from(stat.mode & 0o7777).unwrap();
            let (owner, links) = (stat.owner, stat.links);
            let mtime = u32::try_from(stat.mtime).unwrap();
            let found = Found { what, mode, owner, mtime, xattrs, links, first: Vec::new() };
            all.insert(path, (node, found));
        }
        let named = |(path, (node, found))| (path, Found { first: first[&node].clone(), ..found });
        Ok(all.into_iter().map(named).collect())
    }
}
