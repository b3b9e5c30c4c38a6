//! `sarus.json`: what is accepted, what is refused and in which words, which file wins.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sarus_config::{
    Compression, Config, ConfigError, ContainersPolicy, Environment, ImageMount, KEYS,
    KernelImages, Parsed, Runtime, SeccompProfile, SiteDevice, SiteMount, Squashfs, UserMounts,
    Writable, check_trusted, config_home, load_for_user, load_system, parse_size,
};
use sarus_unit_tests::chain;
use serde_json::{Value, json};

/// The file of a site that ran Sarus 1.7, with every key that version knew.
const SARUS_1_7: &str = r#"{
    "securityChecks": true,
    "OCIBundleDir": "/var/sarus/bundle",
    "rootfsFolder": "rootfs",
    "prefixDir": "/opt/sarus/1.7.0",
    "hooksDir": "/opt/sarus/1.7.0/etc/hooks.d",
    "tempDir": "/dev/shm",
    "localRepositoryBaseDir": "/scratch/images",
    "centralizedRepositoryDir": "/apps/sarus/images",
    "skopeoPath": "/usr/bin/skopeo",
    "umociPath": "/usr/bin/umoci",
    "mksquashfsPath": "/usr/sbin/mksquashfs",
    "mksquashfsOptions": "-comp gzip -processors 4",
    "initPath": "/opt/sarus/1.7.0/bin/tini-static-amd64",
    "runcPath": "/opt/sarus/1.7.0/bin/runc.amd64",
    "ramFilesystemType": "ramfs",
    "siteMounts": [
        { "type": "bind", "source": "/scratch", "destination": "/scratch", "flags": {} },
        {
            "type": "bind",
            "source": "/apps",
            "destination": "/apps",
            "flags": { "readonly": "", "bind-propagation": "rslave" }
        }
    ],
    "siteDevices": [
        { "source": "/dev/fuse", "access": "rw" },
        { "source": "/dev/xpmem", "destination": "/dev/other" }
    ],
    "environment": {
        "set": { "SITE": "alps" },
        "prepend": { "PATH": "/apps/bin" },
        "append": { "MANPATH": "/apps/man" },
        "unset": ["LD_PRELOAD"]
    },
    "userMounts": {
        "notAllowedPrefixesOfPath": ["/etc", "/var"],
        "notAllowedPaths": ["/opt"]
    },
    "seccompProfile": "/opt/sarus/1.7.0/etc/seccomp.json",
    "apparmorProfile": "sarus-default",
    "selinuxLabel": "system_u:system_r:svirt_sarus_t:s0",
    "selinuxMountLabel": "system_u:object_r:svirt_sarus_file_t:s0",
    "containersPolicy": { "path": "/opt/sarus/1.7.0/etc/policy.json", "enforce": true },
    "containersRegistries.dPath": "/opt/sarus/1.7.0/etc/registries.d",
    "defaultMPIType": "mpich",
    "repositoryMetadataLockTimings": { "timeoutMs": 120000, "warningMs": 15000 },
    "enablePMIxv3Support": false
}"#;

fn parse(text: &str) -> Result<Parsed, ConfigError> {
    Config::parse(text, Path::new("/etc/sarus/sarus.json"))
}

fn config(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{text}: {}", chain(&error))).config
}

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}

#[test]
fn an_empty_object_is_the_default() {
    assert_eq!(parse("{}").unwrap(), Parsed::default());
    assert_eq!(parse("\u{feff}{}\n").unwrap(), Parsed::default(), "byte order mark");
}

#[test]
fn the_shipped_example_is_the_default() {
    assert_eq!(parse(include_str!("../../../etc/sarus.json")).unwrap(), Parsed::default());
}

#[test]
fn a_file_of_sarus_1_7_keeps_its_meaning() {
    let mount =
        |at: &str, read_only| SiteMount { source: path(at), destination: path(at), read_only };
    let device = |source, destination, access: &str| SiteDevice {
        source: path(source),
        destination: path(destination),
        access: access.to_owned(),
    };
    let one = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let want = Config {
        oci_bundle_dir: Some(path("/var/sarus/bundle")),
        hooks_dirs: vec![path("/opt/sarus/1.7.0/etc/hooks.d")],
        temp_dir: Some(path("/dev/shm")),
        local_repository_base_dir: Some(path("/scratch/images")),
        centralized_repository_dir: Some(path("/apps/sarus/images")),
        runc_path: Some(path("/opt/sarus/1.7.0/bin/runc.amd64")),
        site_mounts: vec![mount("/scratch", false), mount("/apps", true)],
        site_devices: vec![
            device("/dev/fuse", "/dev/fuse", "rw"),
            device("/dev/xpmem", "/dev/other", "rwm"),
        ],
        environment: Environment {
            set: one("SITE", "alps"),
            prepend: one("PATH", "/apps/bin"),
            append: one("MANPATH", "/apps/man"),
            unset: BTreeSet::from(["LD_PRELOAD".to_owned()]),
        },
        user_mounts: UserMounts {
            not_allowed_prefixes: vec![path("/etc"), path("/var")],
            not_allowed_paths: vec![path("/opt")],
        },
        seccomp_profile: SeccompProfile::Path(path("/opt/sarus/1.7.0/etc/seccomp.json")),
        apparmor_profile: Some("sarus-default".to_owned()),
        selinux_label: Some("system_u:system_r:svirt_sarus_t:s0".to_owned()),
        selinux_mount_label: Some("system_u:object_r:svirt_sarus_file_t:s0".to_owned()),
        containers_policy: Some(ContainersPolicy {
            path: path("/opt/sarus/1.7.0/etc/policy.json"),
            enforce: true,
        }),
        containers_registries_d: Some(path("/opt/sarus/1.7.0/etc/registries.d")),
        default_mpi_type: Some("mpich".to_owned()),
        ..Config::default()
    };
    assert_eq!(parse(SARUS_1_7).unwrap().config, want);
}

#[test]
fn what_has_no_meaning_any_more_is_accepted_with_a_note() {
    let notes: Vec<String> =
        parse(SARUS_1_7).unwrap().notes.iter().map(ToString::to_string).collect();
    let want = [
        (4, "rootfsFolder", "the bundle's layout is not a setting any more"),
        (5, "prefixDir", "Sarus finds its programs beside itself"),
        (10, "skopeoPath", "images are pulled without Skopeo"),
        (11, "umociPath", "images are converted without umoci"),
        (12, "mksquashfsPath", "images are written without mksquashfs"),
        (
            13,
            "mksquashfsOptions",
            "see `squashfs.compression`, `squashfs.level` and `squashfs.blockSize`",
        ),
        (14, "initPath", "the init of `--init` is built in"),
        (16, "ramFilesystemType", "the writable layer in memory is always a tmpfs; see `writable`"),
        (23, "siteMounts[1].flags.bind-propagation", "mounts never propagate out of a container"),
        (47, "repositoryMetadataLockTimings", "readers of the store take no lock"),
        (48, "enablePMIxv3Support", "PMIx needs no setting"),
    ]
    .map(|(line, key, text)| {
        format!("`/etc/sarus/sarus.json` line {line}: `{key}` has no effect: {text}")
    });
    assert_eq!(notes, want);
}

#[test]
fn every_setting_takes_the_values_it_documents() {
    let d = Config::default;
    let squashfs = |compression, block_size| Squashfs { compression, block_size };
    let cases = [
        (r#"{"version": 1, "$schema": "x"}"#, d()),
        (r#"{"runtime": "crun"}"#, Config { runtime: Runtime::Crun, ..d() }),
        (r#"{"runtime": "runc"}"#, Config { runtime: Runtime::Runc, ..d() }),
        (r#"{"runtime": "/o/youki"}"#, Config { runtime: Runtime::Path(path("/o/youki")), ..d() }),
        (r#"{"crunPath": "/o/crun"}"#, Config { crun_path: Some(path("/o/crun")), ..d() }),
        (r#"{"hooksDir": []}"#, Config { hooks_dirs: vec![], ..d() }),
        (
            r#"{"additionalStores": ["/b", "/a"]}"#,
            Config { additional_stores: vec![path("/b"), path("/a")], ..d() },
        ),
        (
            r#"{"hooksDir": ["/b", "/a"]}"#,
            Config { hooks_dirs: vec![path("/b"), path("/a")], ..d() },
        ),
        (r#"{"containersHooks": false}"#, Config { containers_hooks: false, ..d() }),
        (r#"{"securityChecks": false}"#, Config { security_checks: false, ..d() }),
        (r#"{"storeDir": "/s"}"#, Config { store_dir: Some(path("/s")), ..d() }),
        (r#"{"blobCacheSize": 0}"#, Config { blob_cache_size: 0, ..d() }),
        (r#"{"blobCacheSize": "2 GiB"}"#, Config { blob_cache_size: 2 << 30, ..d() }),
        (r#"{"removalGrace": 0}"#, Config { removal_grace: Duration::ZERO, ..d() }),
        (
            r#"{"squashfs": {"level": 19}}"#,
            Config { squashfs: squashfs(Compression::Zstd { level: 19 }, 131_072), ..d() },
        ),
        (
            r#"{"squashfs": {"level": 9, "compression": "gzip", "blockSize": 4096}}"#,
            Config { squashfs: squashfs(Compression::Gzip { level: 9 }, 4096), ..d() },
        ),
        (
            r#"{"squashfs": {"compression": "lz4", "blockSize": "1MiB"}}"#,
            Config { squashfs: squashfs(Compression::Lz4, 1 << 20), ..d() },
        ),
        (
            r#"{"squashfs": {"compression": "none"}}"#,
            Config { squashfs: squashfs(Compression::None, 131_072), ..d() },
        ),
        (r#"{"seccompProfile": "default"}"#, d()),
        (
            r#"{"seccompProfile": "unconfined"}"#,
            Config { seccomp_profile: SeccompProfile::Unconfined, ..d() },
        ),
        (
            r#"{"seccompProfile": "/p.json"}"#,
            Config { seccomp_profile: SeccompProfile::Path(path("/p.json")), ..d() },
        ),
        (r#"{"imageMount": "kernel"}"#, Config { image_mount: ImageMount::Kernel, ..d() }),
        (r#"{"imageMount": "fuse"}"#, Config { image_mount: ImageMount::Fuse, ..d() }),
        (r#"{"imageMount": "unpack"}"#, Config { image_mount: ImageMount::Unpack, ..d() }),
        (r#"{"kernelImages": "any"}"#, Config { kernel_images: KernelImages::Any, ..d() }),
        (r#"{"kernelImages": "none"}"#, Config { kernel_images: KernelImages::None, ..d() }),
        (
            r#"{"kernelImages": "verified", "verifiedImages": "/etc/sarus/verified"}"#,
            Config {
                kernel_images: KernelImages::Verified,
                verified_images: Some(path("/etc/sarus/verified")),
                ..d()
            },
        ),
        (r#"{"squashfusePath": "/s"}"#, Config { squashfuse_path: Some(path("/s")), ..d() }),
        (
            r#"{"writable": {"size": "512MiB", "nodeSize": "1GiB", "directory": "/local"}}"#,
            Config {
                writable: Writable {
                    size: Some(512 << 20),
                    node_size: Some(1 << 30),
                    directory: Some(path("/local")),
                },
                ..d()
            },
        ),
        (
            r#"{"containersRegistries": {"dPath": "/r"}}"#,
            Config { containers_registries_d: Some(path("/r")), ..d() },
        ),
        (
            r#"{"containersPolicy": {"path": "/p"}}"#,
            Config {
                containers_policy: Some(ContainersPolicy { path: path("/p"), enforce: false }),
                ..d()
            },
        ),
        (
            r#"{"siteMounts": [{"source": "/a", "destination": "/b", "flags": {"readonly": true}}]}"#,
            Config {
                site_mounts: vec![SiteMount {
                    source: path("/a"),
                    destination: path("/b"),
                    read_only: true,
                }],
                ..d()
            },
        ),
    ];
    for (text, want) in cases {
        assert_eq!(config(text), want, "given {text}");
    }
}

#[test]
fn a_refusal_names_line_key_value_and_what_is_expected() {
    let cases = [
        ("{\n\"runtime\": \"crun\",\n}", "line 3: trailing comma"),
        ("", "line 1: EOF while parsing a value"),
        ("{} {}", "line 1: trailing characters"),
        ("[]", "line 1: expected an object"),
        ("{\n\"tempDir\": \"\\ud800\"}", "line 2: unexpected end of hex escape"),
        ("{\n\n\"runtme\": 1}", "line 3: unknown key `runtme`; the nearest known key is `runtime`"),
        (
            "{\"squashfs\": {\n\"blocksize\"\n:\n1}}",
            "line 2: unknown key `squashfs.blocksize`; the nearest known key is `squashfs.blockSize`",
        ),
        ("{\"zzzzzzzzzzzz\": 1}", "line 1: unknown key `zzzzzzzzzzzz`"),
        (
            "{\n\"tempDir\": \"/a\",\n\"tempDir\": \"/b\"}",
            "line 3: `tempDir` was already given on line 2",
        ),
        ("{\"version\": 2}", "line 1: `version` is 2, expected 1, the only version of this format"),
        (
            "{\"securityChecks\": \"no\"}",
            "line 1: `securityChecks` is \"no\", expected `true` or `false`",
        ),
        ("{\"tempDir\": \"tmp\"}", "line 1: `tempDir` is \"tmp\", expected an absolute path"),
        ("{\"tempDir\": {}}", "line 1: `tempDir` is an object, expected an absolute path"),
        (
            "{\"tempDir\": \"/a\\u0000\"}",
            "line 1: `tempDir` is \"/a\\u0000\", expected an absolute path",
        ),
        (
            "{\"runtime\":\n[]}",
            "line 2: `runtime` is a list, expected \"auto\", \"runc\", \"crun\" or an absolute path",
        ),
        (
            "{\"seccompProfile\": \"none\"}",
            "line 1: `seccompProfile` is \"none\", expected \"default\", \"unconfined\" or an absolute path",
        ),
        (
            "{\"hooksDir\": \"x\"}",
            "line 1: `hooksDir` is \"x\", expected an absolute path or a list of absolute paths",
        ),
        ("{\"hooksDir\": [\n\"/a\",\n7]}", "line 3: `hooksDir[1]` is 7, expected an absolute path"),
        (
            "{\"imageMount\": \"loop\"}",
            "line 1: `imageMount` is \"loop\", expected one of \"auto\", \"kernel\", \"fuse\", \"unpack\"",
        ),
        (
            "{\"squashfs\": {\"compression\": \"xz\"}}",
            "line 1: `squashfs.compression` is \"xz\", expected one of \"zstd\", \"gzip\", \"lz4\", \"none\"",
        ),
        (
            "{\"squashfs\": {\"level\": 23}}",
            "line 1: `squashfs.level` is 23, expected a whole number from 1 to 22",
        ),
        (
            "{\"squashfs\": {\"compression\": \"lz4\", \"level\": 1}}",
            "line 1: `squashfs.level` is 1, expected no level: this compression has none",
        ),
        (
            "{\"squashfs\": {\"blockSize\": \"96KiB\"}}",
            "line 1: `squashfs.blockSize` is \"96KiB\", expected a power of two from \"4KiB\" to \"1MiB\"",
        ),
        (
            "{\"writable\": {\"size\": \"much\"}}",
            "line 1: `writable.size` is \"much\", expected a number of bytes or a string like \"512MiB\"",
        ),
        (
            "{\"blobCacheSize\": -1}",
            "line 1: `blobCacheSize` is -1, expected a number of bytes or a string like \"512MiB\"",
        ),
        (
            "{\"removalGrace\": 1.5}",
            "line 1: `removalGrace` is 1.5, expected a whole number of seconds, at least 0",
        ),
        (
            "{\"environment\": {\"set\": {\n\"X\": null}}}",
            "line 2: `environment.set.X` is null, expected a string",
        ),
        (
            "{\"environment\": {\"set\": {\"\": \"x\"}}}",
            "line 1: `environment.set.` is \"x\", expected a key that is a variable's name: not empty, without `=`",
        ),
        (
            "{\"environment\": {\"set\": {\"X\": \"\\u0000\"}}}",
            "line 1: `environment.set.X` is \"\\u0000\", expected a string without NUL bytes",
        ),
        (
            "{\"environment\": {\"unset\": [\"A=b\"]}}",
            "line 1: `environment.unset[0]` is \"A=b\", expected a variable's name: not empty, without `=`",
        ),
        ("{\"environment\": []}", "line 1: `environment` is a list, expected an object"),
        ("{\"siteMounts\": {}}", "line 1: `siteMounts` is an object, expected a list"),
        (
            "{\"siteMounts\": [\n{\"type\": \"nfs\"}]}",
            "line 2: `siteMounts[0].type` is \"nfs\", expected \"bind\"",
        ),
        (
            "{\"siteMounts\": [\n{\"source\": \"/a\"}]}",
            "line 2: `siteMounts[0].destination` is missing",
        ),
        (
            "{\"siteMounts\": [{\"flags\": {\"readonly\": \"yes\"}}]}",
            "line 1: `siteMounts[0].flags.readonly` is \"yes\", expected `true` or `false`",
        ),
        (
            "{\"siteDevices\": [{\"source\": \"/dev/a\", \"access\": \"rr\"}]}",
            "line 1: `siteDevices[0].access` is \"rr\", expected a selection of `r`, `w` and `m`, each at most once",
        ),
        ("{\"containersPolicy\": {}}", "line 1: `containersPolicy.path` is missing"),
        (
            "{\"apparmorProfile\": \"\"}",
            "line 1: `apparmorProfile` is \"\", expected a string that is not empty",
        ),
    ];
    for (text, want) in cases {
        let error = parse(text).expect_err(text);
        let want = format!("configuration `/etc/sarus/sarus.json` is not valid\n{want}");
        assert_eq!(chain(&error), want, "given {text}");
        assert!(error.hint().is_some(), "given {text}");
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let deep = format!("{{\"tempDir\": {}{}}}", "[".repeat(1000), "]".repeat(1000));
    let path = format!("tempDir{}", (0..16).map(|_| "[0]").collect::<String>());
    let large = format!("{{}}{}", " ".repeat(sarus_config::FILE_SIZE_MAX));
    let long = format!("{{\"runtime\": \"{}\"}}", "x".repeat(1000));
    let cases = [
        (deep, format!("line 1: `{path}` is nested deeper than 16 levels")),
        (large, "the file is larger than 1048576 bytes".to_owned()),
        (
            long,
            format!(
                "line 1: `runtime` is \"{}..., expected \"auto\", \"runc\", \"crun\" or an absolute path",
                "x".repeat(79)
            ),
        ),
    ];
    for (text, want) in cases {
        let error = parse(&text).expect_err("refused");
        assert_eq!(error.source().unwrap().to_string(), want);
    }
}

#[test]
fn sizes_have_binary_units() {
    let cases = [
        ("0", Some(0)),
        ("4096", Some(4096)),
        ("4096B", Some(4096)),
        ("1KiB", Some(1024)),
        ("64m", Some(64 << 20)),
        ("2 GiB", Some(2 << 30)),
        ("3T", Some(3 << 40)),
        ("", None),
        ("GiB", None),
        ("-1", None),
        ("1.5GiB", None),
        ("1GB", None),
        ("99999999999TiB", None),
        ("99999999999999999999", None),
    ];
    for (text, want) in cases {
        assert_eq!(parse_size(text), want, "given {text:?}");
    }
}

#[test]
fn the_store_is_where_user_site_or_convention_say() {
    let data = Path::new("/home/ada/.local/share");
    let cases = [
        ("{}", "/home/ada/.local/share/sarus"),
        (r#"{"localRepositoryBaseDir": "/scratch"}"#, "/scratch/ada/.sarus"),
        (r#"{"localRepositoryBaseDir": "/scratch", "storeDir": "/own"}"#, "/own"),
    ];
    for (text, want) in cases {
        assert_eq!(config(text).user_store("ada", data), path(want), "given {text}");
    }
}

#[test]
fn what_the_privileged_shim_trusts_is_listed() {
    let text = r#"{"runtime": "/r", "runcPath": "/a", "crunPath": "/b", "seccompProfile": "/c",
        "OCIBundleDir": "/d", "tempDir": "/e"}"#;
    assert_eq!(config(text).paths_to_check(), ["/r", "/a", "/b", "/c", "/d"].map(path));
    assert_eq!(Config::default().paths_to_check(), Vec::<PathBuf>::new());
}

#[test]
fn only_the_user_s_own_settings_override_the_site_s() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site.json");
    let home = folder.path().join("home");
    let user = home.join("sarus/sarus.json");
    fs_write(
        &site,
        r#"{"runtime": "runc", "tempDir": "/site", "hooksDir": "/h/site", "securityChecks": true,
            "siteMounts": [{"source": "/a", "destination": "/a"}],
            "environment": {"set": {"A": "1", "B": "1", "C": "1"}, "prepend": {"P": "/site", "Q": "/site"},
                            "append": {"P": "/end"}, "unset": ["U"]}}"#,
    );
    fs_write(
        &user,
        r#"{"runtime": "crun", "hooksDir": "/h/user", "squashfs": {"level": 3},
            "securityChecks": false,
            "siteMounts": [{"source": "/b", "destination": "/b"}],
            "userMounts": {},
            "environment": {"set": {"A": "2", "Q": "2"}, "prepend": {"P": "/user"},
                            "append": {"P": "/last"}, "unset": ["B"]}}"#,
    );
    let parsed = load_for_user(&site, Some(&home)).unwrap();
    let mount = |at| SiteMount { source: path(at), destination: path(at), read_only: false };
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let want = Config {
        runtime: Runtime::Crun,
        temp_dir: Some(path("/site")),
        hooks_dirs: vec![path("/h/site"), path("/h/user")],
        squashfs: Squashfs { compression: Compression::Zstd { level: 3 }, block_size: 131_072 },
        site_mounts: vec![mount("/a"), mount("/b")],
        environment: Environment {
            set: map(&[("A", "2"), ("C", "1"), ("Q", "2")]),
            prepend: map(&[("P", "/user:/site")]),
            append: map(&[("P", "/end:/last")]),
            unset: ["B", "U"].map(str::to_owned).into(),
        },
        ..Config::default()
    };
    assert_eq!(parsed.config, want);
    let notes: Vec<String> = parsed.notes.iter().map(ToString::to_string).collect();
    let refused = |line, key| {
        let user = user.display();
        format!(
            "`{user}` line {line}: `{key}` has no effect: only the site's configuration can set it"
        )
    };
    assert_eq!(notes, [refused(2, "securityChecks"), refused(4, "userMounts")]);
    assert_eq!(load_system(&site).unwrap().config.runtime, Runtime::Runc);
    assert_eq!(load_for_user(&site, None).unwrap(), load_system(&site).unwrap());
}

#[test]
fn a_file_that_is_absent_sets_nothing_and_one_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    assert_eq!(load_for_user(&at("none"), Some(&at("home"))).unwrap(), Parsed::default());
    fs_write(&at("file"), "{}");
    assert_eq!(load_system(&at("file/below")).unwrap(), Parsed::default());

    let error = load_system(folder.path()).expect_err("a directory");
    let shown = folder.path().display();
    assert_eq!(
        chain(&error),
        format!("cannot read configuration `{shown}`\nIs a directory (os error 21)")
    );
    assert_eq!(error.hint(), None);

    std::fs::File::create(at("latin"))
        .and_then(|mut f| std::io::Write::write_all(&mut f, b"{\n\"tempDir\": \"/\xe9\"}"))
        .unwrap();
    let error = load_system(&at("latin")).expect_err("not UTF-8");
    assert_eq!(error.source().unwrap().to_string(), "line 2: the text is not UTF-8");
}

#[test]
fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("sarus.json");
    let made = std::process::Command::new("mkfifo").arg(&fifo).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    for path in [fifo.as_path(), Path::new("/dev/zero")] {
        let error = load_system(path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("no regular file"));
    }
}

#[test]
fn the_user_s_configuration_is_where_xdg_says() {
    let cases = [
        (Some("/x"), Some("/home/a"), Some("/x")),
        (Some("x"), Some("/home/a"), Some("/home/a/.config")),
        (Some(""), Some("/home/a"), Some("/home/a/.config")),
        (None, Some("/home/a"), Some("/home/a/.config")),
        (None, Some("."), None),
        (None, None, None),
    ];
    for (xdg, home, want) in cases {
        let found = config_home(xdg.map(OsStr::new), home.map(OsStr::new));
        assert_eq!(found, want.map(PathBuf::from), "given {xdg:?} {home:?}");
    }
}

#[test]
fn a_file_in_everybody_s_directory_is_not_trusted() {
    assert!(check_trusted(Path::new("/")).is_ok());
    let file = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let error = check_trusted(file.path()).expect_err("in /tmp");
    let shown = file.path().display();
    assert_eq!(
        error.to_string(),
        format!(
            "`{shown}` is not safe: `/tmp` has mode 1777, expected no write permission for group \
             and others"
        )
    );
    assert_eq!(
        error.hint().unwrap(),
        "move it out of `/tmp`: with privilege, Sarus uses only what root alone can change"
    );
}

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../etc/sarus.schema.json")).unwrap()
}

#[test]
fn schema_and_parser_know_the_same_keys() {
    let schema = schema();
    let mut found = BTreeMap::new();
    collect(&schema, &schema, "", &mut found);
    let want: BTreeMap<String, BTreeSet<String>> = KEYS
        .iter()
        .map(|(object, keys)| {
            ((*object).to_owned(), keys.iter().map(|key| (*key).to_owned()).collect())
        })
        .collect();
    assert_eq!(found, want);
}

/// The properties of each object of the schema, by the way to it.
fn collect(schema: &Value, at: &Value, way: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    if let Some(target) = at["$ref"].as_str() {
        let target = schema.pointer(target.trim_start_matches('#')).unwrap();
        collect(schema, target, way, found);
    }
    if let Some(items) = at.get("items") {
        collect(schema, items, &format!("{way}[]"), found);
    }
    let Some(properties) = at["properties"].as_object() else { return };
    found.insert(way.to_owned(), properties.keys().cloned().collect());
    for (key, value) in properties {
        let below = if way.is_empty() { key.clone() } else { format!("{way}.{key}") };
        collect(schema, value, &below, found);
    }
}

#[test]
fn schema_and_parser_agree_on_files() {
    let schema = schema();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let accepted = [
        "{}",
        include_str!("../../../etc/sarus.json"),
        SARUS_1_7,
        r#"{"runtime": "/opt/crun", "hooksDir": ["/a"], "writable": {"size": "2 GiB"}}"#,
        r#"{"containersRegistries": {"dPath": "/r"}, "siteDevices": [{"source": "/d", "access": "mw"}]}"#,
    ];
    for text in accepted {
        let instance: Value = serde_json::from_str(text).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&instance).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "given {text}");
        assert!(parse(text).is_ok(), "given {text}");
    }
    let refused = [
        json!({"runtme": "crun"}),
        json!({"runtime": "kata"}),
        json!({"hooksDir": ["a"]}),
        json!({"version": 2}),
        json!({"blobCacheSize": "1GB"}),
        json!({"removalGrace": -1}),
        json!({"squashfs": {"level": 0}}),
        json!({"imageMount": "loop"}),
        json!({"siteMounts": [{"source": "/a"}]}),
        json!({"siteDevices": [{"source": "/a", "access": "rr"}]}),
        json!({"environment": {"set": {"A": 1}}}),
        json!({"environment": {"unset": ["A=1"]}}),
        json!({"userMounts": {"notAllowedPaths": ["etc"]}}),
        json!({"containersPolicy": {"enforce": true}}),
    ];
    for instance in refused {
        assert!(!validator.is_valid(&instance), "the schema accepts {instance}");
        assert!(parse(&instance.to_string()).is_err(), "the parser accepts {instance}");
    }
}

#[test]
fn schema_and_types_have_the_same_defaults() {
    fn defaults(at: &Value) -> Value {
        let mut file = serde_json::Map::new();
        for (key, value) in at["properties"].as_object().into_iter().flatten() {
            let below = defaults(value);
            if let Some(default) = value.get("default") {
                file.insert(key.clone(), default.clone());
            } else if below.as_object().is_some_and(|object| !object.is_empty())
                && value.get("required").is_none()
            {
                file.insert(key.clone(), below);
            }
        }
        Value::Object(file)
    }
    let file = defaults(&schema());
    assert_eq!(file["squashfs"]["blockSize"], "128KiB", "found in {file}");
    assert_eq!(config(&file.to_string()), Config::default());
}

/// Writes a file, and the directories above it.
fn fs_write(path: &Path, text: &str) {
    use std::io::Write;
    std::fs::DirBuilder::new().recursive(true).create(path.parent().unwrap()).unwrap();
    std::fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

proptest::proptest! {
    #[test]
    fn no_text_is_too_odd_to_be_refused(text in "[\\[\\]{}:,\"a\\\\u0-9 \n.e-]{0,40}") {
        if let Err(error) = parse(&text) {
            proptest::prop_assert!(error.source().is_some());
        }
    }
}
