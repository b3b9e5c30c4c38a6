//! OCI hooks from JSON: the site's files and the user's, in the bundle, called by the runtime.

use sarus_integration_tests::{Runtime, Who};
use serde_json::json;

use crate::{Ground, in_mode};

in_mode!(
    as_user_runc,
    User,
    Runc,
    a_hook_that_applies_is_called_with_the_state,
    a_hook_that_does_not_apply_is_not_called_and_said_why,
    a_hook_before_the_creation_changes_the_configuration
);
in_mode!(
    as_user_crun,
    User,
    Crun,
    a_hook_that_applies_is_called_with_the_state,
    a_hook_that_does_not_apply_is_not_called_and_said_why,
    a_hook_before_the_creation_changes_the_configuration
);

fn configure(ground: &Ground, hook: &serde_json::Value) {
    let directory = ground.session.home().join(".config/sarus/hooks.d");
    ground.session.write(".config/sarus/hooks.d/10-test.json", hook.to_string());
    let config = json!({"hooksDir": [directory]});
    ground.session.write(".config/sarus/sarus.json", config.to_string());
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
    ground.run(&["true"]).run().ok();
    let state = fs_err::read_to_string(ground.session.home().join("seen")).unwrap();
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert!(state["pid"].as_i64().unwrap() > 0, "{state}");
    assert!(state["bundle"].as_str().unwrap().starts_with('/'), "{state}");
}

fn a_hook_that_does_not_apply_is_not_called_and_said_why(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    configure(&ground, &hook(&ground, &json!({"annotations": {"^com\\.example\\.on$": "true"}})));
    ground.run(&["true"]).run().ok();
    assert!(!ground.session.home().join("seen").exists());
    let listed = ground.session.sarus(["hooks"]).run();
    assert!(listed.ok().contains("10-test "), "{listed}");
    ground.run_with(&["--annotation", "com.example.on=true"], &["true"]).run().ok();
    assert!(ground.session.home().join("seen").exists());
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
    assert_eq!(ground.shell("echo $IMAGE").run().ok(), "changed\n");
}
