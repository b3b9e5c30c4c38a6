//! What users see: tables, sizes, times, errors.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sarus_cli::error::{CliError, report};
use sarus_cli::images::{Line, images_table};
use sarus_cli::launch::LaunchError;
use sarus_cli::output::{ago, short_id, size, table};
use sarus_cli::settings::Settings;
use sarus_config::Config;
use sarus_image::{Image, ImageError, METADATA_VERSION, Metadata, Name};
use sarus_oci::{Digest, Execution, Platform, Reference};
use sarus_store::Conversion;

fn image() -> Image {
    let digest = Digest::sha256_of(b"manifest");
    Image {
        digest: digest.clone(),
        squashfs: PathBuf::from("/store/image.squashfs"),
        metadata: Metadata {
            version: METADATA_VERSION,
            digest,
            config_digest: Digest::sha256_of(b"configuration"),
            platform: Platform::parse("linux/amd64").unwrap(),
            created: Some("2024-05-01T00:00:00Z".to_owned()),
            config: Execution::default(),
            layers: Vec::new(),
            ids: vec![0],
            conversion: Conversion {
                bytes: 48_300_000,
                squashfs_digest: None,
                unpacked_bytes: 1,
                entries: 1,
                compression: "zstd:1".to_owned(),
                block_size: 131_072,
            },
        },
    }
}

fn shown(name: Option<&Name>) -> Line {
    let image = image();
    Line::new(&image.digest, &image.metadata.summary(), name)
}

fn line(name: &str) -> Line {
    let name = Name {
        version: METADATA_VERSION,
        reference: Reference::parse(name).unwrap(),
        platform: Platform::parse("linux/amd64").unwrap(),
        digest: Digest::sha256_of(b"manifest"),
        pulled: 7,
        admission: None,
        image: None,
    };
    shown(Some(&name))
}

#[test]
fn images_are_listed_as_docker_lists_them_and_with_their_server() {
    let lines = [line("debian:12"), line("quay.io/a/b:1"), shown(None)];
    let noon = 1_714_521_600 + 3 * 86_400;
    let id = short_id(image().metadata.config_digest.hex()).to_owned();
    let want = format!(
        "REPOSITORY    TAG      IMAGE ID       CREATED      SIZE     SERVER\n\
         debian        12       {id}   3 days ago   48.3MB   docker.io\n\
         quay.io/a/b   1        {id}   3 days ago   48.3MB   quay.io\n\
         <none>        <none>   {id}   3 days ago   48.3MB   <none>\n"
    );
    assert_eq!(images_table(&lines, false, false, noon), want);
    let wide = images_table(&lines, true, true, noon);
    assert!(wide.starts_with("REPOSITORY    TAG      DIGEST"), "{wide}");
    assert!(wide.contains(&image().digest.to_string()));
    assert!(wide.contains(&image().metadata.config_digest.to_string()));
    assert_eq!(
        images_table(&[], false, false, noon),
        "REPOSITORY   TAG   IMAGE ID   CREATED   SIZE   SERVER\n"
    );
}

#[test]
fn a_line_as_json_has_every_field_under_its_name() {
    let json = serde_json::to_value(line("docker.io/user/app@sha256:8d425f40fcaa2302a4be4ec204460fbcfd4fe8aaa834c4f51b436da21b77c7c2")).unwrap();
    assert_eq!(json["repository"], "user/app");
    assert_eq!(json["tag"], serde_json::Value::Null);
    assert_eq!(json["platform"], "linux/amd64");
    assert_eq!(json["imageId"], image().metadata.config_digest.to_string());
    assert_eq!(json["digest"], image().digest.to_string());
    assert_eq!((&json["size"], &json["pulled"]), (&48_300_000.into(), &7.into()));
    assert_eq!(json["server"], "docker.io");
    assert_eq!(json["created"], "2024-05-01T00:00:00Z");
}

#[test]
fn an_image_that_does_not_say_when_it_was_made_has_no_age() {
    let mut odd = line("debian:12");
    for created in [None, Some("yesterday".to_owned())] {
        odd.created = created;
        assert!(images_table(&[odd.clone()], false, false, 0).contains("N/A"));
    }
}

#[test]
fn sizes_have_three_digits_and_powers_of_1000() {
    for (bytes, want) in [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.00kB"),
        (1234, "1.23kB"),
        (12_345, "12.3kB"),
        (123_456, "123kB"),
        (999_499, "999kB"),
        (999_999, "1.00MB"),
        (117_000_000, "117MB"),
        (5_000_000_000, "5.00GB"),
        (u64::MAX, "18447PB"),
    ] {
        assert_eq!(size(bytes), want, "{bytes}");
    }
}

#[test]
fn a_time_is_told_in_the_largest_unit_of_which_there_are_two() {
    for (seconds, want) in [
        (-5, "just now"),
        (1, "just now"),
        (2, "2 seconds ago"),
        (119, "119 seconds ago"),
        (120, "2 minutes ago"),
        (7200, "2 hours ago"),
        (47 * 3600, "47 hours ago"),
        (3 * 86_400, "3 days ago"),
        (21 * 86_400, "3 weeks ago"),
        (90 * 86_400, "3 months ago"),
        (800 * 86_400, "2 years ago"),
    ] {
        assert_eq!(ago(seconds), want);
    }
}

#[test]
fn columns_are_as_wide_as_their_widest_cell_in_characters() {
    let rows = [vec!["é".to_owned(), "x".to_owned()], vec!["long".to_owned(), String::new()]];
    assert_eq!(table(&["A", "B"], &rows), "A      B\né      x\nlong\n");
}

#[test]
fn an_error_is_one_cause_a_line_and_steers_no_terminal() {
    let source = io::Error::other("evil\u{1b}[2J\u{7} server");
    let error = CliError::Input { what: "the password", source };
    assert_eq!(
        report(&error, Some("try\u{1b} again")),
        "error: cannot read the password from standard input\n  caused by: evil?[2J? server\n\
         hint: try? again\n"
    );
}

#[test]
fn each_failure_has_its_advice() {
    let failed = || io::Error::from_raw_os_error(2);
    let launch = |error: LaunchError| CliError::Launch(error);
    for (error, message, hint) in [
        (
            CliError::NoHome,
            "cannot tell where your image store is: neither `XDG_DATA_HOME` nor `HOME` is an absolute path",
            Some("set `HOME`"),
        ),
        (CliError::NoSiteStore, "the site has no centralized repository", Some("the site sets it")),
        (
            CliError::WorkingDirectory { source: failed() },
            "cannot tell the working directory",
            Some("change to a directory that exists"),
        ),
        (
            CliError::SourceDateEpoch { given: "now".to_owned() },
            "`SOURCE_DATE_EPOCH` is `now`, expected seconds since 1970, at most 4294967295",
            Some("unset it"),
        ),
        (CliError::Output { source: failed() }, "cannot write to standard output", None),
        (
            CliError::InputEnded { what: "the password" },
            "standard input ended before the password was read",
            None,
        ),
        (
            CliError::Image(ImageError::Missing { given: "x".to_owned() }),
            "there is no image `x` in the store",
            Some("`sarus images` lists"),
        ),
        (
            launch(LaunchError::NoShim { places: vec!["/a/b".into(), "/c".into()] }),
            "there is no `sarus-shim` at `/a/b` or `/c`",
            Some("the installation is not complete"),
        ),
        (
            launch(LaunchError::TooLarge { bytes: 99_999_999 }),
            "the launch request has 99999999 bytes, at most 16777216 are possible",
            Some("fewer or shorter"),
        ),
        (
            launch(LaunchError::OwnPath { source: failed() }),
            "cannot tell where the `sarus` program is",
            Some("mount /proc"),
        ),
        (
            launch(LaunchError::Execute { path: "/x".into(), source: failed() }),
            "cannot execute `/x`",
            Some("the installation is not complete"),
        ),
        (
            launch(LaunchError::Write { source: failed() }),
            "cannot write the launch request",
            Some("the limit on the size of files"),
        ),
    ] {
        assert_eq!(error.to_string(), message);
        assert_eq!(error.hint().is_some(), hint.is_some(), "{message}");
        assert!(
            error.hint().unwrap_or_default().starts_with(hint.unwrap_or_default()),
            "{message}"
        );
        assert!(!error.is_closed_output());
    }
    let closed = CliError::Output { source: io::Error::from(io::ErrorKind::BrokenPipe) };
    assert!(closed.is_closed_output());
}

// Where the stores are.

fn store(config: Config, variables: &[(&str, &str)]) -> Result<PathBuf, CliError> {
    let find = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(value))
    };
    let settings = Settings::new(config, &find);
    Ok(settings.store(false)?.root().to_owned())
}

#[test]
fn the_users_store_is_where_xdg_says_or_the_site() {
    let base = || Config {
        local_repository_base_dir: Some(PathBuf::from("/scratch")),
        ..Config::default()
    };
    for (config, variables, want) in [
        (Config::default(), &[("HOME", "/home/u")][..], "/home/u/.local/share/sarus"),
        (Config::default(), &[("XDG_DATA_HOME", "/d"), ("HOME", "/home/u")], "/d/sarus"),
        (Config::default(), &[("XDG_DATA_HOME", "d"), ("HOME", "/h")], "/h/.local/share/sarus"),
        (base(), &[("USER", "ada"), ("HOME", "/home/u")], "/scratch/ada/.sarus"),
        (base(), &[("USER", "../x"), ("LOGNAME", "ada")], "/scratch/ada/.sarus"),
        (base(), &[("USER", ""), ("LOGNAME", "ada")], "/scratch/ada/.sarus"),
    ] {
        let got = store(config, variables).unwrap();
        assert!(got.starts_with(want), "{variables:?}: {} is not below {want}", got.display());
    }
    for variables in [&[][..], &[("HOME", "relative")]] {
        assert!(matches!(store(Config::default(), variables), Err(CliError::NoHome)));
    }
}

#[test]
fn the_sites_store_is_read_after_the_users_and_written_when_asked_for() {
    let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/u"));
    let without = Settings::new(Config::default(), &home);
    assert!(matches!(without.stores(true), Err(CliError::NoSiteStore)));
    assert!(matches!(without.store(true), Err(CliError::NoSiteStore)));
    assert_eq!(without.stores(false).unwrap().iter().count(), 1);
    let config = Config {
        centralized_repository_dir: Some(PathBuf::from("/site")),
        additional_stores: vec![PathBuf::from("/project"), PathBuf::from("/group")],
        ..Config::default()
    };
    assert!(config.removal_grace > Duration::ZERO, "jobs keep their files by default");
    let with = Settings::new(config, &home);
    let stores = with.stores(false).unwrap();
    let roots: Vec<_> = stores.iter().map(|store| (store.root(), store.is_read_only())).collect();
    assert!(!roots[0].1, "the user's own");
    let others = ["/site", "/project", "/group"].map(|root| (Path::new(root), true));
    assert_eq!(roots[1..], others, "in order, for reading");
    assert_eq!(with.stores(true).unwrap().iter().count(), 1);
    let site = with.store(true).unwrap();
    assert_eq!((site.root(), site.is_read_only()), (Path::new("/site"), false));
}
