//! Hooks that fail, hang, crash or talk too much, at each stage: the run ends with one error that
//! names the hook, and the session's end asserts that nothing is left.

use std::time::Duration;

use rustix::process::Signal;
use sarus_integration_tests::{Output, Runtime, Who, wait_until};
use serde_json::{Value, json};

use crate::{Ground, in_every_mode};

in_every_mode!(
    a_hook_that_fails_ends_the_run_in_its_own_words,
    a_hook_that_hangs_is_killed_at_its_time_out,
    a_hook_that_crashes_is_said_to_have,
    a_hook_that_prints_a_megabyte_is_quoted_in_part,
    of_several_hooks_the_one_that_failed_is_named,
    a_hook_whose_program_cannot_be_executed_is_said_to_be,
    a_hook_at_the_end_that_fails_is_a_warning,
    hooks_at_the_end_run_once_however_early_the_run_is_ended,
);

/// The stages at which a failure ends the run.
const STAGES: [&str; 6] =
    ["precreate", "prestart", "createRuntime", "createContainer", "startContainer", "poststart"];

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Words of runtimes that help nobody.
const NOISE: [&str; 4] = ["run failed", "container init", "error running hook", "error executing"];

fn hook(script: &str, stages: &[&str]) -> Value {
    json!({
        "version": "1.0.0",
        "hook": {"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 1},
        "when": {"always": true},
        "stages": stages,
    })
}

fn configure(ground: &Ground, hooks: &[(&str, Value)]) {
    let directory = ground.session.configuration().join("hooks.d");
    ground.session.configure("sarus.json", json!({"hooksDir": [directory]}).to_string());
    for (name, hook) in hooks {
        ground.session.configure(&format!("hooks.d/{name}"), hook.to_string());
    }
}

fn run(ground: &Ground) -> Output {
    ground.session.configured(ground.run(&["echo", "ran"])).run()
}

/// Runs with a hook of that script, at each stage; asserts that the error says all `parts`.
fn at_each_stage(who: Who, runtime: Runtime, (script, parts): (&str, &[&str])) -> Vec<Output> {
    let ground = Ground::new(who, runtime);
    let at = |stage| {
        configure(&ground, &[("10-broken.json", hook(script, &[stage]))]);
        let output = run(&ground);
        output.explains(125, &["hooks.d/10-broken.json` (stage ", stage, "failed: "]);
        output.explains(125, parts);
        for noise in NOISE {
            assert!(!output.stderr.contains(noise), "{noise:?}: {output}");
        }
        output
    };
    STAGES.map(at).into()
}

fn a_hook_that_fails_ends_the_run_in_its_own_words(who: Who, runtime: Runtime) {
    let script = "echo out; echo the licence server is down >&2; echo second line >&2; exit 3";
    let parts = ["exit status: 3", "caused by: the licence server is down; second line\n"];
    at_each_stage(who, runtime, (script, &parts));
}

fn a_hook_that_hangs_is_killed_at_its_time_out(who: Who, runtime: Runtime) {
    let parts = ["it did not end within 1 s and was killed"];
    at_each_stage(who, runtime, ("exec sleep 1000", &parts));
}

fn a_hook_that_crashes_is_said_to_have(who: Who, runtime: Runtime) {
    for (signal, names) in [
        ("SEGV", ["signal: 11 (SIGSEGV)", "signal: segmentation fault"]),
        ("ABRT", ["signal: 6 (SIGABRT)", "signal: aborted"]),
        ("KILL", ["signal: 9 (SIGKILL)", "signal: killed"]),
    ] {
        let script = format!("echo I crash >&2; kill -{signal} $$");
        for output in at_each_stage(who, runtime, (&script, &["caused by: I crash\n"])) {
            assert!(names.iter().any(|name| output.stderr.contains(name)), "{output}");
        }
    }
}

fn a_hook_that_prints_a_megabyte_is_quoted_in_part(who: Who, runtime: Runtime) {
    let script = "for stream in 1 2; do head -c 1000000 /dev/zero | tr '\\0' x >&$stream; done; \
                  echo the end >&2; exit 1";
    for output in at_each_stage(who, runtime, (script, &["…xxx", "xxxthe end\n"])) {
        assert!(output.stderr.len() < 4000, "{} bytes", output.stderr.len());
    }
}

fn of_several_hooks_the_one_that_failed_is_named(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let good = hook("cat > /dev/null", &["createRuntime", "createContainer", "poststop"]);
    let bad = json!({
        "version": "1.0.0",
        "hook": {"path": "/usr/bin/env", "args": ["env", "sh", "-c", "echo no >&2; exit 4"]},
        "when": {"always": true},
        "stages": ["createContainer"],
    });
    configure(&ground, &[("10-good.json", good), ("20-bad.json", bad)]);
    let output = run(&ground);
    output.explains(125, &["hooks.d/20-bad.json` (stage createContainer) failed: "]);
    output.explains(125, &["caused by: no\n"]);
    assert!(!output.stderr.contains("10-good"), "{output}");
}

fn a_hook_whose_program_cannot_be_executed_is_said_to_be(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let stages = ["createRuntime", "createContainer", "startContainer"];
    for stage in stages {
        let mut hook = hook("", &[stage]);
        hook["hook"]["path"] = json!("/etc/passwd");
        configure(&ground, &[("10-broken.json", hook)]);
        let name = format!("hooks.d/10-broken.json` (stage {stage}) failed: ");
        run(&ground).explains(125, &[&name, "ermission denied"]);
    }
}

fn a_hook_at_the_end_that_fails_is_a_warning(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    for (script, part) in [
        ("echo the door is stuck >&2; exit 3", "exit status: 3\n  caused by: the door is stuck\n"),
        ("exec sleep 1000", "it did not end within 1 s and was killed"),
        ("kill -KILL $$", "signal: "),
        ("kill -SEGV $$", "signal: "),
        ("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1", "…xxx"),
    ] {
        configure(&ground, &[("10-broken.json", hook(script, &["poststop"]))]);
        let output = run(&ground);
        assert_eq!(output.ok(), "ran\n", "{output}");
        let name = "hooks.d/10-broken.json` (stage poststop) failed: ";
        assert!(output.stderr.starts_with("warning: hook `"), "{output}");
        assert!(output.stderr.contains(name), "nothing of {name:?} in {output}");
        assert!(output.stderr.contains(part), "nothing of {part:?} in {output}");
        assert!(output.stderr.len() < 4000, "{} bytes", output.stderr.len());
    }
}

fn hooks_at_the_end_run_once_however_early_the_run_is_ended(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let log = ground.session.home().join("log");
    let told = || fs_err::read_to_string(&log).unwrap_or_default();
    for stage in ["prestart", "createRuntime", "createContainer"] {
        for signal in [Signal::TERM, Signal::KILL] {
            drop(fs_err::remove_file(&log));
            let slow = format!("echo begun >> {0}; exec sleep 3", log.display());
            let late = format!("grep -q '\"id\":' && echo ended >> {0}", log.display());
            let mut slow = hook(&slow, &[stage]);
            slow["hook"]["timeout"] = 60.into();
            configure(&ground, &[("1.json", slow), ("2.json", hook(&late, &["poststop"]))]);
            let run = ground.session.configured(ground.run(&["echo", "ran"])).start();
            assert!(wait_until(LIMIT, || told() == "begun\n"), "{stage}");
            run.signal(signal);
            let output = run.finish();
            assert!(output.code() != Some(0) && output.stdout.is_empty(), "{output}");
            let has_ended = wait_until(LIMIT, || told().contains("ended"));
            assert!(has_ended, "{stage}, {signal:?}: {} {output}", told());
            assert_eq!(told(), "begun\nended\n", "{stage}, {signal:?}");
        }
    }
}
