//! Loading images from archives, directories and image files: what they are told to be, and what
//! damaged and hostile ones lead to.

use std::fs;
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use sarus_image::policy::Policy;
use sarus_image::squash::Settings;
use sarus_image::{
    Format, ImageError, LoadRequest, Loaded, Location, PullSettings, Silent, load, unpack,
};
use sarus_oci::{Digest, Platform, Reference};
use sarus_unit_tests::chain;
use serde_json::{Value, json};

use crate::packed::{Packed, gzip, tar};
use crate::place::Place;
use crate::squash_merge::tar_builder::{Entry, dir, file, hard, layer, sym};

/// A load as a test asks for it.
struct Ask<'a> {
    location: &'a str,
    name: Option<&'a str>,
    format: Option<Format>,
    input: Option<&'a Path>,
}

impl Ask<'_> {
    fn of(location: &str) -> Ask<'_> {
        Ask { location, name: None, format: None, input: None }
    }
}

impl Place {
    fn ask(&self, ask: &Ask<'_>) -> Result<Vec<Loaded>, ImageError> {
        let request = LoadRequest {
            location: Location::of_argument(Path::new(ask.location)),
            name: ask.name.map(|name| Reference::parse(name).unwrap()),
            format: ask.format,
            platform: Platform::parse("linux/amd64").unwrap(),
            spool: self.directory.path().join("spool"),
        };
        fs_err::create_dir_all(&request.spool).unwrap();
        let settings = PullSettings {
            squash: Settings { threads: NonZeroUsize::MIN, ..Settings::default() },
            time: None,
            parallel: NonZeroUsize::MIN,
            blob_cache_bytes: 1 << 30,
            removal_grace: Duration::from_secs(3600),
            policy: Policy::accept_anything(),
        };
        let input = ask.input.map(|path| fs::File::open(path).unwrap());
        let loaded = load(&request, input, &self.store, &settings, &Silent);
        let kept = fs_err::read_dir(&request.spool).unwrap().count();
        assert_eq!(kept, 0, "something with a name is left in the spool");
        loaded
    }

    /// Loads a file with these bytes.
    fn load_bytes(&self, name: &str, bytes: &[u8]) -> Result<Vec<Loaded>, ImageError> {
        self.ask(&Ask::of(&self.write(name, bytes)))
    }

    /// Writes a file; returns its path.
    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.directory.path().join(name);
        fs_err::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Asserts that loading these bytes fails and leaves nothing; returns the error's lines.
    fn refuses(&self, what: &str, bytes: &[u8]) -> String {
        match self.load_bytes("refused.tar", bytes) {
            Ok(loaded) => panic!("{what}: loaded {loaded:?}"),
            Err(error) => {
                self.check_nothing_is_left();
                chain(&error)
            }
        }
    }

    fn check_nothing_is_left(&self) {
        for folder in ["images/v1", "names", "tmp", "blobs"] {
            let entries = fs_err::read_dir(self.store.root().join(folder));
            assert_eq!(entries.map_or(0, Iterator::count), 0, "{folder}");
        }
    }

    /// The content of a loaded image's file `path`.
    fn content(&self, loaded: &Loaded, path: &str) -> String {
        let tree = tempfile::tempdir().unwrap();
        unpack(&loaded.image.squashfs, tree.path()).unwrap();
        fs_err::read_to_string(tree.path().join(path)).unwrap()
    }
}

fn names(loaded: &[Loaded]) -> Vec<Vec<String>> {
    let of = |loaded: &Loaded| loaded.names.iter().map(ToString::to_string).collect();
    loaded.iter().map(of).collect()
}

/// What `docker save` says of an image.
struct Docker {
    config: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

impl Docker {
    /// An image of two layers, the second of which replaces `a`.
    fn new() -> Self {
        let layers = vec![tar(&[("a", b"1"), ("b", b"2")]), tar(&[("a", b"3")])];
        Self::of(layers)
    }

    fn of(layers: Vec<Vec<u8>>) -> Self {
        let ids: Vec<String> =
            layers.iter().map(|layer| Digest::sha256_of(layer).to_string()).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-05-01T10:00:00Z",
            "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers", "diff_ids": ids},
        });
        Self { config: config.to_string().into_bytes(), layers }
    }

    fn config_name(&self) -> String {
        format!("{}.json", Digest::sha256_of(&self.config).hex())
    }

    fn layer_names(&self) -> Vec<String> {
        (0..self.layers.len()).map(|number| format!("{number:064}/layer.tar")).collect()
    }

    fn manifest(&self, tags: &Value) -> Value {
        json!({"Config": self.config_name(), "RepoTags": tags, "Layers": self.layer_names()})
    }

    /// Its members without the manifest; `pack` is applied to the layers.
    fn members(&self, pack: fn(&[u8]) -> Vec<u8>) -> Vec<Entry> {
        let layers = self.layer_names().into_iter().zip(&self.layers);
        let layers = layers.map(|(name, layer)| file(name, pack(layer)));
        layers.chain([file(self.config_name(), &self.config)]).collect()
    }

    fn archive(&self, pack: fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let mut entries = self.members(pack);
        entries.push(manifest_json(&[self.manifest(&json!(["app:1"]))]));
        layer(&entries)
    }
}

fn manifest_json(images: &[Value]) -> Entry {
    file("manifest.json", json!(images).to_string())
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// The files of an OCI layout; `names` are the annotations of the one image.
fn layout(image: &Packed, annotations: &Value) -> Vec<(String, Vec<u8>)> {
    let manifest = image.manifest_bytes();
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.digest(), "size": manifest.len(), "annotations": annotations,
    }]});
    let blob =
        |digest: &Digest, bytes: &[u8]| (format!("blobs/sha256/{}", digest.hex()), bytes.to_vec());
    let mut files: Vec<_> = image.blobs.iter().map(|(digest, bytes)| blob(digest, bytes)).collect();
    files.push(blob(&image.digest(), &manifest));
    files.push(("index.json".to_owned(), index.to_string().into_bytes()));
    files.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<Entry> =
        files.iter().map(|(name, bytes)| file(format!("./{name}"), bytes)).collect();
    layer(&entries)
}

// What it is.

#[test]
fn an_archive_of_docker_is_one_image_however_it_is_packed() {
    let docker = Docker::new();
    let mut digests = Vec::new();
    for (what, bytes) in [
        ("plain", docker.archive(plain)),
        ("layers gzip", docker.archive(gzip)),
        ("layers zstd", docker.archive(zstd)),
        ("gzip", gzip(&docker.archive(plain))),
        ("zstd of gzip layers", zstd(&docker.archive(gzip))),
    ] {
        let place = Place::new();
        let loaded = place.load_bytes("app.tar", &bytes).unwrap();
        assert_eq!(names(&loaded), [["docker.io/library/app:1"]], "{what}");
        assert_eq!(place.content(&loaded[0], "a"), "3", "{what}");
        assert_eq!(loaded[0].image.metadata.config.cmd, Some(vec!["sh".to_owned()]));
        digests.push(loaded[0].image.digest.clone());
        assert!(!loaded[0].up_to_date);
        assert!(place.load_bytes("app.tar", &bytes).unwrap()[0].up_to_date, "{what}, again");
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn layers_may_be_links_and_shared_by_images() {
    let (one, two) = (Docker::new(), Docker::of(vec![tar(&[("only", b"two")])]));
    let mut entries = one.members(plain);
    let shared = format!("{}.tar", "f".repeat(64));
    entries.push(file(&shared, &two.layers[0]));
    entries.push(dir(format!("{}/", "e".repeat(64))));
    let (soft, firm) =
        (format!("{}/layer.tar", "e".repeat(64)), format!("{}/layer.tar", "d".repeat(64)));
    entries.push(sym(&soft, format!("../{shared}")));
    entries.push(hard(&firm, &soft));
    entries.push(file(two.config_name(), &two.config));
    let second = json!({"Config": two.config_name(), "RepoTags": ["two:2"], "Layers": [firm]});
    entries.push(manifest_json(&[one.manifest(&json!(["one:1", "uno"])), second]));
    let place = Place::new();
    let loaded = place.load_bytes("both.tar", &layer(&entries)).unwrap();
    assert_eq!(
        names(&loaded),
        [
            vec!["docker.io/library/one:1", "docker.io/library/uno:latest"],
            vec!["docker.io/library/two:2"],
        ]
    );
    assert_eq!(place.content(&loaded[1], "only"), "two");
    let path = place.directory.path().join("both.tar");
    for (wanted, name, count) in
        [("two:2", "docker.io/library/two:2", 1), ("@0", "docker.io/library/one:1", 2)]
    {
        let location = format!("docker-archive:{}:{wanted}", path.display());
        let loaded = place.ask(&Ask::of(&location)).unwrap();
        assert_eq!(
            (loaded[0].names[0].to_string(), loaded[0].names.len()),
            (name.to_owned(), count)
        );
    }
    let named = place.ask(&Ask { name: Some("x"), ..Ask::of(path.to_str().unwrap()) }).unwrap_err();
    assert!(named.to_string().contains("has 2 images: `one:1`, `uno:latest`, `two:2`"), "{named}");
    let missing = format!("docker-archive:{}:three", path.display());
    let error = place.ask(&Ask::of(&missing)).unwrap_err();
    assert!(error.to_string().contains("has no image `three`"), "{error}");
}

#[test]
fn an_oci_layout_keeps_its_digest_in_an_archive_and_in_a_directory() {
    let image = Packed::simple("hello");
    for (annotations, name) in [
        (json!({}), "localhost/my-image:latest"),
        (json!({"org.opencontainers.image.ref.name": "v1"}), "localhost/my-image:v1"),
        (json!({"org.opencontainers.image.ref.name": "quay.io/a/b:2"}), "quay.io/a/b:2"),
        (
            json!({"io.containerd.image.name": "docker.io/c/d:3", "org.opencontainers.image.ref.name": "3"}),
            "docker.io/c/d:3",
        ),
    ] {
        let place = Place::new();
        let files = layout(&image, &annotations);
        let loaded = place.load_bytes("My Image.tar", &archive(&files)).unwrap();
        assert_eq!(names(&loaded), [[name]]);
        assert_eq!(loaded[0].image.digest, image.digest());
        let directory = place.directory.path().join("my-image");
        for (name, bytes) in &files {
            let path = directory.join(name);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, bytes).unwrap();
        }
        let loaded = place.ask(&Ask::of(&format!("oci:{}", directory.display()))).unwrap();
        assert_eq!(names(&loaded), [[name]]);
        assert!(loaded[0].up_to_date);
    }
}

#[test]
fn a_root_file_system_is_an_image_of_one_layer_from_a_file_or_a_stream() {
    let root = layer(&[
        dir("./"),
        dir("./etc"),
        file("./etc/name", "value"),
        file("./manifest.json", "[]"),
    ]);
    let mut digests = Vec::new();
    for (what, bytes) in [("plain", root.clone()), ("gzip", gzip(&root)), ("zstd", zstd(&root))] {
        let place = Place::new();
        let path = place.write("root.tar", &bytes);
        let loaded = place.ask(&Ask::of(&path)).unwrap();
        assert_eq!(names(&loaded), [["localhost/root:latest"]], "{what}");
        assert_eq!(place.content(&loaded[0], "etc/name"), "value");
        digests.push(loaded[0].image.digest.clone());
        let input = Ask { name: Some("r:1"), input: Some(Path::new(&path)), ..Ask::of("-") };
        let loaded = place.ask(&input).unwrap();
        assert_eq!(names(&loaded), [["docker.io/library/r:1"]], "{what}");
        digests.push(loaded[0].image.digest.clone());
        let error = place.ask(&Ask { name: None, ..input }).unwrap_err();
        assert!(error.to_string().contains("does not say what its image is called"), "{error}");
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn the_format_is_what_is_asked_for_or_refused() {
    let place = Place::new();
    let docker = place.write("docker.tar", &Docker::new().archive(plain));
    let root = Ask { format: Some(Format::RootTar), ..Ask::of(&docker) };
    let loaded = place.ask(&root).unwrap();
    assert_eq!(place.content(&loaded[0], "manifest.json")[..11].to_owned(), r#"[{"Config":"#);
    for format in [Format::Sif, Format::Squashfs, Format::OciDirectory] {
        let error = place.ask(&Ask { format: Some(format), ..Ask::of(&docker) }).unwrap_err();
        let want = format!("is not of format `{format}`");
        assert!(error.to_string().contains(&want), "{error}");
    }
    let error = place.ask(&Ask { format: Some(Format::OciArchive), ..Ask::of(&docker) });
    assert!(error.unwrap_err().to_string().contains("`index.json` is missing"));
}

// Squashfs and SIF.

#[test]
fn an_image_is_found_under_the_name_that_sarus_1_7_gave_it() {
    let place = Place::new();
    let path = place.write("root.tar", &layer(&[file("a", "1")]));
    let loaded = place.ask(&Ask { name: Some("me/app:2"), ..Ask::of(&path) }).unwrap();
    let stores = sarus_image::Stores::new(place.store.clone(), None);
    let platform = Platform::parse("linux/amd64").unwrap();
    let lookup = |name: &str| stores.lookup(&Reference::parse(name).unwrap(), &platform).unwrap();
    assert_eq!(lookup("load/me/app:2"), Some(loaded[0].image.clone()));
    assert_eq!(lookup("load/me/app:3"), None);
}

/// The squashfs file of a root file system with every kind of entry.
fn squashfs(place: &Place) -> Vec<u8> {
    let root = layer(&[
        dir("./").mode(0o751),
        dir("./d").owner(3, 4),
        file("./d/one", "1").owner(4_000_000_000, 5).mode(0o4755),
        hard("./d/two", "d/one"),
        sym("./link", "d/one"),
        file(format!("./{}", "n".repeat(255)), "long"),
        sym("./far", "t/".repeat(100)),
        file("./big", vec![7; 300_000]),
        file("./zeros", vec![0; 400_000]),
        file("./attributes", "x").xattr("user.a", "b"),
    ]);
    let loaded = place.load_bytes("made.tar", &root).unwrap();
    fs_err::read(&loaded[0].image.squashfs).unwrap()
}

/// A SIF file around an image: `change` alters the descriptor of its partition.
fn sif(image: &[u8], change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut file = vec![0; 32_768];
    file[..31].copy_from_slice(b"#!/usr/bin/env run-singularity\n");
    file[32..42].copy_from_slice(b"SIF_MAGIC\0");
    file[42..48].copy_from_slice(b"01\x0002\0");
    file[88..96].copy_from_slice(&48_u64.to_le_bytes());
    file[96..104].copy_from_slice(&4096_u64.to_le_bytes());
    // A definition file, then the partition, 73 + 128 bytes before what depends on the type.
    let definition = &mut file[4096..4096 + 585];
    definition[..5].copy_from_slice(&[0x01, 0x40, 0, 0, 1]);
    let partition = &mut file[4096 + 585..4096 + 2 * 585];
    partition[..5].copy_from_slice(&[0x04, 0x40, 0, 0, 1]);
    partition[17..25].copy_from_slice(&32_768_u64.to_le_bytes());
    partition[25..33].copy_from_slice(&(image.len() as u64).to_le_bytes());
    partition[201..212].copy_from_slice(&[1, 0, 0, 0, 2, 0, 0, 0, b'0', b'2', 0]);
    change(partition);
    file.extend_from_slice(image);
    file
}

#[test]
fn a_squashfs_image_comes_out_as_it_went_in_also_out_of_a_sif_file() {
    let place = Place::new();
    let image = squashfs(&place);
    let plain = place.load_bytes("image.sqsh", &image).unwrap();
    assert_eq!(names(&plain), [["localhost/image:latest"]]);
    let sif = place.load_bytes("image.sif", &sif(&image, |_| ())).unwrap();
    assert_eq!(plain[0].image.digest, sif[0].image.digest);
    let tree = tempfile::tempdir().unwrap();
    unpack(&plain[0].image.squashfs, tree.path()).unwrap();
    let read = |name: &str| fs_err::read(tree.path().join(name)).unwrap();
    assert_eq!(read("d/two"), b"1");
    assert_eq!(read(&"n".repeat(255)), b"long");
    assert_eq!(read("big"), vec![7; 300_000]);
    assert_eq!(read("zeros"), vec![0; 400_000]);
    let target = fs_err::read_link(tree.path().join("far")).unwrap();
    assert_eq!(target.to_str(), Some("t/".repeat(100).as_str()));
    let again = fs_err::read(&plain[0].image.squashfs).unwrap();
    // The times of what no entry described differ not: the root was described.
    assert_eq!(again.len(), image.len());
    // Compressed, and through a pipe's place: kept until whole.
    let path = place.write("image.sqsh.gz", &gzip(&image));
    let input = Ask { name: Some("z"), input: Some(Path::new(&path)), ..Ask::of("-") };
    assert_eq!(place.ask(&input).unwrap()[0].image.digest, plain[0].image.digest);
}

#[test]
fn a_sif_file_that_is_damaged_or_of_another_kind_is_refused_by_name() {
    let image = squashfs(&Place::new());
    let place = Place::new();
    let number = |at: usize, value: u64| {
        move |partition: &mut [u8]| partition[at..at + 8].copy_from_slice(&value.to_le_bytes())
    };
    for (what, bytes, want) in [
        ("offset", sif(&image, number(17, u64::MAX)), "lies beyond its end"),
        ("size", sif(&image, number(25, 1 << 50)), "lies beyond its end"),
        ("no image there", sif(&image, number(17, 100)), "not a squashfs image"),
        ("ext3", sif(&image, |it| it[201] = 2), "no squashfs image (type 2)"),
        ("encrypted", sif(&image, |it| it[201] = 5), "is encrypted"),
        ("overlay only", sif(&image, |it| it[205] = 4), "no root file system"),
        ("unused", sif(&image, |it| it[4] = 0), "no root file system"),
        ("OCI-SIF", sif(&image, |it| it[0] = 0x0a), "OCI-SIF"),
        ("arm64", sif(&image, |it| it[210] = b'4'), "`linux/arm64`"),
    ] {
        let error = place.refuses(what, &bytes);
        assert!(error.contains(want), "{what}: {error}");
    }
    let whole = sif(&image, |_| ());
    for length in [43, 100, 128, 4096, 5000, 32_768, 32_800, whole.len() - 4096] {
        place.refuses(&format!("cut at {length}"), &whole[..length]);
    }
    let mut absurd = whole.clone();
    absurd[88..96].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(place.refuses("count", &absurd).contains("more than 4096 descriptors"));
    let mut other = whole;
    other[42..44].copy_from_slice(b"77");
    assert!(place.refuses("version", &other).contains("version `77`"));
}

#[test]
fn a_squashfs_image_with_any_byte_changed_loads_or_is_refused_and_never_half() {
    let image = squashfs(&Place::new());
    let place = Place::new();
    let path = place.write("image.sqsh", &image);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let tables = image.len() - image.len().min(3000);
    for at in (0..96).step_by(5).chain((tables..image.len()).step_by(251)) {
        file.write_all_at(&[image[at] ^ 0x5a], at as u64).unwrap();
        let own = Place::new();
        if own.ask(&Ask::of(&path)).is_err() {
            own.check_nothing_is_left();
        }
        file.write_all_at(&image[at..=at], at as u64).unwrap();
    }
    place.ask(&Ask::of(&path)).unwrap();
}

// Damage and attacks.

#[test]
fn bytes_without_the_digest_they_must_have_are_refused() {
    let place = Place::new();
    let docker = Docker::new();
    let mut altered = Docker { config: docker.config.clone(), layers: docker.layers.clone() };
    altered.layers[1][512] ^= 1;
    for pack in [plain, gzip, zstd] {
        let error = place.refuses("layer", &altered.archive(pack));
        let digest = Digest::sha256_of(&docker.layers[1]);
        assert!(error.contains(&format!("expected digest `{digest}`")), "{error}");
    }
    let name = docker.config_name();
    let mut entries = docker.members(plain);
    entries.pop();
    entries.push(file(&name, [docker.config.as_slice(), b" "].concat()));
    entries.push(manifest_json(&[docker.manifest(&json!(["a:1"]))]));
    let error = place.refuses("configuration", &layer(&entries));
    assert!(error.contains(&format!("`{name}` is altered")), "{error}");

    let files = layout(&Packed::new(&[tar(&[("a", &[5; 2000])])], &json!({})), &json!({}));
    for number in 0..files.len() - 2 {
        for at in [0, files[number].1.len() / 2] {
            let mut files = files.clone();
            files[number].1[at] ^= 1;
            let error = place.refuses(&files[number].0, &archive(&files));
            assert!(error.contains("is altered: expected digest"), "{error}");
        }
        let mut files = files.clone();
        files[number].1.push(0);
        let error = place.refuses(&files[number].0, &archive(&files));
        assert!(error.contains("bytes, expected"), "{error}");
    }
}

#[test]
fn an_archive_that_is_cut_anywhere_is_refused() {
    let place = Place::new();
    let image = layout(&Packed::simple("hello"), &json!({}));
    for whole in [Docker::new().archive(plain), Docker::new().archive(gzip), archive(&image)] {
        let end = whole.len() - 1024;
        for length in (1..end - 512).step_by(211) {
            place.refuses(&format!("cut at {length} of {}", whole.len()), &whole[..length]);
        }
        let packed = gzip(&whole);
        for length in (1..packed.len()).step_by(67) {
            place.refuses(&format!("gzip cut at {length}"), &packed[..length]);
        }
    }
}

#[test]
fn members_that_lead_out_lead_nowhere_or_are_absurd_are_refused() {
    let place = Place::new();
    let docker = Docker::of(vec![tar(&[("a", b"1")])]);
    let name = docker.layer_names().remove(0);
    let with = |replacement: Vec<Entry>| {
        let mut entries = replacement;
        entries.push(file(docker.config_name(), &docker.config));
        entries.push(manifest_json(&[docker.manifest(&json!(["a:1"]))]));
        layer(&entries)
    };
    let of = |manifest: &Value| {
        layer(&[
            file(docker.config_name(), &docker.config),
            manifest_json(std::slice::from_ref(manifest)),
        ])
    };
    let config = docker.config_name();
    for (what, bytes, want) in [
        ("missing", with(vec![]), "is missing"),
        ("absolute", with(vec![sym(&name, "/etc/passwd")]), "is missing"),
        ("above", with(vec![sym(&name, "../../../../etc/passwd")]), "leads out of the archive"),
        ("loop", with(vec![sym(&name, "layer.tar")]), "a link that leads to itself"),
        ("directory", with(vec![dir(format!("{name}/"))]), "is no file"),
        (
            "dots",
            of(&json!({"Config": config, "Layers": ["../../../etc/passwd"]})),
            "leads out of the archive",
        ),
        ("config", of(&json!({"Config": "../x", "Layers": []})), "leads out of the archive"),
        ("no layers", of(&json!({"Config": config})), "has 0 layers"),
        ("no config", of(&json!({"Layers": []})), "missing field `Config`"),
        ("no image", layer(&[manifest_json(&[])]), "has no image"),
        ("empty", layer(&[file("manifest.json", "")]), "cannot use `manifest.json`"),
        ("old", layer(&[file("repositories", "{}")]), "before version 1.10"),
        (
            "huge",
            with(vec![Entry { size: 1 << 40, ..file(&name, "x") }]),
            "ends within a file's data",
        ),
    ] {
        let error = place.refuses(what, &bytes);
        assert!(error.contains(want), "{what}: {error}");
    }
    let mut large = Docker::new();
    large.config.resize(9 << 20, b' ');
    assert!(place.refuses("configuration", &large.archive(plain)).contains("at most 8388608"));
}

#[test]
fn what_is_no_image_is_told_with_what_it_looks_like() {
    let place = Place::new();
    for (what, bytes, want) in [
        ("text", b"root:x:0:0".to_vec(), "begins with `root:x:0`"),
        ("nothing", vec![], "it is empty"),
        ("twice", gzip(&gzip(&Docker::new().archive(plain))), "compressed twice"),
        ("xz", b"\xfd7zXZ\0\0\0".to_vec(), "is compressed with xz"),
        ("bzip2", b"BZh91AY".to_vec(), "is compressed with bzip2"),
        ("broken gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\x03junk".to_vec(), "cannot read"),
    ] {
        let error = place.refuses(what, &bytes);
        assert!(error.contains(want), "{what}: {error}");
    }
    let error = place.ask(&Ask::of(place.directory.path().to_str().unwrap())).unwrap_err();
    assert!(error.to_string().contains("no `oci-layout`"), "{error}");
    // What is damaged, and what leads out, have a hint; an id is no name.
    let cut = place.load_bytes("cut.gz", &gzip(&Docker::new().archive(plain))[..200]).unwrap_err();
    assert!(cut.hint().is_some_and(|hint| hint.contains("damaged")), "{}", chain(&cut));
    let outside = place.directory.path().join("layout");
    fs_err::create_dir(&outside).unwrap();
    for name in ["oci-layout", "index.json"] {
        std::os::unix::fs::symlink("/etc/hostname", outside.join(name)).unwrap();
    }
    let error = place.ask(&Ask::of(outside.to_str().unwrap())).unwrap_err();
    assert!(chain(&error).contains("no `oci-layout`"), "{}", chain(&error));
    let error = place.ask(&Ask::of("containers-storage:0123456789ab")).unwrap_err();
    assert!(error.to_string().contains("does not say what"), "{error}");
    let error = place.ask(&Ask::of("/no/such/file")).unwrap_err();
    assert!(error.to_string().contains("cannot open `/no/such/file`"), "{error}");
    assert!(
        place
            .ask(&Ask {
                name: Some(
                    "a@sha256:0000000000000000000000000000000000000000000000000000000000000000"
                ),
                ..Ask::of("/x")
            })
            .is_err()
    );
}

#[test]
fn an_archive_that_inflates_without_end_is_refused_and_nothing_stays() {
    let place = Place::new();
    // One file of 2 GiB of zeros: some 200 KiB compressed.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut header = layer(&[file("zeros", "")])[..512].to_vec();
    header[124..135].copy_from_slice(b"20000000000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    encoder.write_all(&header).unwrap();
    let zeros = vec![0; 1 << 20];
    (0..2048).for_each(|_| encoder.write_all(&zeros).unwrap());
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let error = place.load_bytes("bomb.tar.zst", &bomb).unwrap_err();
    let said = chain(&error);
    assert!(said.contains("inflates to more than 1073741824 bytes"), "{said}");
    assert_eq!(place.store.list().unwrap().images.len(), 0);
}
