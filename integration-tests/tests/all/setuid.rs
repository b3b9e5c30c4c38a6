//! The shim installed setuid root: what it gives a user, and what it refuses to those who attack it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sarus_integration_tests::{
    Image, Invocation, Output, Packed, Runtime, Tar, Who, copy_stack, debian_with,
};

use crate::{Ground, in_mode};

in_mode!(
    with_runc,
    User,
    Runc,
    a_user_gets_the_kernels_mount_and_no_privilege,
    a_hostile_image_leads_nowhere,
    roots_hooks_give_a_user_the_hosts_mpi
);
in_mode!(
    with_crun,
    User,
    Crun,
    a_user_gets_the_kernels_mount_and_no_privilege,
    a_hostile_image_leads_nowhere,
    roots_hooks_give_a_user_the_hosts_mpi
);

/// Installs the programs and a store where nobody but root can write, and starts a command as the
/// user; all of it in a mount namespace of its own. Arguments: programs, image, user, group, home.
const SITE: &str = r#"set -e
    mount -t tmpfs -o mode=0755 none /srv
    mkdir /srv/bin /srv/upper /srv/work /srv/store
    cp "$1"/sarus* /srv/bin/; chmod 4755 /srv/bin/sarus-shim
    cp "$2" /srv/store/image.squashfs; chmod 0644 /srv/store/image.squashfs
    mount -t overlay -o lowerdir=/etc,upperdir=/srv/upper,workdir=/srv/work none /etc
    mkdir -p /etc/sarus; printf %s "$CONFIG" > /etc/sarus/sarus.json
    echo secret > /srv/secret; chmod 0600 /srv/secret; mkdir -m 0700 /srv/closed; mkdir /srv/readable
    eval "$PREPARE"
    uid=$3 gid=$4 home=$5; shift 5; cd "$home"
    exec setpriv --reuid "$uid" --regid "$gid" --clear-groups env -i HOME="$home" \
        PATH=/srv/bin:/usr/bin:/bin:/usr/sbin:/sbin "$@""#;

const STORE: &str = r#"{"centralizedRepositoryDir": "/srv/store"}"#;
pub(crate) const IMAGE: &str = "/srv/store/image.squashfs";

/// A user with an image, and root, who installs.
pub(crate) struct Site {
    pub(crate) ground: Ground,
    root: sarus_integration_tests::Session,
    image: String,
    pub(crate) config: &'static str,
    pub(crate) prepare: &'static str,
}

impl Site {
    pub(crate) fn with(runtime: Runtime, image: &Packed) -> Self {
        let ground = Ground::with(Who::User, runtime, image);
        let store = ground.session.home().join(".local/share/sarus/images/v1");
        let found = fs_err::read_dir(store).unwrap().next().unwrap().unwrap().path();
        let image = found.join("image.squashfs").to_str().unwrap().to_owned();
        let root = sarus_integration_tests::Session::new(Who::Root);
        Self { ground, root, image, config: STORE, prepare: "" }
    }

    fn new() -> Self {
        Self::with(Runtime::Crun, &Image::busybox().pack())
    }

    /// A command of the user's.
    pub(crate) fn user(&self, words: &[&str]) -> Invocation {
        let session = &self.ground.session;
        let (uid, gid) = (session.uid().to_string(), session.gid().to_string());
        let programs = session.programs().directory().to_str().unwrap().to_owned();
        let home = session.home().to_str().unwrap().to_owned();
        self.root
            .program(["unshare", "--mount", "bash", "-c", SITE, "bash"])
            .args([&programs, &self.image, &uid, &gid, &home])
            .args(words)
            .env("CONFIG", self.config)
            .env("PREPARE", self.prepare)
    }

    fn run(&self, options: &[&str], script: &str) -> Output {
        let runtime = self.ground.runtime.name();
        let words = ["sarus", "--verbose", "run", "--runtime", runtime];
        self.user(&[&words, options, &[IMAGE, "sh", "-c", script]].concat()).run()
    }
}

#[track_caller]
pub(crate) fn is_privileged(output: &Output) -> bool {
    let privileged = output.stderr.contains("mode: privileged");
    assert_ne!(privileged, output.stderr.contains("mode: rootless"), "{output}");
    privileged
}

fn a_user_gets_the_kernels_mount_and_no_privilege(_: Who, runtime: Runtime) {
    let site = Site::with(runtime, &Image::busybox().pack());
    let script = "id -u; id -g; grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status | \
                  tr -d '\\n\\t'; echo; touch /usr/new /etc/new && stat -c %u /usr /usr/new /etc; \
                  head -n 1 /proc/self/mountinfo | cut -d ' ' -f 6; \
                  grep -E '^(Uid|CapPrm|CapEff):' /proc/$PPID/status | tr '\\n\\t' '  '";
    let output = site.run(&[], script);
    assert!(is_privileged(&output), "{output}");
    let (uid, gid) = (site.ground.session.uid(), site.ground.session.gid());
    let zero = "0000000000000000";
    let sets = ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}:{zero}")).concat();
    let want = format!(
        "{uid}\n{gid}\n{sets}NoNewPrivs:1Seccomp:2\n{uid}\n{uid}\n{uid}\nrw,nosuid,nodev,relatime\n\
         Uid: {uid} {uid} {uid} {uid} CapPrm: {zero} CapEff: {zero} "
    );
    assert_eq!(output.ok(), want, "{output}");
    for (script, code) in [("exit 7", 7), ("kill -TERM $$", 143), ("no-such-program", 127)] {
        assert_eq!(site.run(&[], script).code(), Some(code), "{script}");
    }
    // The programs of one namespace see each other's containers.
    let script = "sarus run --name there $0 sh -c 'echo text > /mine; echo up; sleep 1000' > up & \
                  while ! grep -q up up 2> /dev/null; do :; done; sarus ps -q; \
                  sarus exec there sh -c 'cat /mine; id -u; grep CapBnd /proc/self/status'; \
                  sarus kill there; wait $!; echo $?; rm up";
    let output = site.user(&["bash", "-c", script, IMAGE]).run();
    assert_eq!(output.ok(), format!("there\ntext\n{uid}\nCapBnd:\t{zero}\n137\n"), "{output}");
}

/// The hooks `glibc` and `mpi`, with the host's MPI libraries from `$STACK` or Debian's.
const MPI: &str = r#"mkdir /srv/hooks /srv/mpi; cp "$STACK" /srv/mpi
    for name in 05-glibc 10-mpi; do
        printf '{"version": "1.0.0", "hook": {"path": "/srv/bin/sarus-hook-%s", "env": ["MPI_LIBS=%s"]},
            "when": {"annotations": {"^com.hooks.%s.enabled$": "true"}}, "stages": ["createContainer"]}' \
            ${name#*-} "$(echo /srv/mpi/*)" ${name#*-} > /srv/hooks/$name.json
    done"#;

fn roots_hooks_give_a_user_the_hosts_mpi(_: Who, runtime: Runtime) {
    let mut site = Site::with(runtime, &debian_with("mpich"));
    site.config = r#"{"centralizedRepositoryDir": "/srv/store", "hooksDir": ["/srv/hooks"]}"#;
    site.prepare = MPI;
    let impi = copy_stack(&site.ground.session, "impi").join("lib/libmpi.so.12.0.0");
    for (stack, want) in [
        (impi.as_path(), "Intel(R) MPI Library 2021.19"),
        (Path::new("/usr/lib/x86_64-linux-gnu/libmpich.so.12"), "4.0.2"),
    ] {
        let words = ["sarus", "--verbose", "run", "--runtime", runtime.name(), "--mpi", IMAGE];
        let hello = site.user(&words).args(["/usr/local/bin/hello"]);
        let output = hello.env("STACK", stack).run();
        assert!(is_privileged(&output), "{output}");
        assert!(output.ok().starts_with("rank 0 of 1: "), "{output}");
        assert!(output.stdout.contains(want), "{output}");
    }
}

#[test]
fn the_kernel_mounts_what_policy_admits_and_nothing_else() {
    let mut site = Site::new();
    let own = site.image.clone();
    for (config, prepare, image, privileged) in [
        (STORE, "", IMAGE, true),
        (STORE, "", own.as_str(), false),
        (r#"{"kernelImages": "any"}"#, "", own.as_str(), true),
        (r#"{"kernelImages": "none", "centralizedRepositoryDir": "/srv/store"}"#, "", IMAGE, false),
        ("{}", "", IMAGE, false),
        (r#"{"kernelImages": "verified"}"#, "", own.as_str(), false),
        (STORE, "chmod 0777 /srv/store", IMAGE, false),
        (STORE, "chown $3 /srv/store/image.squashfs", IMAGE, false),
        (STORE, "chmod 0666 /srv/store/image.squashfs", IMAGE, false),
        (STORE, "ln -s $2 /srv/store/link", "/srv/store/link", false),
        (
            STORE,
            "mkdir /srv/store/d; chown $3 /srv/store/d; cp $2 /srv/store/d/i",
            "/srv/store/d/i",
            false,
        ),
        (STORE, "", "/srv/store/../store/image.squashfs", false),
        (r#"{"imageMount": "fuse", "centralizedRepositoryDir": "/srv/store"}"#, "", IMAGE, false),
    ] {
        (site.config, site.prepare) = (config, prepare);
        let output = site.user(&["sarus", "--verbose", "run", image, "id", "-u"]).run();
        assert_eq!(output.ok(), format!("{}\n", site.ground.session.uid()), "{output}");
        assert_eq!(is_privileged(&output), privileged, "{config} {prepare} {image}: {output}");
    }
    (site.config, site.prepare) = (STORE, "");
    let output = site.run(&["--writable-dir", "/tmp"], "true");
    output.ok();
    assert!(!is_privileged(&output), "a directory of the user's: {output}");
}

#[test]
fn a_writable_layer_on_disk_leaves_nothing_of_roots() {
    let mut site = Site::new();
    site.config =
        r#"{"centralizedRepositoryDir": "/srv/store", "writable": {"directory": "/srv/layers"}}"#;
    site.prepare = "mkdir -m 1777 /srv/layers";
    let script = "sarus --verbose run $0 sh -c 'echo x > /x; cat /x'; ls -A /srv/layers";
    let output = site.user(&["bash", "-c", script, IMAGE]).run();
    assert_eq!(output.ok(), "x\n", "{output}");
    assert!(!is_privileged(&output), "{output}");
}

/// Root with `CAP_SYS_RESOURCE` raises hard limits; what the user names must not get those.
#[test]
fn a_runtime_of_the_users_has_the_users_limits() {
    let site = Site::new();
    let script = site.ground.session.write(
        "runtime",
        "#!/bin/sh\necho limits: $(ulimit -Ht) $(ulimit -Hf) $(ulimit -Hn) >&2; exit 1\n",
    );
    fs_err::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let limited = "ulimit -t 20 -f 100000 -n 500; sarus run --runtime $1 $0 true";
    let words = ["bash", "-c", limited, &site.image, script.to_str().unwrap()];
    let output = site.user(&words).run();
    assert!(output.failed(125).contains("limits: 20 "), "{output}");
    assert!(output.stderr.contains(" 500\n"), "{output}");
}

/// Covers a directory of the user's with a FUSE file system of theirs that root cannot enter: a store
/// or data behind sshfs, gocryptfs and the like. `$OWN` is the directory.
const NOT_FOR_ROOT: &str = r#"OWN=$5/$OWN
    setpriv --reuid "$3" --regid "$4" --clear-groups bindfs --no-allow-other "$OWN" "$OWN"
    if ls "$OWN" 2> /dev/null; then exit 99; fi"#;

/// Runs a command and unmounts `$0`, which its server keeps alive.
const AND_UNMOUNT: &str = r#""$@"; status=$?; fusermount3 -u "$0"; exit $status"#;

#[test]
fn a_setuid_shim_runs_what_is_in_a_place_that_even_root_cannot_enter() {
    let mut site = Site::new();
    site.prepare = NOT_FOR_ROOT;
    let (uid, own) = (site.ground.session.uid(), site.image.clone());
    let (mount, missing) = (format!("{own}:{own}"), format!("{own}-not-there"));
    let run = |site: &Site, words: &[&str]| {
        let wrapped = ["sh", "-c", AND_UNMOUNT, ".local", "sarus", "--verbose", "run"];
        site.user(&[&wrapped, words].concat()).env("OWN", ".local").run()
    };
    for config in ["{}", STORE, r#"{"kernelImages": "any"}"#] {
        site.config = config;
        let output = run(&site, &["-v", &mount, &own, "sh", "-c", "id -u; ls $0", &own]);
        assert!(!is_privileged(&output), "{config}: {output}");
        assert!(output.stderr.contains("can be opened by none but the user"), "{output}");
        assert_eq!(output.ok(), format!("{uid}\n{own}\n"), "{output}");
    }
    run(&site, &[&missing, "true"]).failed(125);
}

#[test]
fn a_writable_layer_on_a_file_system_that_cannot_have_it_is_named() {
    let mut site = Site::new();
    site.prepare = NOT_FOR_ROOT;
    let words = ["sh", "-c", AND_UNMOUNT, ".local", "sarus", "run"];
    let words = [&words[..], &["--writable-dir", ".local", IMAGE, "true"]].concat();
    let output = site.user(&words).env("OWN", ".local").run();
    output.failed(125);
    assert!(output.stderr.contains("home/.local` over the image"), "{output}");
    assert!(output.stderr.contains("hint: a local file system"), "{output}");
}

fn a_hostile_image_leads_nowhere(_: Who, runtime: Runtime) {
    let tar = Tar::new()
        .symlink("proc", "/srv")
        .symlink("sys", "/srv")
        .symlink("dev", "/srv")
        .symlink("etc", "../../../../srv")
        .symlink("out", "/srv/closed")
        .symlink("over", "/proc/sys")
        .file("bin/id-root", "#!/bin/sh\nid -u\n")
        .mode(0o4755)
        .device("disk", b'4', 7, 0)
        .mode(0o666)
        .device("memory", b'3', 1, 1)
        .mode(0o666)
        .fifo("pipe");
    let site = Site::with(runtime, &Image::busybox().layer(&tar).pack());
    let uid = site.ground.session.uid();
    let output =
        site.run(&[], "id -u; id-root; ls -d /proc/self /dev/null /sys/kernel /etc/passwd");
    assert!(is_privileged(&output), "{output}");
    assert_eq!(
        output.ok(),
        format!("{uid}\n{uid}\n/dev/null\n/etc/passwd\n/proc/self\n/sys/kernel\n"),
        "{output}"
    );
    for device in ["disk", "memory"] {
        let output = site.run(&[], &format!("dd if=/{device} of=/x count=1 2>&1"));
        assert!(output.stdout.contains("Permission denied"), "{device}: {output}");
    }
    // Links of the image are resolved inside: where nothing is, or what is the kernel's, nothing is
    // mounted.
    for link in ["/out", "/over"] {
        let output = site.run(&["-v", &format!("/usr/share:{link}")], "true");
        assert_eq!(output.code(), Some(125), "{link}: {output}");
    }
}

#[test]
fn passwd_of_the_image_is_read_by_nobody_with_privilege() {
    for hostile in [
        Tar::new().fifo("etc/passwd"),
        Tar::new().symlink("etc/passwd", "/dev/zero"),
        Tar::new().symlink("etc/passwd", "/proc/self/environ"),
        Tar::new().symlink("etc/passwd", "../../../../srv/secret"),
        Tar::new()
            .file("etc/passwd", [b"x:x:0:0\xff\n::::::\n".repeat(2000), vec![0; 4096]].concat()),
    ] {
        let site = Site::with(Runtime::Crun, &Image::busybox().layer(&hostile).pack());
        let output = site.run(&[], "cat /etc/passwd | tail -n 1; id -u");
        assert!(is_privileged(&output), "{output}");
        assert!(!output.ok().contains("secret"), "{output}");
        assert!(output.stdout.ends_with(&format!("{}\n", site.ground.session.uid())), "{output}");
    }
}

#[test]
fn what_runs_as_root_is_not_for_users_to_choose() {
    let site = Site::new();
    let script = site.ground.session.write("script", "#!/bin/sh\nid -u > $HOME/ran; exit 1\n");
    fs_err::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = script.to_str().unwrap();
    for options in [
        ["--runtime", "/bin/sh"],
        ["--runtime", script],
        ["--annotation", "run.oci.hooks.stdout=/srv/written"],
        ["--annotation", "org.criu.config=/srv/written"],
    ] {
        let words = ["sarus", "run", options[0], options[1], IMAGE, "true"];
        let output = site.user(&words).run();
        output.failed(125);
        assert!(output.stderr.contains("hint: "), "{output}");
    }
    // A user's own configuration and hooks are none of the privileged shim's.
    let hooks = site.ground.session.home().join("hooks");
    let hook = format!(
        r#"{{"version": "1.0.0", "hook": {{"path": "{script}"}}, "when": {{"always": true}},
            "stages": ["createRuntime", "precreate"]}}"#
    );
    site.ground.session.write("hooks/hook.json", hook);
    let config = format!(r#"{{"hooksDir": "{}", "runtime": "{script}"}}"#, hooks.display());
    site.ground.session.write(".config/sarus/sarus.json", config);
    assert!(is_privileged(&site.run(&[], "true")));
    assert!(!site.ground.session.home().join("ran").exists());
}

#[test]
fn no_mount_gives_what_the_user_cannot_reach() {
    let mut site = Site::new();
    site.prepare = "echo host > /srv/readable/file";
    for volume in ["/srv/closed:/x", "/srv/closed/below:/x", "/root/.bashrc:/x", "/proc/1/root:/x"]
    {
        let output = site.run(&["-v", volume], "ls /x");
        assert!(matches!(output.code(), Some(125 | 1)), "{volume}: {output}");
        assert_eq!(output.stdout, "", "{volume}");
    }
    // Nor what the shim has open for itself.
    let own = (3..16).map(|number| format!("fd/{number}"));
    for own in own.chain(["cwd".to_owned(), "root".to_owned()]) {
        let output = site.run(&["-v", &format!("/proc/self/{own}:/x")], "true");
        assert_eq!(output.code(), Some(125), "{own}: {output}");
    }
    let output = site.run(&["-v", "/srv/secret:/x"], "cat /x");
    assert_ne!(output.code(), Some(0), "{output}");
    // Places for mounts are not made with root's rights in directories of the host.
    let options = ["-v", "/srv/readable:/h", "-v", "/usr/share:/h/new/directory"];
    let output = site.run(&options, "true");
    output.explains(125, &["/h/new/directory", "Permission denied"]);
    for destination in ["/", "/proc/self", "/dev", "/sys/kernel", "/x/../proc"] {
        let volume = format!("/usr/share:{destination}");
        assert_eq!(site.run(&["-v", &volume], "true").code(), Some(125), "{destination}");
    }
    for device in ["/srv/secret", "/dev/../srv/secret"] {
        assert_eq!(site.run(&["--device", device], "true").code(), Some(125), "{device}");
    }
}

#[test]
fn a_directory_of_a_pmix_server_is_no_way_around_the_sites_rules() {
    // A place with a name of Slurm's, which the image has lead elsewhere.
    let tar = Tar::new().symlink("srv/pmix.2.0", "/etc");
    let mut site = Site::with(Runtime::Crun, &Image::busybox().layer(&tar).pack());
    site.config = r#"{"centralizedRepositoryDir": "/srv/store",
                      "userMounts": {"notAllowedPrefixesOfPath": ["/etc", "/srv"]}}"#;
    site.prepare = "for name in plain pmix.1.0 pmix.2.0; do
                      mkdir /srv/$name; echo inside > /srv/$name/mark; chown -R $3 /srv/$name
                    done
                    mkdir /srv/pmix.3.0; echo inside > /srv/pmix.3.0/mark";
    for (name, want) in
        [("pmix.1.0", "inside\n"), ("pmix.2.0", ""), ("pmix.3.0", ""), ("plain", "")]
    {
        let variable = format!("PMIX_SERVER_TMPDIR=/srv/{name}");
        let script = format!("cat /srv/{name}/mark /etc/mark 2> /dev/null; true");
        let words = ["env", &variable, "sarus", "--verbose", "run", "--runtime", "crun", IMAGE];
        let output = site.user(&[&words, &["sh", "-c", &script] as &[_]].concat()).run();
        assert!(is_privileged(&output), "{output}");
        assert_eq!(output.ok(), want, "{name}: {output}");
    }
}

#[test]
fn variables_descriptors_and_limits_of_the_caller_change_nothing() {
    let site = Site::new();
    let uid = format!("{}\n", site.ground.session.uid());
    let evil = site.ground.session.write("evil.so", "no library");
    let evil = evil.to_str().unwrap();
    let preload = format!("export LD_PRELOAD={evil} LD_AUDIT={evil}");
    for before in [
        "export LD_LIBRARY_PATH=. GCONV_PATH=. LOCPATH=. LANG=xx TMPDIR=/nowhere PATH=/srv/bin:.",
        "export XDG_CONFIG_HOME=/proc/self MALLOC_CHECK_=3 RUST_BACKTRACE=full GLIBC_TUNABLES=x=y",
        preload.as_str(),
        "exec 0<&-",
        "exec 5< / 6> /dev/null 7< /etc/passwd",
        "for n in $(seq 20 900); do eval \"exec $n< /dev/null\"; done",
        "ulimit -t 1",
        "ulimit -v 4000000",
        "ulimit -s 512",
    ] {
        let script = format!("{before}; exec sarus run {IMAGE} /bin/id -u");
        let output = site.user(&["bash", "-c", &script]).run();
        assert_eq!(output.ok(), uid, "{before}: {output}");
    }
    // Where the programs cannot even start, they end with an error.
    for before in
        ["ulimit -n 3", "ulimit -n 6", "ulimit -f 0", "ulimit -u 1", "exec 0<&- 1>&- 2>&-"]
    {
        let script = format!("{before}; exec sarus run {IMAGE} /bin/id -u");
        let output = site.user(&["bash", "-c", &script]).run();
        assert!(output.stdout.is_empty() || output.stdout == uid, "{before}: {output}");
        assert!(!output.stderr.contains("panicked"), "{before}: {output}");
    }
    let output = site.user(&["sarus-shim", "seal-root", "/"]).run();
    assert_eq!(output.code(), Some(125), "{output}");
    for number in ["0", "-1", "9999", "x", "3"] {
        let output = site.user(&["sarus-shim", "run", "--request-fd", number]).run();
        assert_eq!(output.code(), Some(125), "{number}: {output}");
    }
    for request in ["/dev/zero", "/proc/self/environ", "/", "/srv/readable"] {
        let script = format!("exec sarus-shim run --request-fd 4 4< {request}");
        let output = site.user(&["bash", "-c", &script]).run();
        assert_eq!(output.code(), Some(125), "{request}: {output}");
    }
}

#[test]
fn a_run_killed_at_any_moment_leaves_nothing() {
    let site = Site::new();
    let script = "for n in $(seq 1 40); do \
                  timeout -s KILL 0.$(printf %03d $((n * 2))) sarus run $0 sleep 0.1; done; \
                  sarus images > /dev/null; sarus ps -q";
    let output = site.user(&["bash", "-c", script, IMAGE]).run();
    assert_eq!(output.ok(), "", "{output}");
    let stop = "for n in $(seq 1 20); do sarus run $0 true & sleep 0.0$((n % 10)); \
                kill -STOP $! 2> /dev/null; kill -CONT $! 2> /dev/null; wait $! || echo $?; done";
    let output = site.user(&["bash", "-c", stop, IMAGE]).run();
    assert_eq!(output.ok(), "", "{output}");
}

#[test]
fn names_that_change_between_look_and_use_show_nothing() {
    let site = Site::new();
    let script = "mkdir d; echo mine > d/file; ln -s /srv/secret link; cp d/file plain; \
                  (while :; do ln -sf /srv/secret x; cp -f --remove-destination plain x; done) 2> /dev/null & \
                  for n in $(seq 30); do sarus run -v $PWD/x:/x $0 cat /x 2> /dev/null; done; kill $!; \
                  rm -r d link plain x";
    let output = site.user(&["bash", "-c", script, IMAGE]).run();
    assert!(!output.stdout.contains("secret"), "{output}");
}
