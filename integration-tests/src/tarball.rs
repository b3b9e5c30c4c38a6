//! Writes tar archives of any content, also of content that no sane program writes.
//!
//! The name, link target and order of entries are taken as they are: no check, no normalisation.

const BLOCK: usize = 512;

/// A tar archive being written. Each method that adds an entry may be followed by those that
/// change the last one: `tar.file("bin/su", b"..").mode(0o4755).owner(0, 5)`.
#[derive(Debug, Default, Clone)]
pub struct Tar {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    name: Vec<u8>,
    kind: u8,
    mode: u32,
    owner: (u32, u32),
    mtime: u64,
    link: Vec<u8>,
    device: (u32, u32),
    content: Vec<u8>,
    pax: Vec<(String, Vec<u8>)>,
    gnu_names: bool,
    /// Parts of an old GNU sparse file, and its full size.
    sparse: Option<(Vec<(u64, u64)>, u64)>,
}

impl Tar {
    /// An archive without entries.
    pub fn new() -> Self {
        Self::default()
    }

    fn add(mut self, name: &[u8], kind: u8, mode: u32) -> Self {
        self.entries.push(Entry {
            name: name.to_vec(),
            kind,
            mode,
            owner: (0, 0),
            mtime: 1_600_000_000,
            link: Vec::new(),
            device: (0, 0),
            content: Vec::new(),
            pax: Vec::new(),
            gnu_names: false,
            sparse: None,
        });
        self
    }

    fn last(&mut self) -> &mut Entry {
        self.entries.last_mut().expect("there is an entry to change")
    }

    /// A directory, mode 0755.
    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        let mut name = name.as_ref().to_vec();
        if !name.ends_with(b"/") {
            name.push(b'/');
        }
        self.add(&name, b'5', 0o755)
    }

    /// A file, mode 0644.
    pub fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        let mut tar = self.add(name.as_ref(), b'0', 0o644);
        tar.last().content = content.as_ref().to_vec();
        tar
    }

    /// A symbolic link.
    pub fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let mut tar = self.add(name.as_ref(), b'2', 0o777);
        tar.last().link = target.as_ref().to_vec();
        tar
    }

    /// A hard link to a path of the image.
    pub fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        let mut tar = self.add(name.as_ref(), b'1', 0o644);
        tar.last().link = target.as_ref().to_vec();
        tar
    }

    /// A device: `b'b'` or `b'c'`.
    pub fn device(self, name: impl AsRef<[u8]>, kind: u8, major: u32, minor: u32) -> Self {
        let mut tar = self.add(name.as_ref(), if kind == b'b' { b'4' } else { b'3' }, 0o660);
        tar.last().device = (major, minor);
        tar
    }

    /// A fifo.
    pub fn fifo(self, name: impl AsRef<[u8]>) -> Self {
        self.add(name.as_ref(), b'6', 0o600)
    }

    /// An empty file `.wh.NAME` beside where `path` was: a whiteout.
    pub fn whiteout(self, path: &str) -> Self {
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(p, n)| (p, n));
        let slash = if parent.is_empty() { "" } else { "/" };
        self.file(format!("{parent}{slash}.wh.{name}"), b"")
    }

    /// The marker that hides what lower layers have in `directory`.
    pub fn opaque(self, directory: &str) -> Self {
        self.file(format!("{directory}/.wh..wh..opq"), b"")
    }

    /// A file of old GNU sparse format: `parts` are offset and content, at most four.
    pub fn sparse_gnu(self, name: &str, parts: &[(u64, &[u8])], size: u64) -> Self {
        let mut tar = self.add(name.as_bytes(), b'S', 0o644);
        let last = tar.last();
        let map = parts.iter().map(|(offset, bytes)| (*offset, bytes.len() as u64)).collect();
        last.sparse = Some((map, size));
        last.content = parts.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        tar
    }

    /// A file of sparse format 1.0, whose map stands before its content.
    pub fn sparse_pax(self, name: &str, parts: &[(u64, &[u8])], size: u64) -> Self {
        let mut map = format!("{}\n", parts.len());
        for (offset, bytes) in parts {
            map.push_str(&format!("{offset}\n{}\n", bytes.len()));
        }
        let mut content = map.into_bytes();
        content.resize(content.len().next_multiple_of(BLOCK), 0);
        content.extend(parts.iter().flat_map(|(_, bytes)| bytes.iter()));
        let mut tar = self.add(format!("GNUSparseFile.0/{name}").as_bytes(), b'0', 0o644);
        let last = tar.last();
        last.content = content;
        last.pax = [
            ("GNU.sparse.major", "1".to_owned()),
            ("GNU.sparse.minor", "0".to_owned()),
            ("GNU.sparse.name", name.to_owned()),
            ("GNU.sparse.realsize", size.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value.into_bytes()))
        .into();
        tar
    }

    /// Sets the mode of the last entry.
    pub fn mode(mut self, mode: u32) -> Self {
        self.last().mode = mode;
        self
    }

    /// Sets the owner of the last entry.
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.last().owner = (uid, gid);
        self
    }

    /// Sets the time of the last entry, in seconds.
    pub fn mtime(mut self, mtime: u64) -> Self {
        self.last().mtime = mtime;
        self
    }

    /// Adds an extended attribute to the last entry.
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.last().pax.push((format!("SCHILY.xattr.{name}"), value.to_vec()));
        self
    }

    /// Writes a long name of the last entry in GNU's way, not in PAX'.
    pub fn gnu_names(mut self) -> Self {
        self.last().gnu_names = true;
        self
    }

    /// The archive.
    pub fn bytes(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        for entry in &self.entries {
            entry.write(&mut archive);
        }
        archive.resize(archive.len() + 2 * BLOCK, 0);
        archive
    }
}

impl Entry {
    fn write(&self, archive: &mut Vec<u8>) {
        let mut pax = self.pax.clone();
        for (field, key, kind) in [(&self.name, "path", b'L'), (&self.link, "linkpath", b'K')] {
            if field.len() > 100 && self.gnu_names {
                let content = [field.as_slice(), b"\0"].concat();
                append(archive, &header(b"././@LongLink", kind, content.len(), self), &content);
            } else if field.len() > 100 {
                pax.push((key.to_owned(), field.clone()));
            }
        }
        for (id, key) in [(self.owner.0, "uid"), (self.owner.1, "gid")] {
            if id > 0o777_7777 {
                pax.push((key.to_owned(), id.to_string().into_bytes()));
            }
        }
        if !pax.is_empty() {
            let records: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            append(archive, &header(b"PaxHeaders/x", b'x', records.len(), self), &records);
        }
        append(archive, &header(&self.name, self.kind, self.content.len(), self), &self.content);
    }
}

/// A PAX record: its length counts itself.
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

fn append(archive: &mut Vec<u8>, header: &[u8], content: &[u8]) {
    archive.extend_from_slice(header);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

fn header(name: &[u8], kind: u8, size: usize, entry: &Entry) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let octal = |block: &mut [u8; BLOCK], at: usize, digits: usize, value: u64| {
        let text = format!("{value:0digits$o}");
        let text = &text.as_bytes()[text.len() - digits..];
        block[at..at + digits].copy_from_slice(text);
    };
    let text = |block: &mut [u8; BLOCK], at: usize, value: &[u8]| {
        let length = value.len().min(100);
        block[at..at + length].copy_from_slice(&value[..length]);
    };
    text(&mut block, 0, name);
    octal(&mut block, 100, 7, entry.mode.into());
    octal(&mut block, 108, 7, entry.owner.0.min(0o777_7777).into());
    octal(&mut block, 116, 7, entry.owner.1.min(0o777_7777).into());
    octal(&mut block, 124, 11, size as u64);
    octal(&mut block, 136, 11, entry.mtime);
    block[156] = kind;
    text(&mut block, 157, &entry.link);
    if let Some((parts, full)) = entry.sparse.as_ref().filter(|_| kind == b'S') {
        block[257..265].copy_from_slice(b"ustar  \0");
        for (index, (offset, length)) in parts.iter().enumerate() {
            octal(&mut block, 386 + 24 * index, 11, *offset);
            octal(&mut block, 398 + 24 * index, 11, *length);
        }
        octal(&mut block, 483, 11, *full);
    } else {
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block, 329, 7, entry.device.0.into());
        octal(&mut block, 337, 7, entry.device.1.into());
    }
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block, 148, 6, sum);
    block[154] = 0;
    block
}
