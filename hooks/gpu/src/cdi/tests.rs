//! Specifications, from their text to the plan.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sarus_hook::Plan;
use serde_json::{Value, json};

use super::registry::File;
use super::spec::{Format, parse};
use super::{DeviceName, Registry};
use crate::host::table::Table;
use crate::host::{Found, Host};

/// Files as path, rank of the directory, and text.
fn registry(files: &[(&str, usize, String)]) -> Registry {
    let file = |(path, rank, text): &(&str, usize, String)| {
        let format = if path.ends_with("json") { Format::Json } else { Format::Yaml };
        File { path: path.into(), rank: *rank, spec: parse(text, format) }
    };
    let directories = vec![PathBuf::from("/etc/cdi"), PathBuf::from("/var/run/cdi")];
    Registry::new(directories, files.iter().map(file).collect())
}

fn spec(edits: &Value) -> String {
    json!({"cdiVersion": "1.0.0", "kind": "v.com/gpu", "containerEdits": edits,
           "devices": [{"name": "0"}, {"name": "1"}]})
    .to_string()
}

/// The steps (without their reasons) and notes of a request, or the error.
fn plan(names: &[&str], registry: &Registry, host: &dyn Host) -> Result<Value, String> {
    plan_with(Some("535.104.05"), names, registry, host)
}

fn plan_with(
    driver: Option<&str>,
    names: &[&str],
    registry: &Registry,
    host: &dyn Host,
) -> Result<Value, String> {
    let wanted: Vec<DeviceName> = names.iter().map(|n| DeviceName::parse(n).unwrap()).collect();
    let mut plan = Plan::default();
    super::plan(&wanted, registry, host, driver, &mut plan)
        .map_err(|failure| failure.to_string())?;
    let mut steps = plan.to_json("gpu")["steps"].take();
    for step in steps.as_array_mut().unwrap() {
        step.as_object_mut().unwrap().remove("reason");
    }
    Ok(steps)
}

const NVIDIA: &str = r#"---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      fileMode: 0666
    - hostPath: /dev/nvidia1
      path: /dev/nvidia1
      permissions: rw
containerEdits:
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  deviceNodes:
  - path: /dev/nvidiactl
    type: c
    major: 195
    minor: 255
  hooks:
  - hookName: createContainer
    path: /usr/bin/nvidia-ctk
    args: [nvidia-ctk, hook, update-ldcache, --folder, /usr/lib64]
    env: [A=b]
    timeout: 10
  mounts:
  - containerPath: /usr/lib64/libcuda.so.535.104.05
    hostPath: /usr/lib64/libcuda.so.535.104.05
    options: [ro, nosuid, nodev, bind]
"#;

fn nvidia_host() -> Table {
    Table::default()
        .node("/dev/nvidia0", 195, 0)
        .node("/dev/nvidia1", 195, 1)
        .node("/dev/nvidiactl", 195, 255)
        .file("/usr/bin/nvidia-ctk")
        .file("/usr/lib64/libcuda.so.535.104.05")
}

#[test]
fn a_vendors_specification_becomes_steps_and_its_common_part_only_once() {
    let registry = registry(&[("/etc/cdi/nvidia.yaml", 0, NVIDIA.to_owned())]);
    let names = ["nvidia.com/gpu=0", "nvidia.com/gpu=all"];
    let steps = plan(&names, &registry, &nvidia_host()).unwrap();
    let library = "/usr/lib64/libcuda.so.535.104.05";
    let device = |path: &str, access: &str| json!({"do": "device", "source": path, "destination": path, "access": access});
    let want = json!([
        {"do": "variable", "name": "NVIDIA_VISIBLE_DEVICES", "value": "void"},
        device("/dev/nvidiactl", "rwm"),
        {"do": "bind", "source": library, "destination": library, "readOnly": true},
        {"do": "hook", "stage": "createContainer", "entry": {
            "path": "/usr/bin/nvidia-ctk", "env": ["A=b"], "timeout": 10,
            "args": ["nvidia-ctk", "hook", "update-ldcache", "--folder", "/usr/lib64"]}},
        device("/dev/nvidia0", "rwm"),
        device("/dev/nvidia1", "rw"),
        {"do": "annotation", "name": "com.hooks.cdi.injected",
         "value": "nvidia.com/gpu=0,nvidia.com/gpu=all"},
    ]);
    assert_eq!(steps, want);
}

#[test]
fn every_kind_of_edit_becomes_a_step() {
    let edits = json!({
        "env": ["A=b=c", "E="],
        "deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/host", "permissions": "none"},
                        {"path": "/dev/pipe", "type": "p"}],
        "mounts": [
            {"hostPath": "/opt/a/b", "containerPath": "/b/c", "options": ["rw", "rbind"]},
            {"hostPath": "/opt/a", "containerPath": "/a", "type": "none", "options": ["ro", "bind", "noexec"]},
            {"hostPath": "/dev/dir", "containerPath": "/dev/dir"},
            {"hostPath": "/dev/host", "containerPath": "/dev/h", "options": ["ro"]},
            {"hostPath": "tmpfs", "containerPath": "/t", "type": "tmpfs", "options": ["size=1m"]}],
        "hooks": [{"hookName": "poststop", "path": "/bin/h"}],
        "additionalGids": [0, 44],
        "intelRdt": {"closID": "c", "l3CacheSchema": "L3:0=f", "enableCMT": true},
    });
    let host = Table::default()
        .node("/dev/host", 1, 3)
        .with("/dev/pipe", Found::Other)
        .with("/dev/dir", Found::Directory)
        .with("/opt/a", Found::Directory)
        .with("/opt/a/b", Found::Directory)
        .file("/bin/h");
    let registry = registry(&[("/etc/cdi/v.json", 0, spec(&edits))]);
    let bind = |source: &str, destination: &str, options: Value| {
        json!({"do": "configuration", "merge": {"mounts": [{"type": "bind", "source": source,
               "destination": destination, "options": options}]}})
    };
    let want = json!([
        {"do": "variable", "name": "A", "value": "b=c"},
        {"do": "variable", "name": "E", "value": ""},
        bind("/dev/host", "/dev/a", json!(["bind"])),
        {"do": "bind", "source": "/dev/pipe", "destination": "/dev/pipe", "readOnly": false},
        bind("/opt/a", "/a", json!(["ro", "bind", "noexec"])),
        {"do": "configuration", "merge": {"mounts": [{"type": "tmpfs", "source": "tmpfs",
         "destination": "/t", "options": ["size=1m"]}]}},
        {"do": "bind", "source": "/opt/a/b", "destination": "/b/c", "readOnly": false},
        bind("/dev/dir", "/dev/dir", json!(["rbind"])),
        {"do": "device", "source": "/dev/host", "destination": "/dev/h", "access": "r"},
        {"do": "hook", "stage": "poststop", "entry": {"path": "/bin/h"}},
        {"do": "configuration", "merge": {"linux": {"intelRdt":
            {"closID": "c", "l3CacheSchema": "L3:0=f", "enableCMT": true}}}},
        {"do": "group", "gid": 44},
        {"do": "annotation", "name": "com.hooks.cdi.injected", "value": "v.com/gpu=0"},
    ]);
    assert_eq!(plan(&["v.com/gpu=0"], &registry, &host).unwrap(), want);
}

#[test]
fn what_no_longer_fits_the_node_is_named() {
    let edit = |edits: Value| (edits, "`/etc/cdi/v.json` of the CDI device `v.com/gpu=1`");
    let host = || {
        Table::default()
            .node("/dev/a", 240, 0)
            .file("/lib/libcuda.so.550.54")
            .file("/lib/libold.so.470.1")
            .with("/bin/plain", Found::File { executable: false })
    };
    let mount = |path: &str| json!({"mounts": [{"hostPath": path, "containerPath": "/x"}]});
    let hook = |path: &str| json!({"hooks": [{"hookName": "prestart", "path": path}]});
    let cases = [
        (mount("/lib/gone"), "`/lib/gone` is missing"),
        (
            mount("/lib/libcuda.so.535.104.05"),
            "`/lib/libcuda.so.535.104.05` is missing; there is `libcuda.so.550.54` instead",
        ),
        (
            mount("/lib/libold.so.470.1"),
            "`/lib/libold.so.470.1` is of the driver's version 470.1, not 535.104.05",
        ),
        (json!({"deviceNodes": [{"path": "/dev/b"}]}), "the device node `/dev/b` is missing"),
        (
            json!({"deviceNodes": [{"path": "/dev/b", "hostPath": "/lib/libold.so.470.1"}]}),
            "`/lib/libold.so.470.1` is not a device node",
        ),
        (
            json!({"deviceNodes": [{"path": "/dev/a", "type": "c", "major": 241}]}),
            "`/dev/a` is the device c 240:0, not c 241:0",
        ),
        (
            json!({"deviceNodes": [{"path": "/dev/a", "type": "b"}]}),
            "`/dev/a` is the device c 240:0, not b 0:0",
        ),
        (hook("/bin/gone"), "the hook `/bin/gone` is missing"),
        (hook("/bin/plain"), "the hook `/bin/plain` is not executable"),
    ];
    for (edits, want) in cases {
        let (edits, place) = edit(edits);
        let registry = registry(&[("/etc/cdi/v.json", 0, spec(&edits))]);
        let error = plan(&["v.com/gpu=1"], &registry, &host()).unwrap_err();
        assert!(error.contains(place), "{error}");
        assert!(error.contains(&format!("caused by: {want}")), "{want}\n{error}");
        assert!(error.contains("nvidia-ctk cdi generate"), "{error}");
    }
}

#[test]
fn without_a_loaded_driver_the_hosts_own_link_tells_its_version() {
    let edits = json!({"mounts": [{"hostPath": "/lib/libcuda.so.470.1", "containerPath": "/x"}]});
    let registry = registry(&[("/etc/cdi/v.json", 0, spec(&edits))]);
    for (target, ok) in [("libcuda.so.470.1", true), ("/lib/libcuda.so.550.54", false)] {
        let host = Table::default().file("/lib/libcuda.so.470.1");
        let host = host.linked("/lib/libcuda.so.1", target);
        let planned = plan_with(None, &["v.com/gpu=0"], &registry, &host);
        assert_eq!(planned.is_ok(), ok, "{planned:?}");
    }
}

#[test]
fn the_last_directory_wins_and_two_of_one_are_a_conflict() {
    let file = |value: &str| spec(&json!({"env": [format!("V={value}")]}));
    let both =
        registry(&[("/etc/cdi/a.json", 0, file("etc")), ("/var/run/cdi/a.json", 1, file("run"))]);
    let steps = plan(&["v.com/gpu=0"], &both, &Table::default()).unwrap();
    assert_eq!(steps[0]["value"], "run");
    let twice = registry(&[("/etc/cdi/a.json", 0, file("1")), ("/etc/cdi/b.json", 0, file("2"))]);
    let error = plan(&["v.com/gpu=0"], &twice, &Table::default()).unwrap_err();
    assert!(error.contains("by `/etc/cdi/a.json` and by `/etc/cdi/b.json`"), "{error}");
    let over = registry(&[
        ("/etc/cdi/a.json", 0, file("1")),
        ("/etc/cdi/b.json", 0, file("2")),
        ("/var/run/cdi/c.json", 1, file("3")),
    ]);
    assert_eq!(plan(&["v.com/gpu=0"], &over, &Table::default()).unwrap()[0]["value"], "3");
}

#[test]
fn an_unknown_device_is_told_what_there_is() {
    let none = registry(&[]);
    let error = plan(&["nvidia.com/gpu=0"], &none, &Table::default()).unwrap_err();
    for want in [
        "no CDI device `nvidia.com/gpu=0`",
        "`/etc/cdi` or `/var/run/cdi`",
        "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.com.yaml",
    ] {
        assert!(error.contains(want), "{want}\n{error}");
    }
    let some = registry(&[
        ("/etc/cdi/v.json", 0, spec(&json!({}))),
        ("/etc/cdi/broken.json", 0, "{".to_owned()),
    ]);
    let error = plan(&["v.com/gpu=7"], &some, &Table::default()).unwrap_err();
    for want in [
        "`v.com/gpu` has the devices 0, 1",
        "`/etc/cdi/v.json` is a specification of `v.com/gpu`",
        "`/etc/cdi/broken.json` cannot be used: EOF",
    ] {
        assert!(error.contains(want), "{want}\n{error}");
    }
}

#[test]
fn a_hook_that_others_can_change_is_not_added() {
    let edits = json!({"hooks": [{"hookName": "prestart", "path": "/untrusted/hook"}]});
    let registry = registry(&[("/etc/cdi/v.json", 0, spec(&edits))]);
    let host = Table::default().file("/untrusted/hook");
    let error = plan(&["v.com/gpu=0"], &registry, &host).unwrap_err();
    assert!(error.contains("`/untrusted/hook` is not safe"), "{error}");
}

#[test]
fn a_network_interface_is_not_taken_from_the_host() {
    let text = json!({"cdiVersion": "1.1.0", "kind": "v.com/nic", "devices": [{"name": "a",
        "containerEdits": {"netDevices": [{"hostInterfaceName": "eth1", "name": "eth0"}]}}]});
    let registry = registry(&[("/etc/cdi/v.json", 0, text.to_string())]);
    let error = plan(&["v.com/nic=a"], &registry, &Table::default()).unwrap_err();
    assert!(error.contains("`eth1`"), "{error}");
}

#[test]
fn each_version_has_its_features_and_no_later_ones() {
    let device = |name: &str, edits: Value| json!([{"name": name, "containerEdits": edits}]);
    let mount = |kind: Option<&str>| json!({"mounts": [{"hostPath": "/a", "containerPath": "/b", "type": kind}]});
    let node = json!({"deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/b"}]});
    let annotated = json!([{"name": "a", "annotations": {"k": "v"}, "containerEdits": {}}]);
    let rdt = |members: Value| device("a", json!({"intelRdt": members}));
    let cases = [
        ("0.3.0", "v.com/c", device("a", mount(None))),
        ("0.4.0", "v.com/c", device("a", mount(Some("bind")))),
        ("0.5.0", "v.com/c", device("0", json!({"env": ["A=b"]}))),
        ("0.5.0", "v.com/c", device("a", node)),
        ("0.6.0", "v.com/c.d", device("a", json!({}))),
        ("0.6.0", "v.com/c", annotated),
        ("0.7.0", "v.com/c", device("a", json!({"additionalGids": [1]}))),
        ("0.7.0", "v.com/c", rdt(json!({"closID": "x"}))),
        ("1.1.0", "v.com/c", rdt(json!({"enableMonitoring": true}))),
    ];
    let versions = ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];
    for (first, kind, devices) in cases {
        for version in versions {
            let text = json!({"cdiVersion": version, "kind": kind, "devices": devices}).to_string();
            let parsed = parse(&text, Format::Json);
            assert_eq!(parsed.is_ok(), version >= first, "{version} {text}: {parsed:?}");
            if let Err(reason) = parsed {
                assert!(reason.contains(&format!("needs at least {first}")), "{reason}");
            }
        }
    }
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_place() {
    let with = |key: &str, value: Value| {
        let mut text =
            json!({"cdiVersion": "0.7.0", "kind": "v.com/c", "devices": [{"name": "a"}]});
        text[key] = value;
        text
    };
    let edit = |edits: Value| with("containerEdits", edits);
    let cases = [
        (with("cdiVersion", json!("2.0.0")), "`cdiVersion`: `2.0.0` is not known"),
        (with("cdiVersion", json!("0.2.0")), "`cdiVersion`: `0.2.0` is not known"),
        (with("kind", json!("c")), "`kind`: `c` is no kind"),
        (with("kind", json!("v.com/c/")), "`kind`: the class `c/` must begin and end"),
        (with("devices", json!([])), "`devices`: at least one"),
        (
            with("devices", json!([{"name": "a"}, {"name": "a"}])),
            "`devices[1].name`: `a` is there twice",
        ),
        (with("devices", json!([{"name": "_"}])), "`devices[0].name`: the device `_`"),
        (with("annotations", json!({"a b": "c"})), "`annotations`: the name `a b`"),
        (with("annotations", json!({"a": 1})), "invalid type: integer"),
        (with("unheard", json!(1)), "unknown field `unheard`"),
        (edit(json!({"env": ["A"]})), "`containerEdits.env[0]`: expected `NAME=VALUE`, got `A`"),
        (edit(json!({"env": ["=b"]})), "expected `NAME=VALUE`"),
        (
            edit(json!({"deviceNodes": [{"path": "dev"}]})),
            "`path` must be an absolute path, got `dev`",
        ),
        (
            edit(json!({"deviceNodes": [{"path": "/d", "type": "x"}]})),
            "`type` must be b, c, u or p",
        ),
        (edit(json!({"deviceNodes": [{"path": "/d", "permissions": "rx"}]})), "`permissions`"),
        (
            edit(json!({"deviceNodes": [{"path": "/d", "major": -1}]})),
            "`major` is no device number: -1",
        ),
        (edit(json!({"mounts": [{"hostPath": "", "containerPath": "/a"}]})), "`hostPath` is empty"),
        (edit(json!({"mounts": [{"hostPath": "/a"}]})), "missing field `containerPath`"),
        (edit(json!({"hooks": [{"hookName": "h", "path": "/h"}]})), "`hookName` must be one of"),
        (
            edit(json!({"hooks": [{"hookName": "prestart", "path": "h"}]})),
            "`path` must be an absolute",
        ),
        (
            edit(json!({"hooks": [{"hookName": "prestart", "path": "/h", "timeout": 0}]})),
            "`timeout`",
        ),
        (edit(json!({"intelRdt": {"closID": "../x"}})), "`containerEdits.intelRdt.closID`"),
    ];
    for (value, want) in cases {
        let error = parse(&value.to_string(), Format::Json).unwrap_err();
        assert!(error.contains(want), "{want}\n{error}");
        // JSON is YAML too, and obeys the same rules, but for a number that is a text as well.
        let is_text = want.contains("invalid type");
        assert_eq!(parse(&value.to_string(), Format::Yaml).is_ok(), is_text, "{value}");
    }
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = "cdiVersion: \"0.7.0\"\nkind: v.com/c\nannotations: {k: v}\ndevices:\n  - name: a\n    \
        containerEdits:\n      deviceNodes:\n        - {path: /dev/a, fileMode: 0660, major: 1, minor: 3, type: c}\n      \
        env:\ncontainerEdits:\n  additionalGIDs: [44]\n";
    let json = json!({"cdiVersion": "0.7.0", "kind": "v.com/c", "annotations": {"k": "v"},
        "devices": [{"name": "a", "containerEdits": {"deviceNodes": [
            {"path": "/dev/a", "fileMode": 0o660, "major": 1, "minor": 3, "type": "c"}]}}],
        "containerEdits": {"additionalGids": [44]}});
    let parsed = parse(yaml, Format::Yaml).unwrap();
    assert_eq!(parsed, parse(&json.to_string(), Format::Json).unwrap());
}

#[test]
fn directories_are_read_and_other_files_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("b.json"), spec(&json!({"env": ["V=1"]}))).unwrap();
    fs_err::write(folder.path().join("a.yaml"), "kind: [").unwrap();
    fs_err::write(folder.path().join("c.txt"), "{").unwrap();
    let directories = vec![folder.path().to_owned(), PathBuf::from("/nonexistent")];
    let registry = super::load(directories, &ListsOnly);
    let name = DeviceName::parse("v.com/gpu=1").unwrap();
    assert!(registry.find(&name).is_ok());
    let error = registry.find(&DeviceName::parse("v.com/gpu=2").unwrap()).unwrap_err().to_string();
    assert!(error.contains("a.yaml` cannot be used"), "{error}");
    assert!(!error.contains("c.txt"), "{error}");
}

/// The real directories, without the question of who owns them.
struct ListsOnly;

impl Host for ListsOnly {
    fn look(&self, path: &Path) -> Option<Found> {
        crate::host::RealHost.look(path)
    }

    fn link(&self, _path: &Path) -> Option<PathBuf> {
        None
    }

    fn names(&self, directory: &Path) -> Vec<String> {
        crate::host::RealHost.names(directory)
    }

    fn distrust(&self, _path: &Path) -> Option<String> {
        None
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _json = parse(&text, Format::Json);
        let _yaml = parse(&text, Format::Yaml);
        let _name = DeviceName::parse(&text);
    }

    #[test]
    fn no_altered_specification_makes_the_plan_panic(at in 0..NVIDIA.len(), with in "[ -~\n]{0,4}") {
        let mut text = NVIDIA.to_owned();
        text.replace_range(at..(at + 2).min(NVIDIA.len()), &with);
        let registry = registry(&[("/etc/cdi/n.yaml", 0, text)]);
        let _plan = plan(&["nvidia.com/gpu=0", "nvidia.com/gpu=all"], &registry, &nvidia_host());
    }
}
