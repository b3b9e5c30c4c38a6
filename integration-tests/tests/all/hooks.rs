//! OCI hooks from JSON: the site's files and the user's, in the bundle, called by the runtime.

use sarus_integration_tests::{Runtime, Who};
use serde_json::json;

use crate::{Ground, in_every_mode};

in_every_mode!(
    a_hook_that_applies_is_called_with_the_state,
    a_hook_that_does_not_apply_is_not_called_and_said_why,
    a_hook_before_the_creation_changes_the_configuration,
    what_a_hook_before_the_creation_mounts_is_there,
    what_a_hook_before_the_creation_says_wrongly_is_told,
    a_cdi_device_is_given_by_a_hook_or_the_run_is_refused,
);

fn configure(ground: &Ground, hook: &serde_json::Value) {
    let directory = ground.session.configuration().join("hooks.d");
    ground.session.configure("hooks.d/10-test.json", hook.to_string());
    ground.session.configure("sarus.json", json!({"hooksDir": [directory]}).to_string());
}

fn hook(ground: &Ground, when: &serde_json::Value) -> serde_json::Value {
    let seen = ground.session.home().join("seen");
    let script = format!("cat > {}", seen.display());
    json!({
        "version": "1.0.0",
        "hook": {"path": "/bin/sh", "args": ["sh", "-c", script]},
        "when": when,
        "stages": ["createRuntime"],
    })
}

fn a_hook_that_applies_is_called_with_the_state(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    configure(&ground, &hook(&ground, &json!({"always": true})));
    ground.session.configured(ground.run(&["true"])).run().ok();
    let state = fs_err::read_to_string(ground.session.home().join("seen")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert!(state["pid"].as_i64().unwrap() > 0, "{state}");
    assert!(state["bundle"].as_str().unwrap().starts_with('/'), "{state}");
}

fn a_hook_that_does_not_apply_is_not_called_and_said_why(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    configure(&ground, &hook(&ground, &json!({"annotations": {"^com\\.example\\.on$": "true"}})));
    ground.session.configured(ground.run(&["true"])).run().ok();
    assert!(!ground.session.home().join("seen").exists());
    let listed = ground.session.configured(ground.session.sarus(["hooks"])).run();
    assert!(listed.ok().contains("10-test "), "{listed}");
    let on = ground.run_with(&["--annotation", "com.example.on=true"], &["true"]);
    ground.session.configured(on).run().ok();
    assert!(ground.session.home().join("seen").exists());
}

/// A hook of the stage `precreate` that is a filter of `jq`.
fn filter(program: &str) -> serde_json::Value {
    json!({
        "version": "1.0.0",
        "hook": {"path": "/usr/bin/jq", "args": ["jq", "-c", program]},
        "when": {"always": true},
        "stages": ["precreate"],
    })
}

fn what_a_hook_before_the_creation_says_wrongly_is_told(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    for (program, want) in [
        ("[]", "its output is not an object"),
        (".linux = \"x\"", "`linux` of its output is not an object"),
        (".process.env = {}", "`process.env` of its output is not a list of texts"),
        (".hooks.createRuntime = [1]", "`hooks` of its output"),
        (
            ".mounts += [{destination: \"/m\", source: \"/\", type: \"bind\", options: \"ro\"}]",
            "`mounts` of its output",
        ),
    ] {
        configure(&ground, &filter(program));
        let output = ground.session.configured(ground.run(&["true"])).run();
        output.explains(125, &["10-test.json", "precreate", want]);
    }
}

fn what_a_hook_before_the_creation_mounts_is_there(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let shown = ground.session.write("shown/file", "of the host\n");
    let directory = shown.parent().unwrap().display().to_string();
    let program = format!(
        r#".mounts += [
            {{"type":"bind","source":"{directory}","destination":"/opt/shown","options":["rbind","ro"]}},
            {{"type":"bind","source":"/dev/null","destination":"/dev/example/sink","options":["bind"]}}]
          | .linux.devices += [{{"path":"/dev/full","type":"c","major":1,"minor":7}}]
          | .linux.resources.devices += [{{"allow":true,"access":"rwm"}}]
          | .process.user.additionalGids += [4711]"#
    );
    configure(&ground, &filter(&program));
    let script = "cat /opt/shown/file; echo x > /dev/example/sink && echo sunk; \
                  echo x 2>&1 > /opt/shown/file || echo refused; [ -c /dev/full ] && echo full; \
                  echo \"$(id -G)\"";
    let said = ground.session.configured(ground.shell(script)).run();
    let groups = if who == Who::Root { " 4711" } else { "" };
    let lines: Vec<&str> = said.ok().lines().collect();
    assert_eq!(lines[..2], ["of the host", "sunk"], "{said}");
    assert!(lines[2].contains("Read-only file system"), "{said}");
    assert_eq!(lines[3..5], ["refused", "full"], "{said}");
    // crun keeps the caller's groups as they are.
    if runtime == Runtime::Runc {
        assert!(lines[5].ends_with(groups), "{said}");
    }
}

fn a_cdi_device_is_given_by_a_hook_or_the_run_is_refused(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let device = "example.com/net=all";
    let run = || ground.session.configured(ground.run_with(&["--device", device], &["true"])).run();
    run().explains(
        125,
        &["no hook gave the container the device `example.com/net=all`", "sarus hooks"],
    );
    let program = r#".annotations["com.hooks.cdi.injected"] = .annotations["cdi.k8s.io/sarus"]"#;
    configure(&ground, &filter(program));
    run().ok();
}

fn a_hook_before_the_creation_changes_the_configuration(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = r#"sed 's/"IMAGE=busybox"/"IMAGE=changed"/'"#;
    let hook = json!({
        "version": "1.0.0",
        "hook": {"path": "/bin/sh", "args": ["sh", "-c", script]},
        "when": {"always": true},
        "stages": ["precreate"],
    });
    configure(&ground, &hook);
    assert_eq!(ground.session.configured(ground.shell("echo $IMAGE")).run().ok(), "changed\n");
    // As with the runtimes, what is appended counts.
    configure(&ground, &filter(".process.env += [\"IMAGE=appended\", \"B=1\"]"));
    let said = ground.session.configured(ground.shell("env | grep -E '^(IMAGE|B)='")).run();
    assert_eq!(said.ok(), "IMAGE=appended\nB=1\n");
}
