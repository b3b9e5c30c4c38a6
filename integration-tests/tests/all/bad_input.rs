//! Bad input: one clear error that names the operation, the object, the cause and what to do; the
//! right exit code; nothing lost and nothing left behind.

use sarus_integration_tests::{Image, Registry, Runtime, Session, Tar, Who};

use crate::{Ground, in_mode};

in_mode!(
    as_user,
    User,
    Crun,
    options_that_cannot_be,
    mounts_that_cannot_be,
    links_that_lead_nowhere,
    an_image_that_is_none
);
in_mode!(
    as_root,
    Root,
    Runc,
    options_that_cannot_be,
    mounts_that_cannot_be,
    links_that_lead_nowhere,
    an_image_that_is_none
);

fn options_that_cannot_be(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--no-such-option"], &["--no-such-option"]),
        (&["-w", "relative"], &["relative"]),
        (&["--env-file", "/no/such/file"], &["/no/such/file"]),
        (&["--pull", "sometimes"], &["sometimes"]),
        (&["--pid", "none"], &["none"]),
        (&["--device", "/dev/no-such-device"], &["/dev/no-such-device"]),
    ];
    for (options, parts) in cases {
        ground.run_with(options, &["true"]).run().explains(125, parts);
    }
    let file = ground.session.write("vars", "GOOD=1\n=bad\n");
    let file = file.to_str().unwrap();
    ground.run_with(&["--env-file", file], &["true"]).run().explains(125, &[file, "2"]);
    let absent = ["run", "--runtime", "/no/such/runtime", &ground.image, "true"];
    ground.session.sarus(absent).run().explains(125, &["/no/such/runtime"]);
    let silent = ["run", "--runtime", "/bin/false", &ground.image, "true"];
    let said = "it said nothing and ended with status 1";
    ground.session.sarus(silent).run().explains(125, &["`/bin/false`", said]);
    // The user's own command is none of these.
    ground.run(&["no-such-program"]).run().explains(127, &["no-such-program", "not found"]);
    ground.run(&["/bin/not-executable"]).run().explains(126, &["/bin/not-executable"]);
    ground
        .run(&["/bin/no-interpreter"])
        .run()
        .explains(126, &["/bin/no-interpreter", "interpreter"]);
}

fn mounts_that_cannot_be(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let cases = [
        ("-v", "/no/such/source:/data", "/no/such/source"),
        ("-v", "relative:destination", "destination"),
        ("-v", "/etc", "/etc"),
        ("-v", "/etc:/data:rx", "rx"),
        ("--mount", "type=bind,source=/etc", "destination"),
        ("--mount", "type=volume,source=/etc,destination=/data", "volume"),
        ("--mount", "type=bind,source=/etc,destination=/data,frozen=true", "frozen"),
        ("--tmpfs", "/data:size=many", "many"),
    ];
    for (option, value, part) in cases {
        ground.run_with(&[option, value], &["true"]).run().explains(125, &[part]);
    }
}

fn links_that_lead_nowhere(who: Who, runtime: Runtime) {
    let tar = Tar::new().symlink("dangling", "nowhere/there");
    let ground = Ground::with(who, runtime, &Image::busybox().layer(&tar).pack());
    for options in [["-v", "/etc:/dangling"], ["-w", "/dangling"], ["--tmpfs", "/dangling/below"]] {
        let output = ground.run_with(&options, &["true"]).run();
        output.explains(125, &["/dangling", "symbolic link that leads nowhere"]);
    }
    let output = ground.run_with(&["-w", "/bin/sh"], &["true"]).run();
    output.explains(125, &["`/bin/sh`", "Not a directory", "hint: `-w`"]);
}

fn an_image_that_is_none(who: Who, _: Runtime) {
    let session = Session::new(who);
    let registry = Registry::start();
    session.trust(&[registry.host()]);
    let absent = format!("{}/absent:1", registry.host());
    session.sarus(["run", &absent, "true"]).run().explains(125, &["absent"]);
    session.sarus(["run", "--pull=never", &absent, "true"]).run().explains(125, &[&absent]);
    let upper = format!("{}/Upper:1", registry.host());
    session.sarus(["run", &upper, "true"]).run().explains(125, &[&upper]);
    let text = session.write("text.sqsh", "no squashfs at all\n");
    let text = text.to_str().unwrap();
    session.sarus(["run", text, "true"]).run().explains(125, &[text]);
    session.sarus(["run", "./no-such-file", "true"]).run().explains(125, &["no-such-file"]);
    session.sarus(["rmi", &absent]).run().explains(125, &[&absent]);
    session.sarus(["inspect", &absent]).run().explains(125, &[&absent]);
    session.sarus(["export", &absent, "/tmp/never"]).run().explains(125, &[&absent]);
    assert!(!std::path::Path::new("/tmp/never").exists());
}

#[test]
fn a_layer_that_is_no_tar_is_named() {
    use sarus_integration_tests::{Dialect, Packing};
    let session = Session::new(Who::User);
    let registry = Registry::start();
    session.trust(&[registry.host()]);
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() / 2].to_vec();
    let whole = Tar::new().file("file", vec![7; 50_000]).bytes();
    for (name, bytes) in
        [("text", b"this is no tar archive, but some text".repeat(40)), ("cut", cut(whole))]
    {
        let image = Image::new().raw_layer(bytes, Packing::Plain, Dialect::Oci).pack();
        let reference = registry.push(&format!("{name}:1"), &image);
        let digest = image.layer_digests().remove(0);
        let output = session.sarus(["pull", &reference]).run();
        output.failed(125);
        assert!(output.stderr.contains(&digest["sha256:".len()..][..12]), "{output}");
        assert_eq!(session.sarus(["images", "--format", "json"]).run().ok().trim(), "[]");
    }
}

#[test]
fn an_unknown_command_is_named() {
    let session = Session::new(Who::User);
    let output = session.sarus(["pul", "image"]).run();
    assert_ne!(output.code(), Some(0));
    assert!(output.stderr.contains("pul"), "{output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
}

#[test]
fn a_broken_configuration_of_the_user_is_named_with_its_line() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    ground.session.write(".config/sarus/sarus.json", "{\n  \"no-such-key\": 1\n}\n");
    let output = ground.run(&["true"]).run();
    output.explains(125, &["sarus.json", "no-such-key"]);
}

/// A file system in memory of that size, for the user, where their store will be; ends with it.
struct SmallStore(std::path::PathBuf);

impl SmallStore {
    fn mount(session: &Session, options: &str) -> Self {
        session.write(".local/share/sarus/.keep", "");
        let at = session.home().join(".local/share/sarus");
        let options = format!("mode=0700,uid={},gid={},{options}", session.uid(), session.gid());
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at);
        assert!(mount.output().unwrap().status.success());
        Self(at)
    }
}

impl Drop for SmallStore {
    fn drop(&mut self) {
        let output = std::process::Command::new("umount").arg(&self.0).output();
        assert!(output.is_ok_and(|output| output.status.success()));
    }
}

#[test]
fn a_full_disk_is_told_and_keeps_no_part_of_the_image() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = registry.push("app:1", &Image::busybox().pack());
    let store = SmallStore::mount(&session, "size=300k");
    let output = session.sarus(["pull", &reference]).run();
    let listed = session.sarus(["images", "--format", "json"]).run();
    drop(store);
    output.failed(125);
    assert!(output.stderr.contains("No space left on device"), "{output}");
    assert!(output.stderr.contains("\nhint: "), "{output}");
    assert_eq!(listed.ok().trim(), "[]");
}

#[test]
fn a_read_only_store_is_told() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = registry.push("app:1", &Image::busybox().pack());
    let store = SmallStore::mount(&session, "ro");
    let output = session.sarus(["pull", "--quiet", &reference]).run();
    drop(store);
    output.explains(125, &["Read-only file system"]);
}

/// Runs a script with the rights of root in namespaces of the user's own, then the command there.
fn in_own_namespaces(ground: &Ground, script: &str) -> sarus_integration_tests::Output {
    let script = format!("set -e; {script}; exec \"$@\"");
    let words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"];
    ground.run(&["true"]).under(words).run()
}

#[test]
fn a_node_that_forbids_user_namespaces_is_told_with_the_switch() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    let output = in_own_namespaces(&ground, "echo 0 > /proc/sys/user/max_user_namespaces");
    output.explains(125, &["user namespace", "max_user_namespaces"]);
}

fn explains_once(output: &sarus_integration_tests::Output, want: &str) {
    output.explains(125, &[want]);
    assert_eq!(output.stderr.matches("error: ").count(), 1, "{output}");
}

#[test]
fn limits_that_are_too_small_are_told() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    // Each step that opens something, up to the first limit that is enough. What was open where the
    // tests were started from would count.
    let close = "for f in /proc/$$/fd/*; do [ ${f##*/} -lt 3 ] || eval \"exec ${f##*/}>&-\"; done";
    let mut files = 8..64;
    for limit in &mut files {
        let output = ground.run(&["true"]).after(&format!("{close}; ulimit -n {limit}")).run();
        if output.code() == Some(0) {
            break;
        }
        explains_once(&output, "`ulimit -n`");
    }
    assert!(files.start > 16 && !files.is_empty(), "{files:?}");
    let above = "exec 30< /dev/null; ulimit -n 25";
    for (limit, want) in [(above, "`ulimit -n`"), ("ulimit -u 1", "`ulimit -u`")] {
        explains_once(&ground.run(&["true"]).after(limit).run(), want);
    }
    // What a program does not need for itself it gets whatever the limit is.
    assert_eq!(ground.run(&["echo", "hi"]).after("ulimit -s 128").run().ok(), "hi\n");
}

#[test]
fn a_limit_on_mount_namespaces_is_named() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    let output = in_own_namespaces(&ground, "echo 2 > /proc/sys/user/max_mnt_namespaces");
    output.explains(125, &["user.max_mnt_namespaces"]);
}

#[test]
fn a_umask_that_keeps_the_user_out_is_no_obstacle_and_is_the_containers() {
    let registry = Registry::start();
    let session = Session::new(Who::User);
    session.trust(&[registry.host()]);
    let reference = registry.push("app:1", &Image::busybox().pack());
    let run = session.sarus(["run", &reference, "sh", "-c", "umask"]).after("umask 0777");
    assert_eq!(run.run().ok(), "0777\n");
    session.sarus(["rmi", "--force", &reference]).run().ok();
    session.sarus(["pull", "--quiet", &reference]).after("umask 0777").run().ok();
    session.sarus(["run", "--pull", "never", &reference, "true"]).run().ok();
}

#[test]
fn a_run_needs_neither_a_home_nor_a_working_directory_that_exists() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    let gone = ground.session.home().join("gone");
    let in_gone = format!("mkdir {0}; cd {0}; rmdir {0}", gone.display());
    assert_eq!(ground.run(&["echo", "hi"]).after(&in_gone).run().ok(), "hi\n");
    let relative = ground.run_with(&["-v", "./x:/x"], &["true"]).after(&in_gone).run();
    relative.explains(125, &["working directory"]);
    // By its file an image is found without a store; another's configuration is not the user's.
    let file = ground.session.home().join("image.squashfs");
    ground.session.sarus(["export", &ground.image]).args([&file]).run().ok();
    let closed = ground.session.directory().join("closed");
    fs_err::create_dir_all(closed.join(".config/sarus")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs_err::set_permissions(&closed, mode).unwrap();
    let closed = format!("export HOME={}", closed.display());
    for before in ["unset HOME", &closed] {
        let run = ground.session.sarus(["run"]).args([&file]).args(["echo", "hi"]);
        assert_eq!(run.after(before).run().ok(), "hi\n", "{before}");
    }
    let images = ground.session.sarus(["images"]).after("unset HOME").run();
    images.explains(125, &["`HOME`"]);
    // One's own that cannot be read is an error.
    let own = ground.session.write(".config/sarus/sarus.json", "{}");
    fs_err::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let output = ground.run(&["true"]).run();
    assert!(output.failed(125).contains("Permission denied"), "{output}");
}

/// Two are what all runs of a job need together; the kernel gives those of ended runs back seconds
/// later.
#[test]
fn a_node_with_few_user_namespaces_runs_many_containers() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    let many = "set -e; echo 2 > /proc/sys/user/max_user_namespaces
        for round in 1 2 3; do pids=
            for run in 1 2 3 4 5 6; do \"$@\" & pids=\"$pids $!\"; done
            for pid in $pids; do wait $pid; done
        done";
    // The shell is the first process and reaps what it did not start: a zombie keeps its namespaces.
    let words =
        ["unshare", "-r", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", many, "sh"];
    ground.run(&["true"]).under(words).run().ok();
    let output = in_own_namespaces(&ground, "echo 1 > /proc/sys/user/max_user_namespaces");
    output.explains(125, &["user namespace", "user.max_user_namespaces", "share two"]);
}

#[test]
fn a_node_without_fuse_unpacks_and_without_room_says_so() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    // As where only root may open the device.
    let hide = "mount --bind /etc/shadow /dev/fuse";
    in_own_namespaces(&ground, hide).ok();
    let output =
        in_own_namespaces(&ground, &format!("{hide}; mount -t tmpfs -o size=200k none /tmp"));
    output.explains(125, &["the image needs", "available", "squashfuse"]);
}

#[test]
fn root_is_told_what_to_install_on_a_node_without_a_runtime() {
    let ground = Ground::new(Who::Root, Runtime::Crun);
    let hide = "for f in $(type -ap runc crun); do mount --bind /dev/null $f; done";
    let script = format!("{hide}; exec \"$@\"");
    let words = ["unshare", "--mount", "bash", "-c", &script, "bash"];
    let auto = ["run", &ground.image, "true"];
    ground.session.sarus(auto).under(words).run().explains(125, &["runc", "crun"]);
}

#[test]
fn a_restriction_that_the_node_cannot_apply_stops_a_run_of_root() {
    let ground = Ground::new(Who::Root, Runtime::Crun);
    let site = ground.session.directory().join("site");
    fs_err::create_dir(&site).unwrap();
    // The site's file, where no other test sees it.
    let script = r#"set -e
        mount -t tmpfs none "$0"; mkdir "$0/upper" "$0/work"
        mount -t overlay -o "lowerdir=/etc,upperdir=$0/upper,workdir=$0/work" none /etc
        mkdir -p /etc/sarus; echo '{"apparmorProfile": "strict"}' > /etc/sarus/sarus.json
        exec "$@""#;
    let words = ["unshare", "--mount", "sh", "-c", script, site.to_str().unwrap()];
    ground.run(&["true"]).under(words).run().explains(125, &["AppArmor"]);

    // Nor is one left away where the container began without it.
    let run = ground.run(&["sh", "-c", "echo ready; read line"]).keep_input().start();
    assert_eq!(run.line(), "ready\n");
    let id = format!("sarus-{}", run.pid());
    let exec = || ground.session.sarus(["exec", &id, "echo", "inside"]);
    assert_eq!(exec().run().ok(), "inside\n");
    let refused = exec().under(words).run();
    refused.explains(125, &["cannot start a command under the AppArmor profile `strict`", "hint:"]);
    assert_eq!(refused.stdout, "");
    run.finish();
}
