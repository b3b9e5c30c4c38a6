//! The hook `timestamp`: lines in a log on the host that the user names.

use std::os::unix::fs::MetadataExt;

use sarus_integration_tests::{Image, Invocation, Runtime, Session, Who};
use serde_json::json;

use crate::hook_site::HookSite;
use crate::{Ground, in_every_mode};

in_every_mode!(stamps_are_the_users_in_the_format_of_sarus_1_7);

fn stamps_are_the_users_in_the_format_of_sarus_1_7(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &Image::busybox().pack());
    let site = HookSite::new(&ground, who);
    for (number, message, stage) in
        [(1, "before", "precreate"), (2, "made", "createContainer"), (3, "runs", "poststart")]
    {
        let variables = [format!("TIMESTAMP_HOOK_MESSAGE={message}")];
        let hook = json!({"path": "sarus-hook-timestamp", "env": variables});
        site.hook(number, hook, &json!({"always": true}), &[stage]);
    }
    let log = ground.session.home().join("stamps");
    // Without the variable nothing happens.
    site.with(ground.run(&["true"])).run().ok();
    assert!(!log.exists());
    let variable = format!("TIMESTAMP_HOOK_LOGFILE={}", log.display());
    site.with(ground.run_with(&["--env", &variable], &["true"])).run().ok();
    assert_eq!(log.metadata().unwrap().uid(), ground.session.uid());
    let text = fs_err::read_to_string(&log).unwrap();
    let stamps: Vec<(f64, &str)> = text.lines().map(parse).collect();
    let messages: Vec<&str> = stamps.iter().map(|(_, message)| *message).collect();
    assert_eq!(messages, ["before", "made", "runs"], "{text}");
    assert!(stamps.is_sorted_by(|(one, _), (other, _)| one <= other), "{text}");
}

/// Time and message of `[TIME] [HOST-PID] [hook] [INFO] Timestamp hook: MESSAGE`.
fn parse(line: &str) -> (f64, &str) {
    let host = fs_err::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let fields: Vec<&str> = line.splitn(5, "] [").collect();
    assert_eq!((fields.len(), fields[2]), (4, "hook"), "{line}");
    let (time, place, rest) = (fields[0], fields[1], fields[3]);
    let time = time.strip_prefix('[').and_then(|time| time.parse().ok()).unwrap();
    let pid = place.strip_prefix(host.trim()).and_then(|rest| rest.strip_prefix('-')).unwrap();
    assert!(pid.parse::<u32>().is_ok(), "{line}");
    (time, rest.strip_prefix("INFO] Timestamp hook: ").unwrap())
}

/// The hook, called by root for a container of `nobody`.
fn for_nobody(session: &Session, log: &str) -> Invocation {
    let configuration = json!({
        "process": {"user": {"uid": 65534, "gid": 65534},
                    "env": [format!("TIMESTAMP_HOOK_LOGFILE={log}")]},
    });
    let program = session.programs().path("sarus-hook-timestamp");
    session.program([program]).input(configuration.to_string())
}

#[test]
fn root_writes_only_what_the_containers_user_could() {
    let session = Session::new(Who::Root);
    let open = session.directory().join("open");
    fs_err::create_dir(&open).unwrap();
    std::os::unix::fs::chown(&open, Some(65534), Some(65534)).unwrap();
    let secret = session.write("secret", "old\n");
    std::os::unix::fs::symlink(&secret, open.join("link")).unwrap();
    let mut mkfifo = std::process::Command::new("mkfifo");
    assert!(mkfifo.arg("-m").arg("666").arg(open.join("pipe")).output().unwrap().status.success());
    for (log, cause) in [
        (session.home().join("new"), "Permission denied"),
        (open.join("link"), "Permission denied"),
        (open.join("pipe"), "No such device or address"),
        ("/dev/null".into(), "it is not a regular file"),
        ("relative".into(), "it is not an absolute path"),
    ] {
        let output = for_nobody(&session, log.to_str().unwrap()).run();
        output.explains(1, &[log.to_str().unwrap(), cause]);
    }
    assert_eq!(fs_err::read_to_string(&secret).unwrap(), "old\n");
    assert!(!session.home().join("new").exists());
    let good = open.join("log");
    for_nobody(&session, good.to_str().unwrap()).run().ok();
    assert_eq!(good.metadata().unwrap().uid(), 65534);
}
