//! `sarus ls`

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use sarus_image::Looked;
use sarus_image::squash::browse::{BrowseError, Found, Last, Walk, find};
use sarus_image::squash::{ImageReader, Inode, InodeKind, ReadError};
use sarus_launch::RawString;
use serde::Serialize;

use crate::args::{Format, LsArgs};
use crate::error::{CliError, report};
use crate::names::Names;
use crate::output::{Lines, Records};
use crate::rows::{Page, Row, permissions, time};
use crate::settings::Settings;
use crate::to_stderr;

/// `sarus ls`
pub(crate) fn ls(args: &LsArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let stores = settings.stores(args.place.centralized_repository)?;
    let looked = Looked::open(&stores, &args.image, &args.place.platform())?;
    let squashfs = looked.squashfs()?;
    let reader = ImageReader::new(&squashfs)
        .map_err(|source| looked.failure(BrowseError::at(b"/", source)))?;
    let mut look = Look { looked: &looked, reader, args, missing: Vec::new() };
    let root = [OsString::from("/")];
    let paths = if args.paths.is_empty() { &root[..] } else { &args.paths };
    match args.format {
        Format::Json => look.json(paths),
        Format::Table => look.text(paths),
    }
}

struct Look<'a> {
    looked: &'a Looked,
    reader: ImageReader<'a>,
    args: &'a LsArgs,
    missing: Vec<CliError>,
}

/// All of an entry, for programs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    path: RawString,
    #[serde(rename = "type")]
    kind: &'static str,
    /// Permissions in octal.
    mode: String,
    links: u32,
    uid: u32,
    gid: u32,
    /// Bytes of a regular file.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    /// Seconds since 1970.
    mtime: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<RawString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<[u32; 2]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<Attribute>,
}

#[derive(Serialize)]
struct Attribute {
    name: RawString,
    value: RawBytes,
}

/// A string where the bytes are UTF-8, else an array of numbers.
#[derive(Serialize)]
#[serde(untagged)]
enum RawBytes {
    Text(String),
    Bytes(Vec<u8>),
}

impl Look<'_> {
    fn json(&mut self, paths: &[OsString]) -> Result<(), CliError> {
        let mut records = Records::default();
        for path in paths {
            let Some(found) = self.find(path)? else { continue };
            if !self.opens(&found) {
                records.put(&self.record(&found.path, &found.inode)?)?;
                continue;
            }
            self.each(&found, self.args.recursive, |look, path, inode| {
                records.put(&look.record(path, inode)?)
            })?;
        }
        records.end()?;
        self.end()
    }

    /// What was not found is told after the rest, as nothing of it may be lost.
    fn end(&mut self) -> Result<(), CliError> {
        let Some(last) = self.missing.pop() else { return Ok(()) };
        for error in &self.missing {
            to_stderr(&report(error, error.hint().as_deref()));
        }
        Err(last)
    }

    /// Files first, then directories with what is in them, as `ls` does.
    fn text(&mut self, paths: &[OsString]) -> Result<(), CliError> {
        let mut lines = Lines::default();
        let mut names = match (self.args.long, self.args.numeric_uid_gid) {
            (true, false) => Names::of_image(&mut self.reader),
            _ => Names::default(),
        };
        let mut directories = Vec::new();
        let mut page = Page::new(self.args.long);
        for path in paths {
            let Some(found) = self.find(path)? else { continue };
            if self.opens(&found) {
                directories.push(found);
            } else {
                let row = self.row(path.as_bytes(), &found.path, &found.inode, &mut names)?;
                page.add(row, &mut lines)?;
            }
        }
        page.end(&mut lines)?;
        let with_heads = paths.len() > 1 || self.args.recursive;
        let mut first = directories.len() + self.missing.len() == paths.len();
        for directory in directories {
            self.directory(&directory, with_heads.then_some(&mut first), &mut names, &mut lines)?;
            if !self.args.recursive {
                continue;
            }
            let mut walk = Walk::new(&self.reader, &directory).map_err(|e| self.failure(e))?;
            while let Some(met) = walk.next(&mut self.reader).map_err(|e| self.failure(e))? {
                if matches!(met.inode.kind, InodeKind::Directory(_)) {
                    let below =
                        Found { path: met.path, reference: met.entry.inode, inode: met.inode };
                    if self.shows_path(&directory.path, &below.path) {
                        self.directory(&below, Some(&mut first), &mut names, &mut lines)?;
                    }
                }
            }
        }
        lines.end()?;
        self.end()
    }

    /// One listing, and its head where it is one of several.
    fn directory(
        &mut self,
        directory: &Found,
        head: Option<&mut bool>,
        names: &mut Names,
        lines: &mut Lines,
    ) -> Result<(), CliError> {
        if let Some(first) = head {
            if !std::mem::take(first) {
                lines.put("\n")?;
            }
            lines.name(&directory.path)?;
            lines.put(":\n")?;
        }
        let mut page = Page::new(self.args.long);
        if self.args.all {
            for dots in [&b"."[..], b".."] {
                let path = [&directory.path, &b"/"[..], dots].concat();
                let found =
                    find(&mut self.reader, &path, Last::Keep).map_err(|e| self.failure(e))?;
                let row = self.row(dots, &found.path, &found.inode, names)?;
                page.add(row, lines)?;
            }
        }
        self.each(directory, false, |look, path, inode| {
            let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
            let row = look.row(name, path, inode, names)?;
            page.add(row, lines)
        })?;
        page.end(lines)
    }

    /// Calls `visit` for what is in a directory and is to be shown.
    fn each(
        &mut self,
        directory: &Found,
        recursive: bool,
        mut visit: impl FnMut(&mut Self, &[u8], &Inode) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        if recursive {
            let mut walk = Walk::new(&self.reader, directory).map_err(|e| self.failure(e))?;
            while let Some(met) = walk.next(&mut self.reader).map_err(|e| self.failure(e))? {
                visit(self, &met.path, &met.inode)?;
            }
            return Ok(());
        }
        let InodeKind::Directory(place) = &directory.inode.kind else { return Ok(()) };
        let mut entries = self.reader.entries(place);
        loop {
            let next = entries.next(&mut self.reader);
            let Some(entry) = next.map_err(|e| self.unreadable(&directory.path, e))? else {
                return Ok(());
            };
            if !self.shows(&entry.name) {
                continue;
            }
            let above = directory.path.strip_suffix(b"/").unwrap_or(&directory.path);
            let path = [above, b"/", &entry.name].concat();
            let inode = self.reader.inode(entry.inode).map_err(|e| self.unreadable(&path, e))?;
            visit(self, &path, &inode)?;
        }
    }

    /// As `ls`: a symbolic link is itself in a long listing, and else what it leads to. None, and taken
    /// note of, for what is not there.
    fn find(&mut self, path: &OsString) -> Result<Option<Found>, CliError> {
        let keep = self.args.long || self.args.directory || self.args.format == Format::Json;
        let last = if keep { Last::Keep } else { Last::Follow };
        let found = match find(&mut self.reader, path.as_bytes(), last) {
            Err(BrowseError::Missing { .. } | BrowseError::Links { .. }) if !keep => {
                find(&mut self.reader, path.as_bytes(), Last::Keep)
            }
            other => other,
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(
                error @ (BrowseError::Missing { .. }
                | BrowseError::NotADirectory { .. }
                | BrowseError::PathSize { .. }
                | BrowseError::Links { .. }),
            ) => {
                self.missing.push(self.failure(error).into());
                Ok(None)
            }
            Err(error) => Err(self.failure(error).into()),
        }
    }

    /// Whether what is in it is listed, and not the entry itself.
    fn opens(&self, found: &Found) -> bool {
        matches!(found.inode.kind, InodeKind::Directory(_)) && !self.args.directory
    }

    fn shows(&self, name: &[u8]) -> bool {
        let LsArgs { all, almost_all, format, .. } = *self.args;
        all || almost_all || format == Format::Json || !name.starts_with(b".")
    }

    /// Whether none of the directories on the way is hidden.
    fn shows_path(&self, above: &[u8], path: &[u8]) -> bool {
        let below = path.get(above.len()..).unwrap_or_default();
        below.split(|&byte| byte == b'/').all(|name| name.is_empty() || self.shows(name))
    }

    fn owners(&mut self, path: &[u8], inode: &Inode) -> Result<(u32, u32), CliError> {
        let ids = self.looked.ids();
        let uid = self.reader.owner(inode.owner, ids).map_err(|e| self.unreadable(path, e))?;
        let gid = self.reader.owner(inode.group, ids).map_err(|e| self.unreadable(path, e))?;
        Ok((uid, gid))
    }

    fn record(&mut self, path: &[u8], inode: &Inode) -> Result<Record, CliError> {
        let (uid, gid) = self.owners(path, inode)?;
        let raw = |bytes: &[u8]| RawString::from(OsString::from_vec(bytes.to_vec()));
        let xattrs = self.reader.xattrs(inode).map_err(|e| self.unreadable(path, e))?;
        Ok(Record {
            path: raw(path),
            kind: type_word(&inode.kind),
            mode: format!("{:04o}", inode.mode),
            links: inode.links,
            uid,
            gid,
            size: match &inode.kind {
                InodeKind::File(place) => Some(place.size),
                _ => None,
            },
            mtime: inode.mtime,
            target: match &inode.kind {
                InodeKind::Symlink(target) => Some(raw(target)),
                _ => None,
            },
            device: device(&inode.kind),
            xattrs: xattrs
                .into_iter()
                .map(|(name, value)| Attribute { name: raw(&name), value: bytes(value) })
                .collect(),
        })
    }

    fn row(
        &mut self,
        name: &[u8],
        path: &[u8],
        inode: &Inode,
        names: &mut Names,
    ) -> Result<Row, CliError> {
        let mut row = Row { name: name.to_vec(), ..Row::default() };
        if !self.args.long {
            return Ok(row);
        }
        let (uid, gid) = self.owners(path, inode)?;
        let size = match (&inode.kind, device(&inode.kind)) {
            (_, Some([major, minor])) => format!("{major}, {minor}"),
            (InodeKind::File(place), _) => place.size.to_string(),
            (InodeKind::Directory(place), _) => place.size.to_string(),
            (InodeKind::Symlink(target), _) => target.len().to_string(),
            _ => "0".to_owned(),
        };
        row.columns = [
            permissions(inode),
            inode.links.to_string(),
            names.user(uid),
            names.group(gid),
            size,
            time(inode.mtime),
        ];
        if let InodeKind::Symlink(target) = &inode.kind {
            row.target = Some(target.clone());
        }
        Ok(row)
    }

    fn failure(&self, error: BrowseError) -> sarus_image::ImageError {
        self.looked.failure(error)
    }

    fn unreadable(&self, path: &[u8], error: ReadError) -> sarus_image::ImageError {
        self.looked.failure(BrowseError::at(path, error))
    }
}

fn bytes(value: Vec<u8>) -> RawBytes {
    String::from_utf8(value)
        .map_or_else(|error| RawBytes::Bytes(error.into_bytes()), RawBytes::Text)
}

fn device(kind: &InodeKind) -> Option<[u32; 2]> {
    match *kind {
        InodeKind::CharDevice { major, minor } | InodeKind::BlockDevice { major, minor } => {
            Some([major, minor])
        }
        _ => None,
    }
}

fn type_word(kind: &InodeKind) -> &'static str {
    match kind {
        InodeKind::Directory(_) => "directory",
        InodeKind::File(_) => "file",
        InodeKind::Symlink(_) => "symlink",
        InodeKind::CharDevice { .. } => "character device",
        InodeKind::BlockDevice { .. } => "block device",
        InodeKind::Fifo => "fifo",
        InodeKind::Socket => "socket",
    }
}
