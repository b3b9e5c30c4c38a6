//! Merging of layers: tar reading, decompression, and what extraction in order leaves.
//!
//! Every row's outcome was compared with `umoci unpack` as root, where that accepts the row.

pub(crate) mod tar_builder;

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::fmt::Write;
use std::io::{self, Read};
use std::sync::Mutex;

use sarus_squash::merge::{ContentSink, MergeError, Merger};
use sarus_squash::tar::Archive;
use sarus_squash::{
    ContentId, ConvertError, Kind, Layer, Merged, Metadata, NodeId, Progress, Tree, merge_layers,
};
use tar_builder::{
    END, Entry, GNU, V7, dir, entry, file, hard, layer, number, padded, pax, sealed, sym,
};

/// Keeps contents in memory; a hole of more than 64 KiB as a note.
#[derive(Default, Debug)]
struct Contents {
    files: Vec<Vec<u8>>,
    open: Option<Vec<u8>>,
}

impl Contents {
    fn open(&mut self) -> &mut Vec<u8> {
        self.open.as_mut().expect("data comes between start and end of a file")
    }
}

impl ContentSink for Contents {
    type Error = Infallible;

    fn start_file(&mut self) -> Result<(), Infallible> {
        assert!(self.open.replace(Vec::new()).is_none(), "one file is open at a time");
        Ok(())
    }

    fn append(&mut self, data: &[u8]) -> Result<(), Infallible> {
        self.open().extend(data);
        Ok(())
    }

    fn append_zeros(&mut self, length: u64) -> Result<(), Infallible> {
        if length > 65536 {
            write!(self.note(), "<{length} zeros>").unwrap();
        } else {
            let zeros = vec![0; length.try_into().unwrap()];
            self.open().extend(zeros);
        }
        Ok(())
    }

    fn end_file(&mut self) -> Result<ContentId, Infallible> {
        self.files.push(self.open.take().expect("a file is open"));
        Ok(ContentId((self.files.len() - 1).try_into().unwrap()))
    }
}

struct Note<'a>(&'a mut Vec<u8>);

impl Write for Note<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend(text.as_bytes());
        Ok(())
    }
}

impl Contents {
    fn note(&mut self) -> Note<'_> {
        Note(self.open())
    }
}

type Outcome = Result<Merged<Contents>, ConvertError>;

fn merge_blobs(blobs: &[Vec<u8>]) -> Outcome {
    let layers = blobs.iter().enumerate().map(|(index, blob)| {
        Ok::<_, io::Error>(Layer { name: format!("layer{index}"), reader: Box::new(&blob[..]) })
    });
    merge_layers(layers, Contents::default(), 7, &|_progress| ())
}

fn merge(layers: &[&[Entry]]) -> Outcome {
    let blobs: Vec<_> = layers.iter().map(|entries| layer(entries)).collect();
    merge_blobs(&blobs)
}

/// A line per path: type and mode, owner and time if not 0, attributes, content; a further name of
/// an inode says which is its first.
fn listing(merged: &Merged<Contents>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first_names = HashMap::new();
    let mut pending = vec![(String::from("/"), Tree::ROOT)];
    while let Some((path, id)) = pending.pop() {
        let node = merged.tree.node(id);
        if let Kind::Directory(names) = &node.kind {
            for (name, child) in names.iter().rev() {
                let parent = path.trim_end_matches('/');
                pending.push((format!("{parent}/{}", name.escape_ascii()), child));
            }
        } else if let Some(first) = first_names.insert(id, path.clone()) {
            lines.push(format!("{path} = {first}"));
            first_names.insert(id, first);
            continue;
        }
        lines.push(format!("{path} {}", line(merged, id)));
    }
    lines
}

fn line(merged: &Merged<Contents>, id: NodeId) -> String {
    let node = merged.tree.node(id);
    let Metadata { mode, uid, gid, mtime, xattrs } = &node.metadata;
    let mut line = match &node.kind {
        Kind::Directory(_) => format!("d{mode:o}"),
        Kind::File(id) => {
            let content = &merged.sink.files[id.0 as usize];
            format!("f{mode:o} '{}'", content.escape_ascii().to_string().replace("\\x00", "."))
        }
        Kind::Symlink(target) => format!("l{mode:o} -> {}", target.escape_ascii()),
        Kind::CharDevice { major, minor } => format!("c{mode:o} {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("b{mode:o} {major}:{minor}"),
        Kind::Fifo => format!("p{mode:o}"),
        Kind::Socket => format!("s{mode:o}"),
    };
    if (*uid, *gid) != (0, 0) {
        write!(line, " {uid}:{gid}").unwrap();
    }
    if *mtime != 0 {
        write!(line, " @{mtime}").unwrap();
    }
    for (name, value) in xattrs.iter().flat_map(|xattrs| xattrs.iter()) {
        write!(line, " {}={}", name.escape_ascii(), value.escape_ascii()).unwrap();
    }
    line
}

fn error_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").unwrap();
        cause = error.source();
    }
    text
}

/// The listing without the root's line, or the error with its causes.
fn outcome(outcome: Outcome) -> Vec<String> {
    match outcome {
        Ok(merged) => listing(&merged).split_off(1),
        Err(error) => vec![error_text(&error)],
    }
}

#[track_caller]
fn check(claim: &str, layers: &[&[Entry]], want: &[&str]) {
    assert_eq!(outcome(merge(layers)), want, "{claim}");
}

#[test]
fn a_layer_makes_what_its_entries_say() {
    let attributes = file("f", "x")
        .mode(0o104_755)
        .owner(1000, 70000)
        .mtime(1_600_000_000)
        .xattr("user.a", b"1\0\n2")
        .xattr("security.capability", b"\x01\0\0\x02");
    check(
        "types, modes, owners, times and attributes",
        &[&[
            attributes,
            entry("c", b'3').mode(0o600).device(4095, 1_048_575),
            entry("b", b'4').device(8, 256),
            entry("p", b'6').mode(0o2666),
            sym("s", "/nowhere/../x").mode(0o640).owner(5, 6).xattr("trusted.t", "v"),
            dir("d/").mode(0o1777),
            file("empty", ""),
        ]],
        &[
            "/b b644 8:256",
            "/c c600 4095:1048575",
            "/d d1777",
            "/empty f644 ''",
            "/f f4755 'x' 1000:70000 @1600000000 security.capability=\\x01\\x00\\x00\\x02 \
             user.a=1\\x00\\n2",
            "/p p2666",
            "/s l777 -> /nowhere/../x 5:6 trusted.t=v",
        ],
    );
    check(
        "parents that no entry names are 0755 root:root at the given time; later ones correct them",
        &[&[file("a/b/f", ""), dir("a").mode(0o700).owner(3, 4).mtime(9)]],
        &["/a d700 3:4 @9", "/a/b d755 @7", "/a/b/f f644 ''"],
    );
    check(
        "such parents inherit the set-group-ID bit, as mkdir does",
        &[&[dir("g").mode(0o2775).owner(1, 50), file("g/h/f", "")]],
        &["/g d2775 1:50", "/g/h d2755 0:50 @7", "/g/h/f f644 ''"],
    );
    check(
        "of duplicate entries the last counts",
        &[&[file("f", "1").xattr("user.a", "1"), file("f", "2"), sym("f", "t"), file("f", "3")]],
        &["/f f644 '3'"],
    );
    check(
        "names may be any bytes",
        &[&[file(b"\xff\xfe", "x"), file(b"\xffd/\n", ""), sym("s", b"\xc3")]],
        &["/s l777 -> \\xc3", "/\\xffd d755 @7", "/\\xffd/\\n f644 ''", "/\\xff\\xfe f644 'x'"],
    );
}

#[test]
fn the_root_takes_its_entry() {
    let root = |entries: &[Entry]| listing(&merge(&[entries]).unwrap()).remove(0);
    assert_eq!(root(&[file("f", "")]), "/ d755");
    for name in ["./", ".", "/", "a/..", "../..", ""] {
        let entry = dir(name).mode(0o1711).owner(4, 5).mtime(77).xattr("user.r", "1");
        assert_eq!(root(&[entry]), "/ d1711 4:5 @77 user.r=1", "{name:?}");
    }
}

#[test]
fn paths_stay_inside_the_root() {
    check(
        "absolute, dotted and climbing paths",
        &[&[
            file("/abs", ""),
            file("./dot", ""),
            file("../../up", ""),
            file("x/../../../y//./z/", ""),
            hard("h", "../../../../abs"),
        ]],
        &["/abs f644 ''", "/dot f644 ''", "/h = /abs", "/up f644 ''", "/y d755 @7", "/y/z f644 ''"],
    );
    for (target, at) in [
        ("/real", "/real"),
        ("real", "/real"),
        ("../../../real", "/real"),
        ("a/../real/", "/real"),
        ("missing/../real", "/real"),
        ("one", "/real"),
        ("/", ""),
        ("..", ""),
    ] {
        let below = [sym("one", "two"), sym("two", "/sub/three"), sym("sub/three", "../real")];
        let merged =
            merge(&[&[dir("real"), dir("a")], &below, &[sym("l", target), file("l/f", "x")]]);
        let lines = listing(&merged.unwrap());
        assert!(lines.contains(&format!("{at}/f f644 'x'")), "{target}: {lines:?}");
        assert!(lines.contains(&format!("/l l777 -> {target}")), "{target}: {lines:?}");
    }
    check(
        "a dangling link becomes true",
        &[&[sym("l", "/x/y")], &[file("l/f", "")]],
        &["/l l777 -> /x/y", "/x d755 @7", "/x/y d755 @7", "/x/y/f f644 ''"],
    );
    check(
        "loops are refused",
        &[&[sym("a", "b"), sym("b", "a"), file("a/f", "")]],
        &[
            "cannot apply entry 3 of layer `layer0`, `a/f`: more than 255 symbolic links in the path",
        ],
    );
}

#[test]
fn a_newer_layer_replaces() {
    let tree: &[Entry] = &[
        dir("d").mode(0o700).owner(1, 1).mtime(5).xattr("user.a", "1").xattr("user.b", "1"),
        file("d/f", "old"),
    ];
    check(
        "a directory's entry replaces its metadata and keeps its content",
        &[tree, &[dir("d").owner(2, 2).xattr("user.b", "2")]],
        &["/d d755 2:2 user.b=2", "/d/f f644 'old'"],
    );
    check(
        "what changes in a directory leaves its metadata",
        &[tree, &[file("d/f", "new")]],
        &["/d d700 1:1 @5 user.a=1 user.b=1", "/d/f f644 'new'"],
    );
    check("a file over a directory", &[tree, &[file("d", "x")]], &["/d f644 'x'"]);
    check("a link over a directory", &[tree, &[sym("d", "e")]], &["/d l777 -> e"]);
    check(
        "and a directory again, empty",
        &[tree, &[sym("d", "e")], &[dir("d")], &[file("d/g", "")]],
        &["/d d755", "/d/g f644 ''"],
    );
    check(
        "a directory over a link to a directory replaces the link",
        &[&[dir("e"), sym("d", "e")], &[dir("d"), file("d/f", "")]],
        &["/d d755", "/d/f f644 ''", "/e d755"],
    );
    check(
        "an entry below a link goes where the link leads",
        &[&[dir("e"), sym("d", "e")], &[file("d/f", "")]],
        &["/d l777 -> e", "/e d755", "/e/f f644 ''"],
    );
    check(
        "below a file there is no place",
        &[&[file("f", "")], &[file("f/x/g", "")]],
        &[
            "cannot apply entry 1 of layer `layer1`, `f/x/g`: `f`, which the path leads through, is no directory",
        ],
    );
}

#[test]
fn hard_links_are_names_of_one_inode() {
    check(
        "across layers, from below a link, to a symbolic link; their own metadata does not count",
        &[
            &[file("r/f", "x").owner(3, 3), sym("s", "nowhere"), sym("p", "/r")],
            &[
                hard("h", "p/f").mode(0).owner(9, 9).xattr("user.q", "1"),
                hard("t", "s"),
                hard("i", "h"),
            ],
        ],
        &[
            "/h f644 'x' 3:3",
            "/i = /h",
            "/p l777 -> /r",
            "/r d755 @7",
            "/r/f = /h",
            "/s l777 -> nowhere",
            "/t = /s",
        ],
    );
    check(
        "names survive the replacement and the removal of others",
        &[&[file("f", "x"), hard("g", "f"), hard("h", "f")], &[file("f", "y"), file(".wh.g", "")]],
        &["/f f644 'y'", "/h f644 'x'"],
    );
    let data_that_is_none = Entry { size: 3, ..hard("h", "f") };
    check(
        "a size is ignored",
        &[&[file("f", "x"), data_that_is_none, file("g", "")]],
        &["/f f644 'x'", "/g f644 ''", "/h = /f"],
    );
    for (entries, want) in [
        ([dir("d"), hard("h", "g")], "`h`: it is a hard link to `g`, which does not exist"),
        ([file("h", ""), hard("h", "h")], "`h`: it is a hard link to `h`, which does not exist"),
        ([dir("d"), hard("h", "d/x/y")], "`h`: it is a hard link to `d/x/y`, which does not exist"),
        ([dir("d"), hard("h", "d/")], "`h`: it is a hard link to `d/`, which is a directory"),
        ([dir("d"), hard("h", "")], "`h`: it is a hard link to ``, which is a directory"),
    ] {
        let want = format!("cannot apply entry 2 of layer `layer0`, {want}");
        assert_eq!(outcome(merge(&[&entries])), [want]);
    }
}

#[test]
fn whiteouts_hide_older_layers_only() {
    let old: &[Entry] = &[file("d/f", "1"), file("d/g", "2"), file("d/s/h", "3"), file("e", "4")];
    let wh = |name| file(name, "");
    let opaque = || file("d/.wh..wh..opq", "");
    check(
        "of a file",
        &[old, &[wh("d/.wh.f"), wh(".wh.e")]],
        &["/d d755 @7", "/d/g f644 '2'", "/d/s d755 @7", "/d/s/h f644 '3'"],
    );
    check("of a directory", &[old, &[wh(".wh.d")]], &["/e f644 '4'"]);
    check("of nothing", &[&[], &[wh("x/y/.wh.z"), wh(".wh.a"), wh("q/.wh..wh..opq")]], &[]);
    let after = &["/d d755 @7", "/d/f f644 'n'", "/d/s d755 @7", "/d/s/n f644 ''", "/e f644 '4'"];
    let new = || [file("d/f", "n"), file("d/s/n", "")];
    let [f, n] = new();
    check("an opaque marker after the entries", &[old, &[f, n, opaque()]], after);
    let [f, n] = new();
    check("an opaque marker between them", &[old, &[f, opaque(), n]], after);
    let [f, n] = new();
    check("an opaque marker before them", &[old, &[opaque(), f, n]], after);
    let [f, n] = new();
    check("a whiteout of their directory after them", &[old, &[f, n, wh(".wh.d")]], after);
    check(
        "a whiteout after an entry that it names",
        &[old, &[file("e", "n"), wh(".wh.e")]],
        &[
            "/d d755 @7",
            "/d/f f644 '1'",
            "/d/g f644 '2'",
            "/d/s d755 @7",
            "/d/s/h f644 '3'",
            "/e f644 'n'",
        ],
    );
    check(
        "a new name of an old inode survives, the old name does not",
        &[old, &[hard("d/k", "e"), wh(".wh.d"), wh(".wh.e"), opaque()]],
        &["/d d755 @7", "/d/k f644 '4'"],
    );
    check(
        "any type of entry, through a link, below a file",
        &[
            &[dir("r"), file("r/f", ""), sym("l", "r"), file("x", "")],
            &[sym("l/.wh.f", "q"), dir("x/.wh.y"), dir("x/.wh..wh..opq")],
        ],
        &["/l l777 -> r", "/r d755", "/x f644 ''"],
    );
    check(
        "other reserved names leave nothing",
        &[&[file(".wh..wh.plnk", ""), dir(".wh..wh.aufs"), file("a/.wh..wh.orph", "")]],
        &[],
    );
    for (name, hidden) in [("d/.wh.", ""), ("d/.wh..", "."), ("d/.wh...", "..")] {
        let want = format!(
            "cannot apply entry 1 of layer `layer1`, `{name}`: a whiteout of `{hidden}`, expected the name of a file"
        );
        assert_eq!(outcome(merge(&[old, &[wh(name)]])), [want]);
    }
}

#[test]
fn attributes_that_belong_to_no_image_are_left_out() {
    check(
        "labels, overlay marks, foreign namespaces, empty values",
        &[&[
            dir("d")
                .xattr("security.selinux", "l")
                .xattr("trusted.overlay.opaque", "y")
                .xattr("user.overlay.opaque", "y")
                .xattr("system.posix_acl_access", "a")
                .xattr("foo.bar", "x")
                .xattr("user.", "x")
                .xattr("user.empty", "")
                .xattr("user.kept", "1"),
            sym("s", "t").xattr("user.a", "1").xattr("trusted.kept", "1"),
            entry("p", b'6').xattr("user.a", "1"),
        ]],
        &["/d d755 user.kept=1", "/p p644", "/s l777 -> t trusted.kept=1"],
    );
    check(
        "libarchive's keywords count where the other is missing",
        &[&[file("f", "")
            .record("LIBARCHIVE.xattr.user.a%20%zz", "aGVsbG8/Kw")
            .record("LIBARCHIVE.xattr.user.c", "Mg==")
            .xattr("user.c", "1")]],
        &["/f f644 '' user.a %zz=hello?+ user.c=1"],
    );
}

#[test]
fn limits_are_those_of_linux() {
    let deep =
        |last: usize| format!("{}/{}", vec!["d".repeat(204); 19].join("/"), "e".repeat(last));
    for magic in [tar_builder::USTAR, GNU] {
        let merged = merge(&[&[
            file(deep(201), "x").magic(magic),
            file("n".repeat(255), "").magic(magic),
            sym("s", "t".repeat(4095)).magic(magic),
            hard("h", deep(201)).magic(magic),
        ]]);
        assert_eq!(listing(&merged.unwrap()).len(), 1 + 19 + 1 + 3);
    }
    for (entry, want) in [
        (file(deep(202), ""), "a path of 4097 bytes, at most 4096 are allowed"),
        (file("n".repeat(256), ""), "a name of 256 bytes, at most 255 are allowed"),
        (
            file(format!("{}/x", "n".repeat(256)), ""),
            "a name of 256 bytes, at most 255 are allowed",
        ),
        (
            sym("s", "t".repeat(4096)),
            "the target of a symbolic link has 4096 bytes, expected 1 to 4095",
        ),
        (sym("s", ""), "the target of a symbolic link has 0 bytes, expected 1 to 4095"),
        (
            file("f", "").record("uid", "4294967296"),
            "`uid` is 4294967296, expected a number below 2^32",
        ),
        (
            file("f", "").owner(0, -5_000_000_000_000_000),
            "`gid` is -5000000000000000, expected a number below 2^32",
        ),
        (entry("f", b'Z'), "the type of the entry is `Z`, expected `0` to `7`"),
        (file("..", ""), "the root directory can only be a directory"),
        (
            file("f", "").xattr("user.v", "v".repeat(65537)),
            "extended attribute `user.v` has a value of 65537 bytes, at most 65536 are allowed",
        ),
        (
            sparse_file("9223372036854775807"),
            "a file of 9223372036854775807 bytes, at most 2199023255552 are allowed",
        ),
    ] {
        let text = outcome(merge(&[&[entry]])).remove(0);
        let causes = text.split_once("`: ").map(|(_, causes)| causes.to_owned());
        let cut = causes.as_deref().unwrap_or(&text);
        assert!(cut.ends_with(want), "{text}");
    }
    check(
        "a path that links make too long",
        &[&[
            sym("l", vec!["d".repeat(255); 15].join("/")),
            sym("m", "l/l/../../../l"),
            file(format!("l/{}/x", vec!["e".repeat(200); 2].join("/")), ""),
        ]],
        &[&format!(
            "cannot apply entry 3 of layer `layer0`, `l/{0}/{0}/x`: a path of 4241 bytes, at most 4096 are allowed",
            "e".repeat(200)
        )],
    );
    check(
        "numbers are taken as the system calls take them",
        &[&[
            file("a", "").owner(-2, 4_294_967_294).mtime(-5),
            file("b", "").owner(-1, 4_294_967_295).mtime(1 << 33),
            dir("d").owner(3, 4),
            dir("d").owner(-1, 4_294_967_295),
            entry("z", b'3').device(4096 + 5, (1 << 20) + 7).mode(-1),
        ]],
        &[
            "/a f644 '' 4294967294:4294967294",
            "/b f644 '' @4294967295",
            "/d d755 3:4",
            "/z c7777 5:7",
        ],
    );
}

fn sparse_file(size: &str) -> Entry {
    file("f", "")
        .record("GNU.sparse.major", "0")
        .record("GNU.sparse.minor", "1")
        .record("GNU.sparse.numblocks", "0")
        .record("GNU.sparse.size", size)
}

#[test]
fn every_dialect_of_tar_is_read() {
    check(
        "V7: directories by a slash",
        &[&[
            entry("d/", 0).magic(V7),
            entry("d/f", 0).magic(V7).data("x"),
            entry("p", b'3').magic(V7).device(1, 2),
        ]],
        &["/d d644", "/d/f f644 'x'", "/p c644 0:0"],
    );
    check(
        "ustar: the name goes on in the prefix; GNU: it does not",
        &[&[
            file("f", "").prefix(b"p/q"),
            file("g", "").prefix(b"p/q").magic(GNU),
            file("h", "").prefix(b"12345").magic(GNU),
        ]],
        &["/h f644 ''", "/p d755 @7", "/p/q d755 @7", "/p/q/f f644 ''", "/p/q/g f644 ''"],
    );
    check(
        "PAX overrides the header, an empty value does not",
        &[
            &[file("f", "")
                .record("path", "long/name")
                .record("uid", "70000")
                .record("gid", "80000")
                .record("mtime", "1234567890.75")
                .record("linkpath", "")
                .record("comment", "x")],
            &[dir("d").record("mtime", "-0.5").record("path", "")],
        ],
        &["/d d755", "/long d755 @7", "/long/name f644 '' 70000:80000 @1234567890"],
    );
    check(
        "a PAX size counts",
        &[&[Entry { size: 0, ..file("f", "abc") }.record("size", "3"), file("g", "")]],
        &["/f f644 'abc'", "/g f644 ''"],
    );
    check(
        "global PAX headers hold until overridden",
        &[&[
            pax(b'g', &[("uid", b"5"), ("SCHILY.xattr.user.g", b"1")]),
            file("f", ""),
            pax(b'g', &[("gid", b"6")]),
            file("g", "").record("uid", "7").record("SCHILY.xattr.user.g", ""),
        ]],
        &["/f f644 '' 5:0 user.g=1", "/g f644 '' 7:6"],
    );
    check("contiguous files are files", &[&[entry("f", b'7').data("x")]], &["/f f644 'x'"]);
    let mut signed = file(b"\xff", "x").header();
    signed[148..156].copy_from_slice(b"        ");
    let sum: i32 = signed.iter().map(|&byte| i32::from(byte.cast_signed())).sum();
    signed[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let blob = [&signed[..], &padded(b"x"), &END].concat();
    assert_eq!(outcome(merge_blobs(&[blob])), ["/\\xff f644 'x'"], "signed checksums");
    let mut star = file("f", "").header();
    star[345..349].copy_from_slice(b"pre\0");
    star[476..512].copy_from_slice(b"00000000001 00000000001         tar\0");
    assert_eq!(outcome(merge_blobs(&[sealed(star).to_vec()])), ["/pre d755 @7", "/pre/f f644 ''"]);
}

fn map(segments: &[(i64, i64)]) -> Vec<u8> {
    segments
        .iter()
        .flat_map(|&(at, length)| [number::<12>(at), number::<12>(length)].concat())
        .collect()
}

/// GNU tar's old format: four segments in the header, 21 in each block that follows.
fn old_sparse(segments: &[(i64, i64)], size: i64, data: &[u8]) -> Vec<u8> {
    let split = segments.len().min(4);
    let (first, rest) = segments.split_at(split);
    let mut head = map(first);
    head.resize(96, 0);
    head.push(u8::from(!rest.is_empty()));
    head.extend(number::<12>(size));
    let header = entry("f", b'S').magic(GNU).data(data).sparse(head).header();
    let mut bytes = header.to_vec();
    let blocks: Vec<_> = rest.chunks(21).collect();
    for (index, chunk) in blocks.iter().enumerate() {
        let mut block = map(chunk);
        block.resize(504, 0);
        block.push(u8::from(index + 1 < blocks.len()));
        bytes.extend(padded(&block));
    }
    bytes.extend(padded(data));
    bytes.extend(layer(&[file("g", "")]));
    bytes
}

#[test]
fn sparse_files_get_their_holes() {
    let want = ["/f f644 '..ab...c.'", "/g f644 ''"];
    let blob = old_sparse(&[(2, 2), (7, 1)], 9, b"abc");
    assert_eq!(outcome(merge_blobs(&[blob])), want, "old GNU format");
    let many: Vec<_> = (0..50).map(|index| (2 * index, 1)).collect();
    let blob = old_sparse(&many, 100, &[b'x'; 50]);
    let x = "x.".repeat(50);
    assert_eq!(outcome(merge_blobs(&[blob])), [&format!("/f f644 '{x}'"), want[1]], "extended");
    let named = |version: (&str, &str)| {
        file("GNUSparseFile.0/f", "abc")
            .record("GNU.sparse.major", version.0)
            .record("GNU.sparse.minor", version.1)
            .record("GNU.sparse.name", "f")
    };
    let g = || file("g", "");
    let format_0_0 = file("f", "abc")
        .record("GNU.sparse.size", "9")
        .record("GNU.sparse.numblocks", "2")
        .record("GNU.sparse.offset", "2")
        .record("GNU.sparse.numbytes", "2")
        .record("GNU.sparse.offset", "7")
        .record("GNU.sparse.numbytes", "1");
    check("format 0.0", &[&[format_0_0, g()]], &want);
    let format_0_1 = named(("0", "1"))
        .record("GNU.sparse.size", "9")
        .record("GNU.sparse.numblocks", "2")
        .record("GNU.sparse.map", "2,2,7,1");
    check("format 0.1", &[&[format_0_1, g()]], &want);
    let format_1_0 = named(("1", "0"))
        .data([&padded(b"2\n2\n2\n7\n1\n")[..], b"abc"].concat())
        .record("GNU.sparse.realsize", "9");
    check("format 1.0", &[&[format_1_0, g()]], &want);
    check("all hole", &[&[sparse_file("70000"), g()]], &["/f f644 '<70000 zeros>'", want[1]]);
    for (segments, size, data, want) in [
        (&[(2, 2), (3, 1)][..], 9, &b"abc"[..], "has segments that overlap"),
        (&[(2, 2), (7, 1)], 7, b"abc", "has a segment beyond the end of the file"),
        (&[(2, 2), (7, 1)], 9, b"abcd", "does not account for the data that is stored"),
        (&[(-2, 2)], 9, b"ab", "has a negative number"),
    ] {
        let text = outcome(merge_blobs(&[old_sparse(segments, size, data)])).remove(0);
        assert!(text.ends_with(&format!("the map of a sparse file {want}")), "{text}");
    }
    for (entry, want) in [
        (named(("1", "0")).data(padded(b"9999999\n")), "has too many segments"),
        (
            named(("1", "0")).data([&b"1000\n"[..], &b"11\n".repeat(169)].concat()),
            "is longer than the entry",
        ),
        (named(("1", "0")).data(padded(&[b'1'; 30])), "has a number of more than 20 digits"),
        (sparse_file("5").record("GNU.sparse.map", "1"), "ends after an offset"),
        (sparse_file("5").record("GNU.sparse.map", "1,1"), "has not as many segments as it says"),
        (Entry { flag: b'5', ..sparse_file("5") }, "is given for what is no file"),
        (entry("f", b'S'), "is announced by a header that is not GNU tar's"),
    ] {
        let text = outcome(merge_blobs(&[layer(&[entry])])).remove(0);
        assert!(text.ends_with(&format!("the map of a sparse file {want}")), "{text}");
    }
}

#[test]
fn damaged_archives_are_refused_with_the_place() {
    let good = || file("f", "x").bytes();
    let cut = |bytes: Vec<u8>, length: usize| bytes[..length].to_vec();
    let field = |at: usize, text: &[u8]| {
        let mut block = file("g", "").header();
        block[at..at + text.len()].copy_from_slice(text);
        [good(), sealed(block).to_vec()].concat()
    };
    let at_2 = "layer `layer0` is no sound tar archive at entry 2, byte";
    let oversized = Entry { size: 2 << 20, ..entry("x", b'L') };
    for (blob, want) in [
        (b"hello".to_vec(), "layer `layer0` is no tar archive: the archive ends within a header: 507 more bytes expected".into()),
        (b"hello".repeat(200), "layer `layer0` is no tar archive: no tar header: its checksum field is `lohelloh`, the sum of its bytes 53870".into()),
        (cut(good(), 512), "layer `layer0` is no sound tar archive at entry 1, byte 512: the archive ends within a file's data: 1 more bytes expected".into()),
        ([good(), cut(good(), 100)].concat(), format!("{at_2} 1124: the archive ends within a header: 412 more bytes expected")),
        ([good(), vec![0; 512], good()].concat(), format!("{at_2} 2048: one block of zeros is followed by data; two end an archive")),
        (field(100, b"0000xyz"), format!("{at_2} 1536: `mode` is `0000xyz\\x00`, expected an octal or base-256 number below 2^63")),
        (field(124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), format!("{at_2} 1536: `size` is `-2`, expected a number that is not negative")),
        (field(136, b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), format!("{at_2} 1536: `mtime` is `\\xbf\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe`, expected an octal or base-256 number below 2^63")),
        ([good(), oversized.bytes()].concat(), format!("{at_2} 1536: a GNU long name of 2097152 bytes, at most 1048576 are allowed")),
        (file("f", "").record("mtime", "1.x").bytes(), "layer `layer0` is no sound tar archive at entry 1, byte 1536: `mtime` is `1.x`, expected seconds since 1970 as a decimal number".into()),
        (file("f", "").record("LIBARCHIVE.xattr.user.a", "?").bytes(), "layer `layer0` is no sound tar archive at entry 1, byte 1536: `LIBARCHIVE.xattr` is `?`, expected a value in base 64".into()),
    ] {
        assert_eq!(outcome(merge_blobs(&[blob])), [want]);
    }
    for (data, at, expected) in [
        (&b"5"[..], 0, "a record's length"),
        (b"x a=b\n", 0, "a record's length in decimal"),
        (b"99 a=b\n", 0, "a record's length within the header"),
        (b"6 a=bc", 0, "a newline at the end of a record"),
        (b"6 a=b\n6 abc\n", 6, "`=` in a record"),
        (b"5 =b\n", 0, "a keyword, and text without NUL"),
        (b"11 path=a\0\n", 0, "a keyword, and text without NUL"),
        (b"25 GNU.sparse.numbytes=1\n", 0, "pairs of sparse offset and numbytes"),
        (b"23 GNU.sparse.offset=1\n", 23, "`GNU.sparse.numbytes`"),
    ] {
        let text = outcome(merge_blobs(&[layer(&[entry("x", b'x').data(data)])])).remove(0);
        let want = format!("malformed PAX header at its byte {at}: expected {expected}");
        assert!(text.ends_with(&want), "{text}\n{want}");
    }
}

#[test]
fn the_end_of_an_archive_may_be_missing() {
    let entry = || file("f", "x").bytes();
    for (claim, blobs) in [
        ("two blocks of zeros", vec![[entry(), END.to_vec()].concat()]),
        ("one block of zeros", vec![[entry(), vec![0; 512]].concat()]),
        ("none", vec![entry()]),
        ("no padding either", vec![entry()[..513].to_vec()]),
        ("half the padding", vec![entry()[..700].to_vec()]),
        ("an extended header for nothing", vec![[entry(), pax(b'x', &[]).bytes()].concat()]),
        ("something behind the end", vec![[entry(), END.to_vec(), vec![b'!'; 9000]].concat()]),
        ("layers without entries", vec![vec![], END.to_vec(), entry(), vec![0; 512]]),
    ] {
        assert_eq!(outcome(merge_blobs(&blobs)), ["/f f644 'x'"], "{claim}");
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = flate2::read::GzEncoder::new(data, flate2::Compression::fast());
    encoder.read_to_end(&mut bytes).unwrap();
    bytes
}

fn zstd(data: &[u8]) -> Vec<u8> {
    zstd::encode_all(data, 1).unwrap()
}

#[test]
fn compression_is_found_by_its_magic() {
    let tar = layer(&[file("f", "x")]);
    let (head, tail) = tar.split_at(700);
    let skippable = [&b"\x5a\x2a\x4d\x18\x03\0\0\0abc"[..], &zstd(&tar)].concat();
    for (claim, blob) in [
        ("gzip", gzip(&tar)),
        ("gzip in two members", [gzip(head), gzip(tail)].concat()),
        ("gzip and zeros", [gzip(&tar), vec![0; 1000]].concat()),
        ("zstd", zstd(&tar)),
        ("zstd in two frames", [zstd(head), zstd(tail)].concat()),
        ("a skippable frame before", skippable.clone()),
        ("and behind", [zstd(&tar), skippable[..11].to_vec()].concat()),
    ] {
        assert_eq!(outcome(merge_blobs(&[blob])), ["/f f644 'x'"], "{claim}");
    }
    assert_eq!(outcome(merge_blobs(&[gzip(b""), zstd(b"")])), [""; 0], "empty layers");
    let short = |blob: Vec<u8>| blob[..blob.len() - 4].to_vec();
    let mut altered = gzip(&tar);
    let checksum = altered.len() - 8;
    altered[checksum] ^= 1;
    for (claim, blob) in [
        ("gzip cut", short(gzip(&tar))),
        ("gzip altered", altered),
        ("gzip and garbage", [gzip(&tar), b"garbage".to_vec()].concat()),
        ("gzip, zeros and a member", [gzip(&tar), vec![0; 3], gzip(&tar)].concat()),
        ("zstd cut", short(zstd(&tar))),
        ("zstd and garbage", [zstd(&tar), b"garbage".to_vec()].concat()),
    ] {
        let error = merge_blobs(&[blob]).unwrap_err();
        assert_eq!(error.to_string(), "cannot read layer `layer0`", "{claim}");
        assert!(error.source().is_some(), "{claim}");
    }
    for (magic, name) in
        [(&b"BZh9"[..], "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x04\x22\x4d\x18", "lz4")]
    {
        let blob = [magic, &[7; 600]].concat();
        let want = format!("layer `layer0` is compressed with {name}, expected gzip, zstd or none");
        assert_eq!(outcome(merge_blobs(&[blob])), [want]);
    }
    assert_eq!(outcome(merge_blobs(&[layer(&[file("BZh", "")])])), ["/BZh f644 ''"]);
}

/// Yields data, then an error.
struct Broken(io::Cursor<Vec<u8>>);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the wire is cut")),
            length => Ok(length),
        }
    }
}

#[test]
fn the_first_error_is_the_one_that_is_told() {
    let broken =
        |data: Vec<u8>| Layer { name: "b".into(), reader: Box::new(Broken(io::Cursor::new(data))) };
    let good =
        || Layer { name: "g".into(), reader: Box::new(io::Cursor::new(layer(&[file("f", "")]))) };
    let run = |layers: Vec<Result<Layer<'static>, String>>| {
        outcome(merge_layers(layers.into_iter(), Contents::default(), 0, &|_progress| ()))
    };
    assert_eq!(run(vec![Ok(good()), Err("blob not found".into())]), ["blob not found"]);
    assert_eq!(
        run(vec![Ok(good()), Ok(broken(vec![]))]),
        ["cannot read layer `b`: the wire is cut"]
    );
    let half = file("f", vec![b'x'; 600_000]).bytes()[..400_000].to_vec();
    assert_eq!(run(vec![Ok(broken(half))]), ["cannot read layer `b`: the wire is cut"]);
    let bad = [hard("h", "none").bytes(), file("f", vec![0; 9_000_000]).bytes()].concat();
    assert_eq!(
        run(vec![Ok(broken(bad)), Err("never asked for".into())]),
        [
            "cannot apply entry 1 of layer `b`, `h`: it is a hard link to `none`, which does not exist"
        ]
    );
    assert_eq!(run(vec![]), [""; 0], "no layers, no files");
}

#[test]
fn progress_counts_to_the_end_of_each_layer() {
    let big = layer(&[file("a", vec![1; 3_000_000]), file("b", "")]);
    let blobs = [gzip(&big), layer(&[file("c", "")])];
    let seen = Mutex::new(Vec::new());
    let layers = blobs
        .iter()
        .map(|blob| Ok::<_, io::Error>(Layer { name: String::new(), reader: Box::new(&blob[..]) }));
    let merged = merge_layers(layers, Contents::default(), 0, &|progress| {
        seen.lock().unwrap().push(progress);
    })
    .unwrap();
    assert_eq!((merged.entries, merged.unpacked_bytes), (3, 3_000_000));
    let seen = seen.into_inner().unwrap();
    let last = |layer| *seen.iter().rfind(|progress| progress.layer == layer).unwrap();
    let bytes = big.len().try_into().unwrap();
    assert_eq!(last(0), Progress { layer: 0, entries: 2, bytes, total: bytes });
    assert_eq!(last(1), Progress { layer: 1, entries: 1, bytes: 1536, total: bytes + 1536 });
    assert!(seen.len() > 10, "a large layer is reported in between: {}", seen.len());
}

#[test]
fn errors_say_what_to_do() {
    let hint = |blob: &[u8]| merge_blobs(&[blob.to_vec()]).unwrap_err().hint().unwrap_or_default();
    assert_eq!(
        hint(&[b"BZh".to_vec(), vec![1; 600]].concat()),
        "rebuild the image with gzip or zstd layers"
    );
    assert_eq!(hint(b"hello"), "the reference may name something else than a container image");
    let rebuild =
        "the image is damaged or was built wrong: rebuild it, or report it to its publisher";
    assert_eq!(hint(&layer(&[hard("h", "none")])), rebuild);
    assert_eq!(hint(&file("f", "x").bytes()[..512]), rebuild);
    assert_eq!(hint(&gzip(b"x")[..10]), "");
}

/// Without decompression and threads.
fn merge_in_place(blob: &[u8]) -> Result<(), MergeError<Infallible>> {
    let mut merger = Merger::new(Contents::default(), 0);
    let mut archive = Archive::new(blob);
    merger.begin_layer();
    while let Some(entry) = archive.next_entry()? {
        merger.apply(&entry, &mut archive)?;
    }
    Ok(())
}

/// A small generator (Knuth's constants), so that failures repeat.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33).try_into().unwrap()
}

#[test]
fn no_input_makes_it_panic() {
    let sample = [
        layer(&[
            dir("d").xattr("user.a", "1").record("mtime", "12.5"),
            file("d/f", "some data"),
            sym("s", "../d"),
            hard("s/h", "d/f"),
            file("n".repeat(150), "").magic(GNU),
            file("s/.wh.f", ""),
            sparse_file("600").data("xyz").record("GNU.sparse.map", "1,1,4,2"),
        ])[..6000]
            .to_vec(),
        old_sparse(&[(0, 1), (2, 1), (4, 1), (6, 1), (8, 1)], 9, b"abcde"),
    ]
    .concat();
    let mut state = 1;
    let mut outcomes = [0, 0];
    for round in 0..20_000 {
        let mut blob = sample.clone();
        for _ in 0..=random(&mut state) % 4 {
            let at = random(&mut state) % blob.len();
            blob[at] = random(&mut state).to_le_bytes()[0];
            // Most flips would end at the checksum: mend it.
            let start = at / 512 * 512;
            if round % 2 == 0 && start + 512 <= blob.len() {
                let block: [u8; 512] = blob[start..start + 512].try_into().unwrap();
                blob[start..start + 512].copy_from_slice(&sealed(block));
            }
        }
        let at = random(&mut state) % blob.len();
        if round % 3 == 0 {
            blob.truncate(at);
        }
        outcomes[usize::from(merge_in_place(&blob).is_ok())] += 1;
    }
    assert!(outcomes.iter().all(|&count| count > 300), "both good and bad input: {outcomes:?}");
}
