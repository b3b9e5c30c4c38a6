//! `sarus ls`, `cat`, `diff` and `verify`: what is in images, without running them.

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::commands::{Registry, User};
use crate::packed::{Packed, tar};

/// An image file that mksquashfs made: `a`, `b`, `s`, a pipe `p`, and `d` with links.
fn file() -> String {
    format!("{}/fuzz/corpus/squashfs/zstd", env!("CARGO_MANIFEST_DIR"))
}

/// A registry with an image of these files.
fn serve(files: &[(&str, &[u8])]) -> Registry {
    Registry::serve(Packed::new(&[tar(files)], &json!({ "Cmd": ["sh"] })), false)
}

fn pulled(files: &[(&str, &[u8])]) -> (Registry, User, String) {
    let registry = serve(files);
    let user = User::of(&registry);
    let name = registry.name("team/app:1");
    user.output(&["pull", "--quiet", &name]);
    (registry, user, name)
}

#[test]
fn ls_lists_as_ls_does() {
    let user = User::new();
    let file = file();
    assert_eq!(user.output(&["ls", &file]), "a\nb\nd\np\ns\n");
    assert_eq!(user.output(&["ls", &file, "d"]), "e\nhard\nl\n");
    assert_eq!(user.output(&["ls", &file, "d/l", "/d/e/../hard"]), "d/l\n/d/e/../hard\n");
    assert_eq!(user.output(&["ls", "-d", &file, "/d"]), "/d\n");
    assert_eq!(user.output(&["ls", "-a", &file, "d"]), ".\n..\ne\nhard\nl\n");
    let recursive = user.output(&["ls", "-R", &file, "d"]);
    assert_eq!(recursive, "/d:\ne\nhard\nl\n\n/d/e:\n0\n1\n2\n3\n4\n5\n6\n7\n8\n");
    let long = user.output(&["ls", "-ln", &file]);
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines.len(), 5, "{long}");
    assert!(lines[0].starts_with("-rw-r--r-- 2 0 0  1500 1970-01-01 00:00 a"), "{long}");
    assert!(lines[3].starts_with("prw-r--r-- 1 0 0     0 "), "{long}");
    let link = user.output(&["ls", "-l", &file, "d/l"]);
    assert!(link.starts_with("lrwxrwxrwx 1 0 0 4 ") && link.ends_with(" d/l -> ../a\n"), "{link}");
    let error = user.failure(&["ls", &file, "d/absent"]);
    assert_eq!(
        error,
        format!(
            "error: cannot look into the image `{file}`\n  \
             caused by: there is no `/d/absent` in the image\n\
             hint: `sarus ls IMAGE PATH` shows what is there\n"
        )
    );
}

#[test]
fn ls_shows_the_images_own_owners_and_their_names() {
    let (_registry, user, name) = pulled(&[
        ("etc/passwd", b"root:x:0:0::/:\nada:x:1000:100::/:\n"),
        ("etc/group", b"staff:x:100:\n"),
        (".hidden", b""),
        ("file", b"12345"),
    ]);
    assert_eq!(user.output(&["ls", &name]), "etc\nfile\n");
    assert_eq!(user.output(&["ls", "-A", &name]), ".hidden\netc\nfile\n");
    let long = user.output(&["ls", "-l", &name, "file"]);
    assert_eq!(long, "-rw-r--r-- 1 ada staff 5 1970-01-01 00:00 file\n");
    let numbers = user.output(&["ls", "-ln", &name, "file"]);
    assert_eq!(numbers, "-rw-r--r-- 1 1000 100 5 1970-01-01 00:00 file\n");
    let records = user.json(&["ls", "--format=json", "-R", &name]);
    let records = records.as_array().unwrap();
    let paths: Vec<&str> = records.iter().map(|it| it["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/.hidden", "/etc", "/etc/group", "/etc/passwd", "/file"]);
    assert_eq!(
        records[4],
        json!({"path": "/file", "type": "file", "mode": "0644", "links": 1, "uid": 1000,
               "gid": 100, "size": 5, "mtime": 0})
    );
}

#[test]
fn ls_lists_what_is_there_beside_what_is_not() {
    let (_registry, user, name) = pulled(&[("a", b"1"), ("d/f", b"2")]);
    let said = user.sarus(&["ls", &name, "absent", "a", "d", "a/x"]);
    assert_eq!((said.status, said.out.as_str()), (125, "a\n\n/d:\nf\n"), "{}", said.err);
    assert!(said.err.contains("there is no `/absent`"), "{}", said.err);
    assert!(said.err.contains("`/a` in the image is no directory"), "{}", said.err);
    let said = user.sarus(&["ls", "--format=json", &name, "absent", "a"]);
    let records: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.status, records[0]["path"].as_str()), (125, Some("/a")), "{}", said.err);
}

#[test]
fn cat_prints_files_as_they_are_one_behind_the_other() {
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let (_registry, user, name) =
        pulled(&[("a", b"first\n"), ("bytes", &bytes), ("d/f", b"x"), ("zeros", &[0; 200_000])]);
    assert_eq!(user.output(&["cat", &name, "a", "/d/../a"]), "first\nfirst\n");
    let mut child = Command::new(env!("CARGO_BIN_EXE_sarus-command"))
        .args(["cat", &name, "bytes", "zeros"])
        .env_clear()
        .env("HOME", user.path(""))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut got = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(got == [&bytes[..], &[0; 200_000]].concat(), "{} bytes", got.len());

    let error = user.failure(&["cat", &name, "d"]);
    let want = format!("error: cannot print `/d` of the image `{name}`: it is a directory, not a");
    assert!(error.starts_with(&want), "{error}");
    let said = user.sarus(&["cat", &name, "absent", "a", "d"]);
    assert_eq!((said.status, said.out.as_str()), (125, "first\n"));
    assert!(
        said.err.contains("there is no `/absent`") && said.err.contains("`/d`"),
        "{}",
        said.err
    );
    assert!(said.err.ends_with("error: 2 of 3 files could not be printed\n"), "{}", said.err);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (_registry, user, name) = pulled(&[("zeros", &[0; 3_000_000])]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_sarus-command"))
        .args(["cat", &name, "zeros"])
        .env_clear()
        .env("HOME", user.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

#[test]
fn diff_tells_what_became_of_each_entry() {
    let (_registry, user, name) =
        pulled(&[("same", b"s"), ("content", b"a"), ("gone", b""), ("size", b"1")]);
    let other = serve(&[("same", b"s"), ("content", b"b"), ("new/f", b""), ("size", b"22")]);
    user.put(
        ".config/containers/registries.conf",
        &format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", other.host),
    );
    let newer = other.name("team/app:2");
    user.output(&["pull", "--quiet", &newer]);
    assert_eq!(user.output(&["diff", &name, &name]), "");
    assert_eq!(user.output(&["diff", "--format=json", &name, &name]), "[]\n");
    let want = "C /content\nD /gone\nA /new\nA /new/f\nC /size\n";
    assert_eq!(user.output(&["diff", &name, &newer]), want);
    assert_eq!(
        user.json(&["diff", "--format=json", &name, &newer]),
        json!([
            {"path": "/content", "change": "changed", "what": ["content"]},
            {"path": "/gone", "change": "deleted"},
            {"path": "/new", "change": "added"},
            {"path": "/new/f", "change": "added"},
            {"path": "/size", "change": "changed", "what": ["size"]},
        ])
    );
    // A file and an image of the store: the file has the owners that the image has.
    user.output(&["export", &name, "out.sqsh"]);
    assert_eq!(user.output(&["diff", "--times", &name, "out.sqsh"]), "");
    let error = user.failure(&["diff", &name, "debian"]);
    assert!(error.starts_with("error: there is no image `debian` in the store\n"), "{error}");
}

fn squashfs(user: &User, name: &str) -> PathBuf {
    let record = &user.json(&["inspect", name])[0];
    assert!(record["conversion"]["squashfsDigest"].as_str().unwrap().starts_with("sha256:"));
    assert!(record["digest"].is_string() && record["configDigest"].is_string());
    PathBuf::from(record["squashfs"].as_str().unwrap())
}

#[test]
fn verify_finds_every_altered_byte() {
    let noise: Vec<u8> =
        (0..40_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let (_registry, user, name) = pulled(&[("a", b"a"), ("noise", &noise)]);
    assert_eq!(user.output(&["verify", &name]), format!("{name}: sound\n"));
    assert_eq!(
        user.output(&["verify", "--all", "--deep"]),
        format!("{name}: sound, 3 entries read\n")
    );
    let path = squashfs(&user, &name);
    let good = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for at in [200, good.len() / 2, good.len() - 1] {
        file.write_all_at(&[good[at] ^ 0x10], at.try_into().unwrap()).unwrap();
        let said = user.sarus(&["verify", &name]);
        assert_eq!((said.status, said.out), (125, format!("{name}: NOT SOUND\n")), "byte {at}");
        let digest = format!("error: `{}` is damaged: its digest is sha256:", path.display());
        assert!(said.err.starts_with(&digest), "{}", said.err);
        assert!(said.err.contains("error: 1 of 1 images is not sound\n"), "{}", said.err);
        file.write_all_at(&good, 0).unwrap();
    }
    // What the hint says mends it, also under a second name. A pull alone does not.
    let reference = sarus_oci::Reference::parse("second:1").unwrap();
    let digest = user.json(&["inspect", &name])[0]["digest"].as_str().unwrap().parse().unwrap();
    let store = sarus_store::Store::open(user.path(".local/share/sarus"));
    store.tag(&reference, &sarus_oci::Platform::host(), &digest).unwrap();
    file.write_all_at(&[good[200] ^ 0x10], 200).unwrap();
    user.output(&["pull", "--quiet", &name]);
    let said = user.sarus(&["verify", &name]);
    assert!(said.err.contains("hint: `sarus rmi --force ID`"), "{}", said.err);
    assert!(!said.err.contains("hint: `sarus pull`"), "{}", said.err);
    let images = user.json(&["images", "--format=json"]);
    let id = images[0]["imageId"].as_str().unwrap().to_owned();
    user.output(&["rmi", "--force", &id]);
    assert_eq!(user.json(&["images", "--format=json"]), json!([]));
    user.output(&["pull", "--quiet", &name]);
    assert_eq!(user.output(&["verify", &name]), format!("{name}: sound\n"));
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(100).unwrap();
    let said = user.sarus(&["verify", "--all", "--format=json"]);
    let records: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.status, &records[0]["sound"]), (125, &json!(false)), "{}", said.err);
    assert!(records[0]["error"].as_str().unwrap().contains("image.squashfs"), "{records}");
    user.output(&["pull", "--quiet", &name]);
    assert_eq!(
        user.output(&["verify", "--deep", &name]),
        format!("{name}: sound, 3 entries read\n")
    );
    // A name that leads to nothing is not passed over.
    fs_err::remove_file(path.with_file_name("image.json")).unwrap();
    let said = user.sarus(&["verify", "--all"]);
    assert_eq!((said.status, said.out), (125, format!("{name}: NOT SOUND\n")));
    assert!(said.err.starts_with(&format!("error: there is no image `{name}`")), "{}", said.err);
}

#[test]
fn verify_knows_files_and_what_is_none() {
    let user = User::new();
    let file = file();
    let said = user.output(&["verify", &file]);
    assert!(said.starts_with(&format!("{file}: sound, ")), "{said}");
    let mut bytes = fs::read(&file).unwrap();
    // Where the first block begins that is compressed.
    let frame = bytes.windows(4).position(|window| window == b"\x28\xb5\x2f\xfd").unwrap();
    bytes[frame..frame + 4].fill(0xaa);
    fs_err::write(user.path("bad.sqsh"), bytes).unwrap();
    fs_err::write(user.path("none.sqsh"), b"text").unwrap();
    let said = user.sarus(&["verify", "bad.sqsh", "none.sqsh", &file]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[..2], ["bad.sqsh: NOT SOUND", "none.sqsh: NOT SOUND"], "{}", said.err);
    assert!(said.err.contains("caused by: cannot read `/"), "{}", said.err);
    assert!(said.err.ends_with("; a file is to be made or copied anew\n"), "{}", said.err);
    let error = user.failure(&["verify", "debian"]);
    assert!(error.starts_with("error: there is no image `debian` in the store\n"), "{error}");
    assert_eq!(user.output(&["verify", "--all"]), "");
}

#[test]
fn what_a_terminal_would_obey_is_not_shown_to_it() {
    use sarus_cli::output::visible;
    assert_eq!(visible(b"plain \xc3\xa4"), "plain ä");
    assert_eq!(visible(b"\x1b]0;title\x07\xff\xc2\x9b2J\n"), "?]0;title???2J?");
}
