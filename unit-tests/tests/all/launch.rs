//! The launch request, the variables of a container, the user in its passwd.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use sarus_config::Environment;
use sarus_launch::{
    Account, DeviceAccess, Origin, RawString, Request, Sources, merge_group, merge_passwd,
    variables,
};
use serde_json::{Value, json};

fn request() -> Value {
    json!({
        "version": 2,
        "image": { "squashfs": "/store/a.squashfs", "name": "debian:12" },
        "command": { "args": ["true"] },
        "host_env": ["HOME=/home/u"],
    })
}

fn raw(list: &[&str]) -> Vec<RawString> {
    list.iter().map(|text| RawString::from(*text)).collect()
}

#[test]
fn a_request_survives_the_way_through_json() {
    let mut wanted = Request::parse(request().to_string().as_bytes()).unwrap();
    wanted.command.args.push(OsString::from_vec(vec![0xff, b'a']).into());
    let json = serde_json::to_vec(&wanted).unwrap();
    assert_eq!(Request::parse(&json).unwrap(), wanted);
}

#[test]
fn a_bad_request_is_refused_with_what_is_wrong() {
    let change = |pointer: &str, value: Value| {
        let mut given = request();
        *given.pointer_mut(pointer).unwrap() = value;
        given
    };
    let with = |key: &str, value: Value| {
        let mut given = request();
        given.as_object_mut().unwrap().insert(key.into(), value);
        given
    };
    let relative = json!([{ "destination": "data", "source": { "bind": { "path": "/data" } } }]);
    for (given, want) in [
        (
            change("/version", json!(7)),
            "what one program of Sarus tells another has version 7, and this one reads version 2",
        ),
        (
            change("/image/squashfs", json!("a.squashfs")),
            "the image file `a.squashfs` is not an absolute path",
        ),
        (change("/command/args", json!([])), "the launch request names no command"),
        (change("/command/args", json!(["a\u{0}b"])), "the launch request is not valid"),
        (with("unheard_of", json!(1)), "the launch request is not valid"),
        (
            with("name", json!("../x")),
            "`../x` cannot be a container's name: letters, digits, `_`, `.`, `-` only, a letter or digit first, at most 128",
        ),
        (with("mounts", relative), "the mount destination `data` is not an absolute path"),
        (json!([]), "the launch request is not valid"),
    ] {
        let error = Request::parse(given.to_string().as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), want, "{given}");
    }
}

#[test]
fn device_access_is_each_letter_at_most_once() {
    for (given, want) in [
        ("rwm", Some((true, true, true))),
        ("r", Some((true, false, false))),
        ("mr", Some((true, false, true))),
        ("", None),
        ("rr", None),
        ("x", None),
    ] {
        let got =
            DeviceAccess::parse(given).map(|access| (access.read, access.write, access.mknod));
        assert_eq!(got, want, "{given:?}");
    }
}

#[test]
fn variables_are_merged_from_host_to_user() {
    let mut site = Environment::default();
    site.unset.insert("GONE".into());
    site.set.insert("SITE".into(), "s".into());
    site.prepend.insert("LIST".into(), "first".into());
    site.append.insert("LIST".into(), "last".into());
    site.append.insert("NEW".into(), "alone".into());
    let got = variables(Sources {
        host: &raw(&[
            "HOME=/h",
            "A=host",
            "GONE=1",
            "PMIX_RANK=3",
            "CUDA_VISIBLE_DEVICES=2,5",
            "junk",
            "=x",
            "PMIX_SECURITY_MODE=native",
        ]),
        image: &[
            "A=image".into(),
            "PMIX_RANK=0".into(),
            "LIST=middle".into(),
            "PATH=/bin".into(),
            "U=i".into(),
        ],
        site: &site,
        user: &raw(&["U=user=1", "U=user=2"]),
    });
    let got: Vec<_> = got
        .iter()
        .map(|(name, found)| (name.as_str().unwrap(), found.value.as_str().unwrap(), found.origin))
        .collect();
    assert_eq!(
        got,
        [
            ("A", "image", Origin::Image),
            ("CUDA_VISIBLE_DEVICES", "0,1", Origin::Engine),
            ("HOME", "/h", Origin::Host),
            ("LIST", "first:middle:last", Origin::Site),
            ("NEW", "alone", Origin::Site),
            ("NVIDIA_VISIBLE_DEVICES", "2,5", Origin::Host),
            ("PATH", "/bin", Origin::Image),
            ("PMIX_MCA_psec", "native", Origin::Engine),
            ("PMIX_RANK", "3", Origin::Host),
            ("PMIX_SECURITY_MODE", "native", Origin::Host),
            ("SITE", "s", Origin::Site),
            ("U", "user=2", Origin::User),
        ]
    );
}

#[test]
fn a_path_is_there_even_when_nobody_gives_one() {
    let site = Environment::default();
    let got = variables(Sources { host: &[], image: &[], site: &site, user: &[] });
    let path = &got[&RawString::from("PATH")];
    assert_eq!(
        (path.value.as_str(), path.origin),
        (Some(sarus_launch::DEFAULT_PATH), Origin::Engine)
    );
}

fn ada() -> Account {
    Account {
        name: "ada".into(),
        uid: 1000,
        gid: 100,
        gecos: "Ada: L".into(),
        home: "/home/ada".into(),
        shell: "/bin/bash".into(),
    }
}

#[test]
fn the_user_is_the_first_one_found_in_passwd() {
    let line = "ada:x:1000:100:Ada  L:/home/ada:/bin/bash\n";
    let root = "root:x:0:0:root:/root:/bin/sh\n";
    for (image, want) in [
        ("", Some(line.to_owned())),
        (root, Some(format!("{root}{line}"))),
        (
            &format!("{root}ubuntu:x:1000:1000::/home/ubuntu:/bin/sh\n"),
            Some(format!("{root}{line}ubuntu:x:1000:1000::/home/ubuntu:/bin/sh\n")),
        ),
        (
            &format!("ada:x:7:7::/:/bin/sh\n{root}"),
            Some(format!("{line}ada:x:7:7::/:/bin/sh\n{root}")),
        ),
        (&format!("{root}ada:*:1000:5::/:"), None),
        ("garbage\n\n", Some(format!("garbage\n\n{line}"))),
    ] {
        assert_eq!(merge_passwd(image, &ada()), want, "given {image:?}");
    }
}

#[test]
fn each_group_of_the_user_gets_a_name() {
    let groups = [("users".to_owned(), 100), ("project".to_owned(), 5000)];
    for (image, want) in [
        ("users:x:100:\n", Some("users:x:100:\nproject:x:5000:\n")),
        ("users:x:100:\nproject:x:5000:a,b\n", None),
        ("", Some("users:x:100:\nproject:x:5000:\n")),
    ] {
        assert_eq!(merge_group(image, &groups).as_deref(), want, "given {image:?}");
    }
}
