//! The hook `gpu`. No GPU and no driver is here: device nodes are the null device's, the driver's
//! library is one that answers as a test says (`nvml.c`), and vendors' programs are scripts.

mod driver;
mod setuid;

use std::path::{Path, PathBuf};
use std::process::Command;

use sarus_integration_tests::{Invocation, Output, Runtime, Who};
use serde_json::{Value, json};

use crate::{Ground, in_every_mode, in_mode};

in_every_mode!(
    a_cdi_device_in_json_and_in_yaml_reaches_the_container,
    an_unknown_cdi_device_is_refused_with_what_there_is,
    a_specification_that_no_longer_fits_is_refused_by_name,
    the_last_directory_of_specifications_wins,
    a_vendors_own_hook_is_called_as_before,
);
in_mode!(
    as_root_runc_of_all,
    Root,
    Runc,
    with_privilege_a_specification_that_others_can_change_is_not_used
);

/// The container's engine with the hook configured.
struct Node {
    ground: Ground,
    /// Where files of the host are that only root can change, as the hook sees it.
    site: PathBuf,
}

impl Node {
    fn new(who: Who, runtime: Runtime) -> Self {
        Self::on(Ground::new(who, runtime))
    }

    fn on(ground: Ground) -> Self {
        let site = ground.session.configuration();
        let node = Self { ground, site };
        node.configure(&[]);
        node
    }

    /// Configures the hook with more settings.
    fn configure(&self, settings: &[String]) {
        let directories = format!("CDI_SPEC_DIRS={0}/cdi:{0}/cdi.run", self.site.display());
        let mut settings = settings.to_vec();
        settings.push(directories);
        let hook = json!({
            "version": "1.0.0",
            "hook": {"path": self.program(), "args": ["sarus-hook-gpu"], "env": settings},
            "when": {"always": true},
            "stages": ["precreate"],
        });
        self.add_hook("20-gpu.json", &hook);
    }

    fn add_hook(&self, name: &str, hook: &Value) {
        let session = &self.ground.session;
        session.configure(&format!("hooks.d/{name}"), hook.to_string());
        let hooks = json!({"hooksDir": [self.site.join("hooks.d")]});
        session.configure("sarus.json", hooks.to_string());
    }

    /// The hook's program, where root trusts it.
    fn program(&self) -> PathBuf {
        let built = self.ground.session.programs().path("sarus-hook-gpu");
        self.executable("sarus-hook-gpu", &fs_err::read(built).unwrap())
    }

    /// A file of the site, as the hook sees it.
    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.ground.session.configure(name, content);
        self.site.join(name)
    }

    fn executable(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.file(name, content);
        set_executable(&self.outside(name));
        path
    }

    /// Where a file of the site is for the test itself.
    fn outside(&self, name: &str) -> PathBuf {
        match self.ground.session.uid() {
            0 => self.ground.session.directory().join("site/sarus").join(name),
            _ => self.site.join(name),
        }
    }

    fn run_with(&self, options: &[&str], script: &str) -> Output {
        let run = self.ground.run_with(options, &["sh", "-c", script]);
        self.configured(run).run()
    }

    fn configured(&self, run: Invocation) -> Invocation {
        self.ground.session.configured(run)
    }

    /// A file of the host's that anyone can read, elsewhere than the site's.
    fn host_file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        self.ground.session.write(&format!("host/{name}"), content)
    }

    /// A stand-in for a device node: the null device under another name.
    fn device(&self, name: &str) -> PathBuf {
        let keep = self.host_file(&format!("{name}.keep"), "");
        let path = keep.with_extension("");
        run(Command::new("mknod").args(["-m", "666"]).arg(&path).args(["c", "1", "3"]));
        path
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn set_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A specification with all kinds of edits, of devices `all` and `0`.
fn specification(node: &Node) -> Value {
    let library = node.host_file("lib/libvendor.so.1", "of the host\n");
    let seen = node.ground.session.home().join("seen");
    let script = format!("#!/bin/sh\ncat > {}; echo \"$@\" >> {0}\n", seen.display());
    let hook = node.executable("vendor-hook", script.as_bytes());
    json!({
        "cdiVersion": "0.7.0",
        "kind": "example.com/gpu",
        "annotations": {"example.com/made-by": "a test"},
        "devices": [
            {"name": "all", "containerEdits": {"env": ["SELECTED=all"]}},
            {"name": "0", "annotations": {"slot": "1"}, "containerEdits": {
                "env": ["SELECTED=0"],
                "deviceNodes": [{"path": "/dev/example/gpu0", "hostPath": node.device("gpu0")}],
            }},
        ],
        "containerEdits": {
            "env": ["COMMON=a=b"],
            "mounts": [{
                "hostPath": library, "containerPath": "/opt/vendor/libvendor.so.1",
                "options": ["ro", "nosuid", "nodev", "bind"],
            }],
            "hooks": [{
                "hookName": "createContainer", "path": hook,
                "args": ["vendor-hook", "update"], "timeout": 10,
            }],
            "additionalGids": [4711],
        },
    })
}

const LOOK: &str = "echo $SELECTED $COMMON; cat /opt/vendor/libvendor.so.1; \
    echo x > /opt/vendor/libvendor.so.1 || echo refused; \
    [ -c /dev/example/gpu0 ] && echo x > /dev/example/gpu0 && echo node; id -G";

fn a_cdi_device_in_json_and_in_yaml_reaches_the_container(who: Who, runtime: Runtime) {
    let node = Node::new(who, runtime);
    let json = specification(&node);
    let yaml = "cdiVersion: 0.5.0\nkind: example.com/nic\ndevices:\n- name: a\n  containerEdits:\n    \
                env:\n    - NIC=yes\n";
    node.file("cdi/gpu.json", json.to_string());
    node.file("cdi/nic.yaml", yaml);
    let devices = ["--device", "example.com/gpu=0", "--device", "example.com/nic=a"];
    let said = node.run_with(&devices, &format!("{LOOK}; echo $NIC"));
    let lines: Vec<&str> = said.ok().lines().collect();
    assert_eq!(lines[..4], ["0 a=b", "of the host", "refused", "node"], "{said}");
    assert_eq!(lines[5], "yes", "{said}");
    // Rootless, no group can be given; crun keeps the caller's groups as they are.
    if who == Who::Root && runtime == Runtime::Runc {
        assert!(lines[4].split(' ').any(|gid| gid == "4711"), "{said}");
    }
    let seen = fs_err::read_to_string(node.ground.session.home().join("seen")).unwrap();
    assert!(seen.starts_with('{') && seen.ends_with("update\n"), "{seen}");

    let annotation = ["--annotation", "cdi.k8s.io/test=example.com/gpu=all"];
    let said = node.run_with(&annotation, LOOK);
    assert_eq!(said.stdout.lines().next(), Some("all a=b"), "{said}");
    assert!(!said.stdout.contains("node"), "{said}");
}

fn an_unknown_cdi_device_is_refused_with_what_there_is(who: Who, runtime: Runtime) {
    let node = Node::new(who, runtime);
    let file = node.file("cdi/gpu.json", specification(&node).to_string());
    let broken = node.file("cdi/broken.yaml", "kind: [");
    let said = node.run_with(&["--device", "example.com/gpu=7"], "true");
    said.explains(
        125,
        &[
            "there is no CDI device `example.com/gpu=7` on this node",
            "`example.com/gpu` has the devices 0, all",
            &format!("`{}` is a specification", file.display()),
            &format!("`{}` cannot be used", broken.display()),
        ],
    );
    let said = node.run_with(&["--annotation", "cdi.k8s.io/x=gpu0"], "true");
    said.explains(125, &["the annotation `cdi.k8s.io/x=gpu0` asks for no CDI device"]);
}

fn a_specification_that_no_longer_fits_is_refused_by_name(who: Who, runtime: Runtime) {
    let node = Node::new(who, runtime);
    let driver = node.host_file("driver/proc/driver/nvidia/version", VERSION);
    let root = driver.ancestors().nth(4).unwrap();
    node.configure(&[format!("GPU_HOST_ROOT={}", root.display())]);
    let there = node.host_file("lib/libcuda.so.535.104.05", "");
    let gone = there.with_file_name("libcuda.so.470.1");
    let old = node.host_file("lib/libnvidia-ml.so.470.1", "");
    let absent = Path::new("/nonexistent");
    let mount = |path: &Path| json!({"mounts": [{"hostPath": path, "containerPath": "/x", "options": ["bind"]}]});
    let cases = [
        (
            "gone",
            mount(&gone),
            format!("`{}` is missing; there is `libcuda.so.535.104.05`", gone.display()),
        ),
        ("old", mount(&old), "is of the driver's version 470.1, not 535.104.05".to_owned()),
        (
            "node",
            json!({"deviceNodes": [{"path": absent}]}),
            "the device node `/nonexistent` is missing".to_owned(),
        ),
        (
            "hook",
            json!({"hooks": [{"hookName": "createContainer", "path": absent}]}),
            "the hook `/nonexistent` is missing".to_owned(),
        ),
    ];
    let devices: Vec<Value> = cases
        .iter()
        .map(|(name, edits, _)| json!({"name": name, "containerEdits": edits}))
        .chain([json!({"name": "fits", "containerEdits": mount(&there)})])
        .collect();
    let text = json!({"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices});
    let file = node.file("cdi/nvidia.json", text.to_string());
    for (name, _, problem) in &cases {
        let device = format!("nvidia.com/gpu={name}");
        node.run_with(&["--device", &device], "true").explains(
            125,
            &[
                &format!("the specification `{}` of the CDI device `{device}`", file.display()),
                problem,
                &format!("nvidia-ctk cdi generate --output={}", file.display()),
            ],
        );
    }
    node.run_with(&["--device", "nvidia.com/gpu=fits"], "true").ok();
}

/// As the driver's module writes it.
const VERSION: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  \
                       Sat Aug 19 01:15:15 UTC 2023\nGCC version:  gcc version 12.2.0\n";

fn the_last_directory_of_specifications_wins(who: Who, runtime: Runtime) {
    let node = Node::new(who, runtime);
    let specification = |value: &str| {
        json!({"cdiVersion": "0.3.0", "kind": "example.com/x", "devices": [
            {"name": "a", "containerEdits": {"env": [format!("FROM={value}")]}}]})
        .to_string()
    };
    let device = ["--device", "example.com/x=a"];
    node.file("cdi/x.json", specification("first"));
    assert_eq!(node.run_with(&device, "echo $FROM").ok(), "first\n");
    node.file("cdi.run/x.json", specification("last"));
    assert_eq!(node.run_with(&device, "echo $FROM").ok(), "last\n");
    node.file("cdi.run/other.json", specification("another"));
    node.run_with(&device, "true").explains(
        125,
        &["the CDI device `example.com/x=a` is defined twice", "x.json`", "other.json`"],
    );
}

/// The stand-in for `nvidia-container-toolkit prestart` notes that it was called with the state.
fn a_vendors_own_hook_is_called_as_before(who: Who, runtime: Runtime) {
    let node = Node::new(who, runtime);
    let seen = node.ground.session.home().join("toolkit");
    let script = format!("#!/bin/sh\ncat > {0}\necho \"$@ $PATH\" >> {0}\n", seen.display());
    let toolkit = node.executable("nvidia-container-toolkit", script.as_bytes());
    let hook = json!({
        "version": "1.0.0",
        "hook": {
            "path": toolkit, "args": ["nvidia-container-toolkit", "prestart"],
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
        },
        "when": {"always": true, "commands": [".*"]},
        "stages": ["prestart"],
    });
    node.add_hook("oci-nvidia-hook.json", &hook);
    node.run_with(&[], "true").ok();
    let text = fs_err::read_to_string(&seen).unwrap();
    let (state, call) = text.trim_end().rsplit_once('}').unwrap();
    let state: Value = serde_json::from_str(&format!("{state}}}")).unwrap();
    assert!(state["pid"].as_i64().unwrap() > 0, "{state}");
    assert_eq!(call.trim(), "prestart /usr/local/bin:/usr/bin:/bin");
}

fn with_privilege_a_specification_that_others_can_change_is_not_used(who: Who, runtime: Runtime) {
    let node = Node::new(who, runtime);
    let text = json!({"cdiVersion": "0.3.0", "kind": "example.com/x", "devices": [
        {"name": "a", "containerEdits": {"env": ["A=b"]}}]});
    let file = node.host_file("cdi/x.json", text.to_string());
    let hook = json!({
        "version": "1.0.0",
        "hook": {
            "path": node.program(), "args": ["sarus-hook-gpu"],
            "env": [format!("CDI_SPEC_DIRS={}", file.parent().unwrap().display())],
        },
        "when": {"always": true},
        "stages": ["precreate"],
    });
    node.add_hook("20-gpu.json", &hook);
    node.run_with(&["--device", "example.com/x=a"], "true").explains(
        125,
        &[&format!("`{}` cannot be used", file.display()), "is not safe", "`/var/tmp`"],
    );
}
