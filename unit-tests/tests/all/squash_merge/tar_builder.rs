//! A tar writer that writes what a test asks for, sound or not.

/// One entry, with its extended headers in front.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) flag: u8,
    pub(crate) data: Vec<u8>,
    pub(crate) size: i64,
    pub(crate) link: Vec<u8>,
    pub(crate) mode: i64,
    pub(crate) owner: (i64, i64),
    pub(crate) mtime: i64,
    pub(crate) device: (i64, i64),
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) magic: &'static [u8],
    pub(crate) prefix: &'static [u8],
    /// Written at byte 386, where GNU headers have a sparse map.
    pub(crate) sparse: Vec<u8>,
}

pub(crate) const USTAR: &[u8] = b"ustar\x0000";
pub(crate) const GNU: &[u8] = b"ustar  \0";
pub(crate) const V7: &[u8] = b"";
pub(crate) const END: [u8; 1024] = [0; 1024];

pub(crate) fn entry(name: impl AsRef<[u8]>, flag: u8) -> Entry {
    Entry {
        name: name.as_ref().to_vec(),
        flag,
        data: Vec::new(),
        size: 0,
        link: Vec::new(),
        mode: if flag == b'5' { 0o755 } else { 0o644 },
        owner: (0, 0),
        mtime: 0,
        device: (0, 0),
        records: Vec::new(),
        magic: USTAR,
        prefix: b"",
        sparse: Vec::new(),
    }
}

pub(crate) fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
    entry(name, b'0').data(data)
}

pub(crate) fn dir(name: impl AsRef<[u8]>) -> Entry {
    entry(name, b'5')
}

pub(crate) fn sym(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    entry(name, b'2').link(target)
}

pub(crate) fn hard(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    entry(name, b'1').link(target)
}

/// A PAX header on its own: `x` or `g`.
pub(crate) fn pax(flag: u8, records: &[(&str, &[u8])]) -> Entry {
    entry("pax", flag)
        .data(records.iter().flat_map(|(k, v)| record(k.as_bytes(), v)).collect::<Vec<_>>())
}

impl Entry {
    pub(crate) fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.data = data.as_ref().to_vec();
        self.size = self.data.len().try_into().unwrap();
        self
    }

    pub(crate) fn link(mut self, target: impl AsRef<[u8]>) -> Self {
        self.link = target.as_ref().to_vec();
        self
    }

    pub(crate) fn mode(mut self, mode: i64) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn owner(mut self, uid: i64, gid: i64) -> Self {
        self.owner = (uid, gid);
        self
    }

    pub(crate) fn mtime(mut self, mtime: i64) -> Self {
        self.mtime = mtime;
        self
    }

    pub(crate) fn device(mut self, major: i64, minor: i64) -> Self {
        self.device = (major, minor);
        self
    }

    pub(crate) fn record(mut self, keyword: &str, value: impl AsRef<[u8]>) -> Self {
        self.records.push((keyword.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.record(&format!("SCHILY.xattr.{name}"), value)
    }

    pub(crate) fn magic(mut self, magic: &'static [u8]) -> Self {
        self.magic = magic;
        self
    }

    pub(crate) fn prefix(mut self, prefix: &'static [u8]) -> Self {
        self.prefix = prefix;
        self
    }

    pub(crate) fn sparse(mut self, map: Vec<u8>) -> Self {
        self.sparse = map;
        self
    }

    /// Extended headers, header, and data with its padding. Long names get PAX records, or GNU long
    /// names where the magic is GNU's.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut records = self.records.clone();
        let mut bytes = Vec::new();
        for (keyword, flag, text) in [("path", b'L', &self.name), ("linkpath", b'K', &self.link)] {
            if text.len() > 100 && self.magic == GNU {
                let long = entry("././@LongLink", flag).magic(GNU);
                bytes.extend(long.data([text.as_slice(), b"\0"].concat()).bytes());
            } else if text.len() > 100 {
                records.push((keyword.into(), text.clone()));
            }
        }
        if !records.is_empty() {
            let data: Vec<u8> = records.iter().flat_map(|(k, v)| record(k, v)).collect();
            bytes.extend(entry("pax", b'x').data(data).bytes());
        }
        bytes.extend(self.header());
        bytes.extend(padded(&self.data));
        bytes
    }

    pub(crate) fn header(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, &number::<8>(self.mode));
        put(108, &number::<8>(self.owner.0));
        put(116, &number::<8>(self.owner.1));
        put(124, &number::<12>(self.size));
        put(136, &number::<12>(self.mtime));
        put(156, &[self.flag]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, self.magic);
        if self.magic != V7 {
            put(329, &number::<8>(self.device.0));
            put(337, &number::<8>(self.device.1));
        }
        put(345, self.prefix);
        put(386, &self.sparse);
        sealed(block)
    }
}

/// A header block with its checksum.
pub(crate) fn sealed(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Octal where it fits, else base 256.
pub(crate) fn number<const N: usize>(value: i64) -> [u8; N] {
    let mut field = [0; N];
    let octal = format!("{value:0width$o}", width = N - 1);
    if value >= 0 && octal.len() < N {
        field[..N - 1].copy_from_slice(octal.as_bytes());
        return field;
    }
    let wide = [if value < 0 { [0xff; 8] } else { [0; 8] }, value.to_be_bytes()].concat();
    field.copy_from_slice(&wide[16 - N..]);
    field[0] |= 0x80;
    field
}

pub(crate) fn padded(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

fn record(keyword: &[u8], value: &[u8]) -> Vec<u8> {
    let body = [b" ", keyword, b"=", value, b"\n"].concat();
    let mut length = body.len();
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    [length.to_string().as_bytes(), &body].concat()
}

/// A layer: the entries and the end marker.
pub(crate) fn layer(entries: &[Entry]) -> Vec<u8> {
    let mut bytes: Vec<u8> = entries.iter().flat_map(Entry::bytes).collect();
    bytes.extend(END);
    bytes
}
