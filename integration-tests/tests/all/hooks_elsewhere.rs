//! Hooks made with the SDK under other engines: plain runc and crun, and Podman, as root and rootless.
//!
//! A bare runtime makes cgroups where it may; here none may, so that nothing is seen by the tests
//! that run beside. crun 1.8 looks at no hybrid hierarchy, so it sees none.

use std::os::unix::fs::{chown, symlink};
use std::path::PathBuf;
use std::process::Command;

use sarus_integration_tests::{Invocation, Session, Who};
use serde_json::{Value, json};

use crate::glibc_image::GlibcImage;
use crate::hook_fabric::{SHOWN, compile_provider};

/// A mount and a process namespace of the test's own: all in it ends with it.
/// Hooks that are compiled to count what tests cover are to write nothing where they are started.
const NO_PROFILE: &str = "LLVM_PROFILE_FILE=/dev/null";

const APART: [&str; 7] =
    ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"];

/// Podman writes to the other two places; a file that root's hooks trust is in one.
const NO_CGROUPS: &str = r#"mount -t tmpfs none /sys/fs/cgroup
    mount -t tmpfs -o mode=1777 none /dev/shm; mount -t tmpfs -o mode=0755 none /run
    [ ! -e ../fabric.json ] || install -m 0644 ../fabric.json /run/; exec "$@""#;

const READ_ONLY_CGROUPS: &str = r#"findmnt --raw --noheadings --output TARGET |
    grep '^/sys/fs/cgroup' | while read -r mount; do mount -o remount,bind,ro "$mount"; done
    exec "$@""#;

/// A root file system with BusyBox, a directory of the host's, and who starts containers.
struct Ground {
    person: Session,
    root: Session,
}

impl Ground {
    fn new(who: Who) -> Self {
        let ground = Self { person: Session::new(who), root: Session::new(Who::Root) };
        let session = &ground.person;
        session.write("bundle/rootfs/bin/busybox", fs_err::read("/bin/busybox").unwrap());
        session.write("host/file", "of the host\n");
        let rootfs = ground.bundle().join("rootfs");
        for name in ["proc", "sys", "dev", "etc", "tmp"] {
            session.write(&format!("bundle/rootfs/{name}/.keep"), "");
        }
        for name in ["sh", "cat", "id"] {
            symlink("busybox", rootfs.join("bin").join(name)).unwrap();
        }
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs_err::set_permissions(rootfs.join("bin/busybox"), executable).unwrap();
        chown(&rootfs, Some(session.uid()), Some(session.gid())).unwrap();
        ground
    }

    fn bundle(&self) -> PathBuf {
        self.person.home().join("bundle")
    }

    /// The hook's entry, which shows the directory of the host at `/opt/host`.
    fn entry(&self) -> Value {
        let source = self.person.home().join("host");
        let argument = format!("--mount=type=bind,src={},dst=/opt/host", source.display());
        let program = self.person.programs().path("sarus-hook-mount");
        json!({"path": program, "args": ["sarus-hook-mount", argument], "env": [NO_PROFILE]})
    }

    /// A command of the person's, after a script of root's.
    fn command(&self, script: &str, words: &[&str]) -> Invocation {
        let (uid, gid) = (self.person.uid().to_string(), self.person.gid().to_string());
        let home = self.person.home().to_str().unwrap();
        let (home, state) = (format!("HOME={home}"), format!("XDG_RUNTIME_DIR={home}/state"));
        let path = "PATH=/usr/bin:/bin:/usr/sbin:/sbin";
        self.root
            .program(APART)
            .args(["-c", script, "sh"])
            .args(["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups"])
            .args(["env", "-i", &home, &state, path])
            .args(words)
            .in_directory(self.bundle())
    }

    /// `RUNTIME run` of a bundle that `runc spec` made, with the hook at a stage.
    fn run_bundle(&self, script: &str, runtime: &[&str], stage: &str) -> String {
        let spec: &[&str] = match self.person.uid() {
            0 => &["runc", "spec"],
            _ => &["runc", "spec", "--rootless"],
        };
        let path = self.bundle().join("config.json");
        if path.exists() {
            fs_err::remove_file(&path).unwrap();
        }
        self.person.program(spec).in_directory(self.bundle()).run().ok();
        let mut spec: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(["cat", "/opt/host/file"]);
        spec["root"]["readonly"] = json!(false);
        spec["hooks"] = json!({ stage: [self.entry()] });
        // crun drops what a hook says unless it is told where to.
        let said = self.person.write("said", "");
        spec["annotations"] = json!({"run.oci.hooks.stderr": said});
        fs_err::write(&path, spec.to_string()).unwrap();
        let state = self.person.write("state/.keep", "");
        let state = state.parent().unwrap().to_str().unwrap();
        let words = [runtime, &["--root", state, "run", "test"]].concat();
        let output = self.command(script, &words).run();
        assert_eq!(fs_err::read_to_string(said).unwrap(), "", "{stage}: {output}");
        output.ok().to_owned()
    }

    /// `podman run` of the root file system, with the hook's file.
    fn run_podman(&self, hook: &Value, stage: &str, command: &[&str]) -> String {
        let file = json!({
            "version": "1.0.0", "hook": hook, "when": {"always": true}, "stages": [stage],
        });
        let file = self.person.write("hooks.d/12-mount.json", file.to_string());
        let hooks = file.parent().unwrap().to_str().unwrap();
        self.person.write("state/.keep", "");
        let storage = ["root", "runroot", "tmpdir"].map(|name| {
            let directory = self.person.home().join("podman").join(name);
            format!("--{name}={}", directory.display())
        });
        let [root, runroot, tmpdir] = &storage;
        let rootfs = self.bundle().join("rootfs");
        let rootfs = rootfs.to_str().unwrap();
        let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
        let words: [&[&str]; 5] = [
            &["podman", root, runroot, tmpdir, "--storage-driver=overlay"],
            &["--cgroup-manager=cgroupfs", "--runtime=crun", "--hooks-dir", hooks, "run"],
            if self.person.uid() == 0 { &limits } else { &[] },
            &["--cgroups=disabled", "--network=host", "--rm", "--rootfs", rootfs],
            command,
        ];
        self.command(NO_CGROUPS, &words.concat()).run().ok().to_owned()
    }
}

/// The stages at which a runtime lets a hook mount.
const STAGES: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

const OF_THE_HOST: &str = "of the host\n";

#[test]
fn a_hook_mounts_under_plain_runc() {
    let ground = Ground::new(Who::Root);
    for stage in STAGES {
        let seen = ground.run_bundle(READ_ONLY_CGROUPS, &["runc", "--rootless=true"], stage);
        assert_eq!(seen, OF_THE_HOST, "{stage}");
    }
}

#[test]
fn a_hook_mounts_under_plain_rootless_runc() {
    let ground = Ground::new(Who::User);
    for stage in STAGES {
        let seen = ground.run_bundle(READ_ONLY_CGROUPS, &["runc"], stage);
        assert_eq!(seen, OF_THE_HOST, "{stage}");
    }
}

#[test]
fn a_hook_mounts_under_plain_crun() {
    let ground = Ground::new(Who::Root);
    for stage in STAGES {
        let crun = ["crun", "--cgroup-manager=disabled"];
        assert_eq!(ground.run_bundle(NO_CGROUPS, &crun, stage), OF_THE_HOST, "{stage}");
    }
}

/// Before `createContainer` nobody without privilege may look into crun's child.
#[test]
fn a_hook_mounts_under_plain_rootless_crun() {
    let ground = Ground::new(Who::User);
    let crun = ["crun", "--cgroup-manager=disabled"];
    assert_eq!(ground.run_bundle(NO_CGROUPS, &crun, "createContainer"), OF_THE_HOST);
}

#[test]
fn a_hook_mounts_under_podman() {
    mounts_under_podman(&Ground::new(Who::Root));
}

#[test]
fn a_hook_mounts_under_rootless_podman() {
    mounts_under_podman(&Ground::new(Who::User));
}

fn mounts_under_podman(ground: &Ground) {
    for stage in ["createContainer", "precreate"] {
        let seen = ground.run_podman(&ground.entry(), stage, &["cat", "/opt/host/file"]);
        assert_eq!(seen, OF_THE_HOST, "{stage}");
    }
}

#[test]
fn the_fabric_is_there_under_podman() {
    fabric_under_podman(&Ground::new(Who::Root));
}

#[test]
fn the_fabric_is_there_under_rootless_podman() {
    fabric_under_podman(&Ground::new(Who::User));
}

fn fabric_under_podman(ground: &Ground) {
    GlibcImage::new(&["/usr/bin/fi_info"]).write(&ground.bundle().join("rootfs"));
    let session = &ground.person;
    let library = session.write("lib/libcxi-fi.so", "");
    compile_provider(library.parent().unwrap());
    let config = json!({
        "version": 1,
        "providers": [{
            "name": "cxi", "library": library, "variables": {"FI_CXI_FABRIC": "of-the-site"},
            "devices": [{"source": node(session), "directory": "/dev"}],
        }],
    });
    session.write("fabric.json", config.to_string());
    let owner = format!("{}:{}", session.uid(), session.gid());
    ground.root.program(["chown", "-R", &owner]).args([ground.bundle()]).run().ok();
    let program = session.programs().path("sarus-hook-fabric");
    let hook = json!({"path": program, "env": ["FABRIC_CONFIG=/run/fabric.json", NO_PROFILE]});
    let seen = ground.run_podman(&hook, "precreate", &["fi_info", "-p", "cxi"]);
    assert!(seen.starts_with(SHOWN), "{seen}");
}

/// A device node of the session's.
fn node(session: &Session) -> PathBuf {
    let node = session.write("dev/.keep", "").with_file_name("cxi0");
    let mut mknod = Command::new("mknod");
    let made = mknod.args(["-m", "666"]).arg(&node).args(["c", "1", "3"]).output().unwrap();
    assert!(made.status.success());
    node
}
