//! Signals, terminals, and what is left when processes are killed: nothing.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use sarus_integration_tests::{
    Runtime, Terminal, Who, children, descendants, kill, wait_gone, wait_until,
};
use std::time::Duration;

use crate::{Ground, in_every_mode};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

in_every_mode!(
    a_signal_reaches_the_command_once,
    a_command_that_handles_no_signal_dies_of_it,
    a_killed_supervisor_takes_the_command_along,
    what_a_killed_run_left_ends_with_the_next_command,
    any_killed_process_leaves_nothing,
    a_terminal_has_the_size_of_the_callers_and_follows_it,
    an_interrupt_typed_at_the_terminal_reaches_the_command,
    a_key_reaches_all_that_the_command_started,
    a_terminal_of_others_is_left_alone_in_the_background,
    input_without_a_last_newline_ends_too,
    an_init_forwards_what_reached_the_command_not,
    a_stop_stops_all_that_the_command_started,
    a_terminal_that_nobody_reads_any_more_is_hung_up,
    output_that_nobody_takes_keeps_nothing_from_being_ended,
    two_runs_at_once_do_not_disturb_each_other,
);

fn a_signal_reaches_the_command_once(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "n=0; trap 'n=$((n+1)); echo got $n' USR1; trap 'echo $n; exit 5' TERM; echo ready; \
                  while :; do sleep 0.05; done";
    let run = ground.shell(script).start();
    assert_eq!(run.line(), "ready\n");
    run.signal(Signal::USR1);
    assert_eq!(run.line(), "got 1\n");
    run.signal(Signal::TERM);
    assert_eq!(run.line(), "1\n");
    run.finish().failed(5);
}

fn a_command_that_handles_no_signal_dies_of_it(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let run = ground.shell("echo ready; exec sleep 1000").start();
        assert_eq!(run.line(), "ready\n");
        // `ready` comes from the shell; either program dies of the signal.
        run.signal(signal);
        run.finish().failed(code);
    }
}

fn a_killed_supervisor_takes_the_command_along(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let run = ground.shell("echo ready; exec sleep 1000").start();
    assert_eq!(run.line(), "ready\n");
    let below = descendants(run.pid());
    assert!(!below.is_empty());
    run.signal(Signal::KILL);
    assert_eq!(run.finish().code(), None);
    for pid in below {
        assert!(wait_gone(pid, LIMIT), "process {pid} outlives the supervisor");
    }
}

fn what_a_killed_run_left_ends_with_the_next_command(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    // What the command starts is not tied to the supervisor by the kernel.
    let run = ground.shell("setsid sleep 1000 > /dev/null 2>&1 & echo ready; sleep 1000").start();
    assert_eq!(run.line(), "ready\n");
    let below = descendants(run.pid());
    run.signal(Signal::KILL);
    run.finish();
    ground.session.sarus(["images"]).run().ok();
    for pid in below {
        assert!(wait_gone(pid, LIMIT), "process {pid} outlives the next command");
    }
}

#[test]
fn an_unpacked_image_of_a_killed_run_goes_with_the_next_command() {
    let ground = Ground::new(Who::User, Runtime::Crun);
    ground.session.write(".config/sarus/sarus.json", r#"{"imageMount": "unpack"}"#);
    let directory = ground.session.directory().join("scratch");
    fs_err::create_dir(&directory).unwrap();
    let ids = (Some(ground.session.uid()), Some(ground.session.gid()));
    std::os::unix::fs::chown(&directory, ids.0, ids.1).unwrap();
    let entries = || fs_err::read_dir(&directory).unwrap().count();
    let run = ground.shell("echo ready; sleep 1000").env("TMPDIR", &directory).start();
    assert_eq!(run.line(), "ready\n");
    assert_eq!(entries(), 1);
    let below = descendants(run.pid());
    run.signal(Signal::KILL);
    run.finish();
    assert!(below.into_iter().all(|pid| wait_gone(pid, LIMIT)));
    ground.session.sarus(["images"]).env("TMPDIR", &directory).run().ok();
    assert_eq!(entries(), 0);
    ground.run(&["true"]).env("TMPDIR", &directory).run().ok();
    assert_eq!(entries(), 0);
}

fn any_killed_process_leaves_nothing(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let count = {
        let run = ground.shell("echo ready; sleep 1000").start();
        assert_eq!(run.line(), "ready\n");
        let count = descendants(run.pid()).len();
        run.signal(Signal::TERM);
        run.finish().failed(143);
        count
    };
    assert!(count >= 1);
    for victim in 0..count {
        let run = ground.shell("echo ready; sleep 1000").start();
        assert_eq!(run.line(), "ready\n");
        let Some(pid) = descendants(run.pid()).get(victim).copied() else { continue };
        kill(pid, Signal::KILL);
        // A FUSE server is no reason to end: whoever waits ends the run then.
        assert!(wait_gone(pid, LIMIT));
        run.signal(Signal::TERM);
        assert_ne!(run.finish().code(), Some(0));
    }
    ground.session.sarus(["images"]).run().ok();
    assert!(children(std::process::id()).iter().all(|pid| wait_gone(*pid, LIMIT)));
}

fn a_terminal_has_the_size_of_the_callers_and_follows_it(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let mut terminal = Terminal::open(33, 77);
    let script = "trap 'echo size: $(stty size)' WINCH; stty size; tty; echo ready; \
                  while :; do read line && echo got: $line; [ \"$line\" = end ] && exit 4; done";
    let run = ground.run_with(&["-ti"], &["sh", "-c", script]).start_on(&terminal);
    let seen = terminal.read_until("ready");
    assert!(seen.contains("33 77"), "{seen}");
    assert!(seen.contains("/dev/"), "{seen}");
    terminal.resize(40, 100);
    terminal.write("more\n");
    let seen = terminal.read_until("size: 40 100");
    assert!(!seen.contains("ready"), "{seen}");
    terminal.write("end\n");
    terminal.read_until("got: end");
    assert_eq!(run.finish().code(), Some(4));
}

fn an_interrupt_typed_at_the_terminal_reaches_the_command(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    for options in [&["-t"][..], &[]] {
        let mut terminal = Terminal::open(24, 80);
        let script =
            "trap 'echo interrupted; exit 6' INT; echo ready; while :; do sleep 0.05; done";
        let run = ground.run_with(options, &["sh", "-c", script]).start_on(&terminal);
        terminal.read_until("ready");
        terminal.write("\u{3}");
        terminal.read_until("interrupted");
        assert_eq!(run.finish().code(), Some(6), "{options:?}");
    }
}

/// The shell waits for the program in its foreground before it looks at what it got itself.
fn a_key_reaches_all_that_the_command_started(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "trap 'echo got; n=$((n+1))' INT; \
                  sh -c 'trap \"echo inner; exit 3\" INT; echo ready; while :; do sleep 0.05; done'; \
                  echo inner ended: $?; sleep 0.3; exit $((n+10))";
    for options in [&[][..], &["-t"], &["--init"], &["-t", "--init"]] {
        let mut terminal = Terminal::open(24, 80);
        let run = ground.run_with(options, &["sh", "-c", script]).start_on(&terminal);
        terminal.read_until("ready");
        terminal.write("\u{3}");
        let seen = terminal.read_until("inner ended: 3");
        assert!(seen.contains("inner\r\n"), "{options:?}: {seen}");
        assert_eq!(run.finish().code(), Some(11), "{options:?}: the key was pressed once");
    }
    // As much for a program of `sarus exec`.
    let run = ground.shell("echo ready; read line").keep_input().start();
    assert_eq!(run.line(), "ready\n");
    let id = format!("sarus-{}", run.pid());
    let mut terminal = Terminal::open(24, 80);
    let exec = ground.session.sarus(["exec", &id, "sh", "-c", script]).start_on(&terminal);
    terminal.read_until("ready");
    terminal.write("\u{3}");
    terminal.read_until("inner ended: 3");
    assert_eq!(exec.finish().code(), Some(11));
    run.finish().failed(1);
}

/// Its settings and its keys are the foreground's; the job stops, as others that want it do.
fn a_terminal_of_others_is_left_alone_in_the_background(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let mut terminal = Terminal::open(24, 80);
    let script = "set -m; \"$@\" & until grep -q '^State:.T' /proc/$!/status; do sleep 0.05; done; \
                  stty -a | grep -ow -e -icanon -e icanon; echo waits; fg; stty -a | grep -ow icanon";
    let job = ground.run_with(&["-ti"], &["sh", "-c", "read line; echo got $line"]);
    let shell = job.under(["bash", "-c", script, "bash"]).start_on(&terminal);
    let seen = terminal.read_until("waits");
    assert!(seen.contains("icanon") && !seen.contains("-icanon"), "{seen}");
    terminal.write("text\n");
    terminal.read_until("got text");
    terminal.read_until("icanon");
    assert_eq!(shell.finish().code(), Some(0));
}

fn input_without_a_last_newline_ends_too(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    for (input, want) in [("", ""), ("a\nbc", "bc"), ("a\n", "a")] {
        let output = ground.run_with(&["-t"], &["cat"]).input(input).run();
        assert!(output.ok().trim_end().ends_with(want), "{input:?}: {output}");
    }
}

fn an_init_forwards_what_reached_the_command_not(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "n=0; trap 'n=$((n+1)); echo got $n' USR1; trap 'echo $n; exit 5' TERM; echo ready; \
                  while :; do sleep 0.05; done";
    for options in [&["--init"][..], &["--init", "--pid", "private"]] {
        let start = || {
            let run = ground.run_with(options, &["sh", "-c", script]).start();
            assert_eq!(run.line(), "ready\n");
            run
        };
        // To the supervisor alone; and by `sarus kill`, to the init.
        let run = start();
        run.signal(Signal::USR1);
        assert_eq!(run.line(), "got 1\n");
        let id = format!("sarus-{}", run.pid());
        ground.session.sarus(["kill", "-s", "USR1", &id]).run().ok();
        assert_eq!(run.line(), "got 2\n");
        run.signal(Signal::TERM);
        assert_eq!(run.line(), "2\n", "{options:?}");
        run.finish().failed(5);
        // By the launcher, to each process of the tree. Where root is the launcher and the user, an init
        // that shares the node's process ids cannot tell.
        if who == Who::Root && options.len() == 1 {
            continue;
        }
        let run = start();
        for pid in [run.pid()].into_iter().chain(descendants(run.pid())) {
            kill(pid, Signal::USR1);
        }
        assert_eq!(run.line(), "got 1\n");
        run.signal(Signal::TERM);
        assert_eq!(run.line(), "1\n", "{options:?}");
        run.finish().failed(5);
    }
}

fn a_stop_stops_all_that_the_command_started(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    for options in [&[][..], &["--init"]] {
        let script = "sh -c 'echo ready; while :; do sleep 0.05; done'; true";
        let run = ground.run_with(options, &["sh", "-c", script]).start();
        assert_eq!(run.line(), "ready\n");
        // The inner shell's child is one too, until it is `sleep`.
        let mut stopped = Vec::new();
        let are_two = wait_until(LIMIT, || {
            stopped = descendants(run.pid());
            stopped.retain(is_shell);
            stopped.len() == 2
        });
        assert!(are_two, "{options:?}: {stopped:?}");
        // The supervisor is the last.
        stopped.push(run.pid());
        let is_stopped = |pid: u32| {
            let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        let all_are = |wanted: bool| {
            wait_until(LIMIT, || stopped.iter().all(|pid| is_stopped(*pid) == wanted))
        };
        run.signal(Signal::TSTP);
        assert!(all_are(true), "{options:?}");
        run.signal(Signal::CONT);
        assert!(all_are(false), "{options:?}");
        run.signal(Signal::TERM);
        run.finish().failed(143);
    }
}

fn a_terminal_that_nobody_reads_any_more_is_hung_up(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let output = ground.run_with(&["-t"], &["yes"]).after("exec > /dev/full").run();
    let said = output.failed(129);
    assert!(said.contains("standard output") && said.contains("No space left"), "{output}");
    // The reader is content with a line.
    let script = "exec > >(head -n 1 >&2)";
    let output = ground.run_with(&["-t"], &["yes"]).after(script).run();
    assert_eq!(output.failed(129).trim_end(), "y");
}

fn output_that_nobody_takes_keeps_nothing_from_being_ended(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let fifo = ground.session.directory().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    rustix::fs::chmod(&fifo, 0o666.into()).unwrap();
    let reader = fs_err::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    let redirected = format!("exec > {}", fifo.display());
    let is_full = || {
        let mut asked = [PollFd::new(&reader, PollFlags::OUT)];
        poll(&mut asked, Some(&Timespec::default())).unwrap() == 0
    };
    // While the command runs, and when it has ended: the pipe takes a page, the terminal two.
    rustix::pipe::fcntl_setpipe_size(&reader, 4096).unwrap();
    for (script, code) in [("exec yes", 143), ("head -c 9000 /dev/zero | tr '\\0' x; exit 7", 7)] {
        let run = ground.run_with(&["-t"], &["sh", "-c", script]).after(&redirected).start();
        assert!(wait_until(LIMIT, is_full), "{script}");
        let command = descendants(run.pid());
        if code == 7 {
            assert!(command.into_iter().filter(is_shell).all(|pid| wait_gone(pid, LIMIT)));
        }
        run.signal(Signal::TERM);
        run.finish().failed(code);
        assert!(rustix::io::read(&reader, &mut [0; 8192]).unwrap() > 0);
        assert!(!is_full());
    }
}

fn is_shell(pid: &u32) -> bool {
    fs_err::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sh\n")
}

fn two_runs_at_once_do_not_disturb_each_other(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let runs: Vec<_> = (0..6)
        .map(|n| ground.shell(&format!("echo {n} > /tmp/mine; sleep 0.2; cat /tmp/mine")).start())
        .collect();
    for (n, run) in runs.into_iter().enumerate() {
        assert_eq!(run.finish().ok(), format!("{n}\n"));
    }
}
