//! `sarus run`, rootless and as root, with runc and with crun.

use sarus_integration_tests::{Runtime, Who};

use crate::{Ground, in_every_mode};

in_every_mode!(
    exit_statuses_are_those_of_the_command_and_of_docker,
    a_container_has_no_privilege,
    what_is_written_vanishes,
    the_user_is_themselves_and_owns_the_image,
    masks_and_limits_are_those_outside,
    a_process_is_the_same_inside_and_outside,
    what_the_shell_started_is_left_alone,
);

fn exit_statuses_are_those_of_the_command_and_of_docker(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    for (script, want) in [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143)] {
        assert_eq!(ground.shell(script).run().code(), Some(want), "{script}");
    }
    ground.run(&["no-such-program"]).run().explains(127, &["no-such-program", "not found"]);
    ground.run(&["/bin"]).run().explains(126, &["cannot start `/bin`"]);
}

fn a_container_has_no_privilege(who: Who, runtime: Runtime) {
    let output =
        Ground::new(who, runtime).shell("grep -E '^(Cap|NoNewPrivs)' /proc/self/status").run();
    let none = "0000000000000000";
    let want: String = ["Inh", "Prm", "Eff", "Bnd", "Amb"]
        .iter()
        .map(|set| format!("Cap{set}:\t{none}\n"))
        .collect();
    assert_eq!(output.ok(), format!("{want}NoNewPrivs:\t1\n"));
}

fn what_is_written_vanishes(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    assert_eq!(ground.shell("echo text > /bin/new && cat /bin/new").run().ok(), "text\n");
    ground.shell("test -e /bin/new").run().failed(1);
}

fn the_user_is_themselves_and_owns_the_image(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let (uid, gid) = (ground.session.uid(), ground.session.gid());
    let output = ground.shell("id -u; id -g; stat -c '%u %g' / /bin /bin/busybox").run();
    let owner = format!("{uid} {gid}\n");
    assert_eq!(output.ok(), format!("{uid}\n{gid}\n{owner}{owner}{owner}"));
}

fn masks_and_limits_are_those_outside(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "umask; ulimit -n; grep Cpus_allowed_list /proc/self/status";
    let output = ground
        .shell(script)
        .after("umask 027; ulimit -n 500; exec 7< /etc/passwd; taskset -cp 1 $$ > /dev/null")
        .run();
    assert_eq!(output.ok(), "0027\n500\nCpus_allowed_list:\t1\n");
}

fn a_process_is_the_same_inside_and_outside(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    // Of the ignored signals those that programs use; two beyond them are the C library's own.
    let mut script = "id; umask; ulimit -a; ulimit -aH; cat /proc/self/oom_score_adj; \
                      grep -E '^(Cpus_allowed_list|Mems_allowed_list|Sig(Blk|Cgt))' /proc/self/status; \
                      ignored=$(sed -n 's/^SigIgn:.//p' /proc/self/status); \
                      echo $((0x$ignored & 0x7fffffff))"
        .to_owned();
    if who == Who::Root {
        script.push_str("; grep Groups /proc/self/status");
    }
    let outside = ground.session.program(["/bin/busybox", "sh", "-c", &script]);
    for before in ["true", "umask 077; ulimit -Sc 0; ulimit -Ss 4096; trap '' USR2 HUP CHLD"] {
        let inside = ground.run(&["/bin/busybox", "sh", "-c", &script]).after(before).run();
        let outside = outside.clone().after(before).run();
        let (inside, outside) = (inside.ok().lines(), outside.ok().lines());
        assert!(inside.clone().count() > 30);
        let differ: Vec<_> = inside.zip(outside).filter(|(one, other)| one != other).collect();
        assert!(differ.is_empty(), "after {before}: {differ:?}");
    }
}

/// A shell makes its process substitutions in the process that then becomes `sarus`.
fn what_the_shell_started_is_left_alone(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "\"$@\" > >(sleep 0.3; wc -l > lines)
        for look in $(seq 200); do [ -s lines ] && break; sleep 0.05; done; cat lines";
    let words = ["bash", "-c", script, "bash"];
    let output = ground.run(&["seq", "1", "3000"]).under(words).run();
    assert_eq!(output.ok(), "3000\n", "{output}");
    let script = "sleep 5 & child=$!; \"$@\" & wait $!; kill -0 $child && echo lives; kill $child
        (sleep 5 & echo $! > child; exec \"$@\"); kill $(cat child) && echo lives";
    let output = ground.run(&["true"]).under(["bash", "-c", script, "bash"]).run();
    assert_eq!(output.ok(), "lives\nlives\n", "{output}");
}

#[test]
fn a_session_that_began_outside_the_process_namespace_is_no_obstacle_for_root() {
    for runtime in [Runtime::Runc, Runtime::Crun] {
        let ground = Ground::new(Who::Root, runtime);
        let apart = ["unshare", "--pid", "--fork", "--mount-proc"];
        let none = "test \"$(cut -d' ' -f6 /proc/$$/stat)\" = 0 || exit 99";
        assert_eq!(ground.shell("echo ran").under(apart).after(none).run().ok(), "ran\n");
    }
}

#[test]
fn a_run_of_root_in_another_process_namespace_is_nobodys_orphan() {
    let ground = Ground::new(Who::Root, Runtime::Crun);
    let apart = ["unshare", "--pid", "--fork", "--mount-proc"];
    let command = ground.shell("echo ready; read line; echo $line").under(apart);
    let mut run = command.keep_input().start();
    assert_eq!(run.line(), "ready\n");
    // Each command of the person ends what killed runs left.
    ground.session.sarus(["images"]).run().ok();
    run.write("alive\n");
    assert_eq!(run.line(), "alive\n");
    run.finish().ok();
}
