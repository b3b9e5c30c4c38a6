//! Lists a directory tree, a line for each entry with all that two trees can differ in:
//! path, type, mode, owner, size and hash or target or device, link count, extended attributes,
//! time. Sorted, so that two listings compare line by line.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program of the tests")]

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr, major, minor};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

fn main() {
    let root = std::env::args_os().nth(1).unwrap();
    let mut lines = Vec::new();
    walk(Path::new(&root), Path::new(""), &mut lines);
    lines.sort();
    print!("{}", lines.concat());
}

fn walk(root: &Path, path: &Path, lines: &mut Vec<String>) {
    lines.push(describe(root, path));
    let full = root.join(path);
    if full.symlink_metadata().unwrap().is_dir() {
        for entry in fs_err::read_dir(&full).unwrap() {
            walk(root, &path.join(entry.unwrap().file_name()), lines);
        }
    }
}

fn describe(root: &Path, path: &Path) -> String {
    let full = root.join(path);
    let data = full.symlink_metadata().unwrap();
    let kind = data.file_type();
    let content = if kind.is_dir() {
        // Neither size nor link count of a directory mean the same on two file systems.
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("link {}", full.read_link().unwrap().as_os_str().as_bytes().escape_ascii())
    } else if kind.is_file() {
        let hash = Sha256::digest(fs_err::read(&full).unwrap());
        let hex: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("file {} {hex} links {}", data.size(), data.nlink())
    } else if kind.is_fifo() {
        format!("fifo links {}", data.nlink())
    } else {
        let letter = if kind.is_block_device() { 'b' } else { 'c' };
        let number = data.rdev();
        format!("device {letter} {} {} links {}", major(number), minor(number), data.nlink())
    };
    let mut line = String::new();
    let name = path.as_os_str().as_bytes().escape_ascii();
    write!(line, "/{name} {:04o} {}:{} {content}", data.mode() & 0o7777, data.uid(), data.gid())
        .unwrap();
    for (name, value) in attributes(&full) {
        write!(line, " {name}={}", value.escape_ascii()).unwrap();
    }
    if !kind.is_dir() {
        write!(line, " at {}", data.mtime()).unwrap();
    }
    line.push('\n');
    line
}

fn attributes(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let length = match llistxattr(path, names.as_mut_slice()) {
        // A squashfs without any extended attribute says so of each file.
        Err(Errno::NOTSUP) => 0,
        length => length.unwrap(),
    };
    let mut found: Vec<_> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let length = lgetxattr(path, name, value.as_mut_slice()).unwrap();
            value.truncate(length);
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect();
    found.sort();
    found
}
