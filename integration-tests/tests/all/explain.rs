//! `sarus run --explain`: what a run would do, with who asks for it and why, and nothing done.

use sarus_integration_tests::{Runtime, Who};
use serde_json::{Value, json};

use crate::{Ground, in_mode};

in_mode!(as_user, User, Crun, a_run_is_explained, hooks_are_asked_or_listed, text_is_for_people);
in_mode!(as_root, Root, Crun, a_run_is_explained, hooks_are_asked_or_listed, text_is_for_people);

fn explained(ground: &Ground, options: &[&str]) -> Value {
    let options = [&["--explain=json"], options].concat();
    let command = ground.run_with(&options, &["touch", "/tmp/ran"]);
    let output = ground.session.configured(command).run();
    serde_json::from_str(output.ok()).unwrap()
}

/// The entry of a list whose member is as given.
#[track_caller]
fn entry<'v>(list: &'v Value, member: &str, is: &str) -> &'v Value {
    let found = list.as_array().unwrap().iter().find(|entry| entry[member] == is);
    assert!(found.is_some(), "no {is} in {list}");
    found.unwrap()
}

fn a_run_is_explained(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let shown = ground.session.write("shown/file", "");
    let source = shown.parent().unwrap().to_str().unwrap();
    let all = explained(
        &ground,
        &[
            "-v",
            &format!("{source}:/data:ro"),
            "--device",
            "/dev/fuse",
            "-e",
            "API_TOKEN=x",
            "-e",
            "MYSQL_PWD=x",
            "-e",
            "A=b",
        ],
    );
    let (mode, users) =
        if who == Who::Root { ("privileged", "host") } else { ("rootless", "shared") };
    assert_eq!(all["mode"]["value"], mode);
    assert_eq!(entry(&all["namespaces"], "kind", "user")["value"], users);
    assert!(all["runtime"]["path"].as_str().unwrap().ends_with("crun"));
    assert_eq!(all["runtime"]["reason"], "`--runtime crun`");
    assert_eq!(all["command"], json!(["touch", "/tmp/ran"]));
    assert_eq!(all["image"]["name"], ground.image.as_str());
    let want = json!({"destination": "/data", "source": source, "readOnly": true,
                      "origin": "user", "reason": "`--mount` or `-v`"});
    assert_eq!(entry(&all["mounts"], "destination", "/data"), &want);
    assert_eq!(entry(&all["mounts"], "destination", "/dev/shm")["origin"], "engine");
    assert_eq!(entry(&all["mounts"], "destination", "/etc/hosts")["origin"], "engine");
    assert_eq!(entry(&all["devices"], "destination", "/dev/fuse")["origin"], "user");
    assert_eq!(entry(&all["devices"], "destination", "/dev/null")["origin"], "engine");
    assert_eq!(entry(&all["environment"], "name", "A")["origin"], "user");
    assert_eq!(entry(&all["environment"], "name", "IMAGE")["origin"], "image");
    assert_eq!(entry(&all["environment"], "name", "HOME")["origin"], "host");
    let hidden = entry(&all["environment"], "name", "MYSQL_PWD")["value"].as_str().unwrap();
    assert!(hidden.starts_with("(hidden"), "{hidden}");
    let hidden = entry(&all["environment"], "name", "API_TOKEN")["value"].as_str().unwrap();
    assert!(hidden.starts_with("(hidden"), "{hidden}");
    assert!(!std::path::Path::new("/tmp/ran").exists());
}

/// A hook that plans, as a shell script; it leaves a file when it is started otherwise.
fn planner(ground: &Ground, stage: &str, plan: &Value, plans: bool) -> Value {
    let ran = ground.session.home().join("ran");
    let script = format!(
        "for last; do :; done; [ \"$last\" = --plan ] || touch {}; cat > /dev/null; echo '{plan}'",
        ran.display()
    );
    json!({
        "version": "1.0.0",
        "hook": {"path": "/bin/sh", "args": ["sh", "-c", script, "hook"]},
        "when": {"always": true},
        "stages": [stage],
        "sarus": {"plan": plans},
    })
}

fn hooks_are_asked_or_listed(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let library = ground.session.write("library", "");
    let directory = ground.session.configuration().join("hooks.d");
    ground.session.configure("sarus.json", json!({"hooksDir": [directory]}).to_string());
    let step = json!({"do": "bind", "source": library, "destination": "/etc/profile",
                      "readOnly": true, "reason": "newer on the host"});
    let plan = json!({"version": 1, "hook": "x", "steps": [step], "notes": ["noted"]});
    let unknown = planner(&ground, "createContainer", &json!({}), false);
    let never = json!({"version": "1.0.0", "hook": {"path": "/bin/false"},
                       "when": {"annotations": {"^x$": "y"}}, "stages": ["poststop"]});
    for (name, hook) in [
        ("10-plans", planner(&ground, "createContainer", &plan, true)),
        ("20-unknown", unknown),
        ("30-never", never),
    ] {
        ground.session.configure(&format!("hooks.d/{name}.json"), hook.to_string());
    }
    let all = explained(&ground, &[]);
    let plans = entry(&all["hooks"], "name", "10-plans");
    assert_eq!(plans["runs"], true);
    assert_eq!(plans["plan"], plan);
    let unknown = entry(&all["hooks"], "name", "20-unknown");
    assert_eq!(unknown["note"], "not asked: its file does not say that it can plan");
    let never = entry(&all["hooks"], "name", "30-never");
    assert_eq!((&never["runs"], never["plan"].is_null()), (&json!(false), true));
    assert_eq!(never["reason"], "no annotation matches `^x$`");
    let mount = entry(&all["mounts"], "destination", "/etc/profile");
    assert_eq!(mount["origin"], "hook");
    assert_eq!(mount["reason"], "hook 10-plans: newer on the host");
    assert!(!ground.session.home().join("ran").exists(), "a hook was started without --plan");
}

fn text_is_for_people(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let output = ground.run_with(&["--explain"], &["true"]).run();
    let text = output.ok();
    for part in [
        "\nMode     ",
        "\nNamespaces\nKIND ",
        "\nMounts\nDESTINATION ",
        "\nDevices\n",
        "\nEnvironment\nNAME",
        "\nHooks\n",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    let missing = ground.session.sarus(["run", "--explain", "127.0.0.1:1/none:1", "true"]).run();
    missing.explains(125, &["127.0.0.1:1/none:1", "sarus pull"]);
}
