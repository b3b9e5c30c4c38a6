//! Hooks that root runs for a user: the shim is setuid root, the image and the variables are the
//! user's.

use std::os::unix::fs::MetadataExt;

use sarus_integration_tests::{Image, Invocation, Output, Runtime, Session, Who};
use serde_json::json;

use crate::{Ground, in_mode};

in_mode!(with_runc, User, Runc, hooks_of_root_act_for_the_user);
in_mode!(with_crun, User, Crun, hooks_of_root_act_for_the_user);

/// Installs the programs setuid, an image and hooks where nobody but root can write, and starts a
/// command as the user. Arguments: programs, image, user, group, home.
const SITE: &str = r#"set -e
    mount -t tmpfs -o mode=0755 none /srv
    mkdir /srv/bin /srv/upper /srv/work /srv/store /srv/hooks.d /srv/closed /srv/host
    chmod 0700 /srv/closed; echo 'of the site' > /srv/host/file
    cp "$1"/sarus* /srv/bin/; chmod 4755 /srv/bin/sarus-shim
    cp "$2" /srv/store/image.squashfs; chmod 0644 /srv/store/image.squashfs
    mount -t overlay -o lowerdir=/etc,upperdir=/srv/upper,workdir=/srv/work none /etc
    mkdir -p /etc/sarus; printf %s "$CONFIG" > /etc/sarus/sarus.json
    printf %s "$FABRIC" > /etc/sarus/fabric.json
    printf %s "$MOUNT" > /srv/hooks.d/1.json; printf %s "$STAMP" > /srv/hooks.d/2.json
    printf %s "$PROVIDER" > /srv/hooks.d/3.json
    printf %s "$TELLER" > /srv/hooks.d/4.json
    uid=$3 gid=$4 home=$5; shift 5; cd "$home"
    exec setpriv --reuid "$uid" --regid "$gid" --clear-groups env -i HOME="$home" \
        PATH=/srv/bin:/usr/bin:/bin:/usr/sbin:/sbin "$@""#;

fn hook(program: &str, more: &serde_json::Value, stage: &str) -> String {
    let mut hook = more.clone();
    hook["path"] = json!(format!("/srv/bin/{program}"));
    let when = json!({"always": true});
    json!({"version": "1.0.0", "hook": hook, "when": when, "stages": [stage]}).to_string()
}

/// A hook of root's that says what its variables are, at every stage before the command.
fn teller() -> String {
    let words = ["sh", "-c", "cat /proc/$$/environ | tr '\\0' '\\n' >> /srv/host/variables"];
    let hook = json!({"path": "/bin/sh", "args": words, "env": []});
    let stages = ["prestart", "createRuntime", "createContainer"];
    json!({"version": "1.0.0", "hook": hook, "when": {"always": true}, "stages": stages})
        .to_string()
}

fn start(ground: &Ground, root: &Session, words: &[&str]) -> Invocation {
    let session = &ground.session;
    let store = session.home().join(".local/share/sarus/images/v1");
    let found = fs_err::read_dir(store).unwrap().next().unwrap().unwrap().path();
    let (uid, gid) = (session.uid().to_string(), session.gid().to_string());
    let mount = json!({"args": ["mount_hook",
        "--mount=type=bind,src=/srv/host,dst=/opt/site", "--device=/dev/null:/dev/stand-in"]});
    let fabric = json!({"version": 1, "devices": [{"source": "/dev/zer?", "directory": "/dev/fi"}],
        "variables": {"FI_OF_THE_SITE": "yes"}});
    root.program(["unshare", "--mount", "bash", "-c", SITE, "bash"])
        .args([session.programs().directory(), &found.join("image.squashfs")])
        .args([&uid, &gid, session.home().to_str().unwrap()])
        .args(words)
        .env("CONFIG", r#"{"centralizedRepositoryDir": "/srv/store", "hooksDir": "/srv/hooks.d"}"#)
        .env("FABRIC", fabric.to_string())
        .env("MOUNT", hook("sarus-hook-mount", &mount, "createContainer"))
        .env("TELLER", teller())
        .env("STAMP", hook("sarus-hook-timestamp", &json!({}), "createContainer"))
        .env(
            "PROVIDER",
            hook(
                "sarus-hook-fabric",
                &json!({"env": ["FABRIC_CONFIG=/etc/sarus/fabric.json"]}),
                "precreate",
            ),
        )
}

fn hooks_of_root_act_for_the_user(_: Who, runtime: Runtime) {
    let ground = Ground::with(Who::User, runtime, &Image::busybox().pack());
    let root = Session::new(Who::Root);
    let log = ground.session.home().join("stamps");
    let run = |log: &str, script: &str| -> Output {
        let variable = format!("TIMESTAMP_HOOK_LOGFILE={log}");
        let image = "/srv/store/image.squashfs";
        let words = ["sarus", "--verbose", "run", "--runtime", runtime.name(), "--env", &variable];
        start(&ground, &root, &[&words[..], &[image, "sh", "-c", script]].concat()).run()
    };
    let script = "id -u; cat /opt/site/file; test -c /dev/stand-in && test -c /dev/fi/zero && \
                  echo $FI_OF_THE_SITE; grep -c CapEff:.0000000000000000 /proc/self/status";
    let output = run(log.to_str().unwrap(), script);
    assert!(output.stderr.contains("mode: privileged"), "{output}");
    assert_eq!(output.ok(), format!("{}\nof the site\nyes\n1\n", ground.session.uid()));
    assert_eq!(log.metadata().unwrap().uid(), ground.session.uid());
    // Hooks of root's have nothing of the user's variables, which make programs load what they name.
    let hostile =
        ["--env", "LD_PRELOAD=/evil.so", "--env", "PATH=/evil:/bin", "--env", "BASH_ENV=/evil"];
    let words = ["env", "LD_AUDIT=/evil.so", "sarus", "run", "--runtime", runtime.name()];
    let command = ["/srv/store/image.squashfs", "/bin/cat", "/opt/site/variables"];
    let output = start(&ground, &root, &[&words[..], &hostile, &command].concat()).run();
    let paths: Vec<&str> = output.stdout.lines().filter(|line| line.starts_with("PATH=")).collect();
    assert_eq!(paths, ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; 3]);
    assert!(!output.ok().contains("evil"), "{output}");
    for forbidden in ["/srv/closed/log", "/etc/shadow", "/root/log"] {
        let output = run(forbidden, "echo started");
        assert_eq!((output.code(), output.stdout.as_str()), (Some(125), ""), "{output}");
        let said = format!("cannot append a time stamp to `{forbidden}`");
        assert!(output.stderr.contains(&said), "{output}");
        assert!(output.stderr.contains("Permission denied"), "{output}");
    }
    // A descriptor of a file that the user may only read is no way to write to it, whatever a hook
    // of root's has to say, and whichever descriptor the user calls the engine's.
    let closed = ground.session.directory().join("of-root");
    fs_err::write(&closed, "kept").unwrap();
    for annotation in ["a=b", "com.hooks.logging.stderrfd=2", "com.hooks.logging.stderrfd=7"] {
        let script = format!("exec 7<{0} 2<{0}; exec \"$@\"", closed.display());
        let words = ["bash", "-c", &script, "bash", "sarus", "--debug", "run", "--runtime"];
        let run = [runtime.name(), "--annotation", annotation, "/srv/store/image.squashfs", "true"];
        start(&ground, &root, &[&words[..], &run].concat()).run().ok();
        assert_eq!(fs_err::read_to_string(&closed).unwrap(), "kept", "{annotation}");
    }
}
