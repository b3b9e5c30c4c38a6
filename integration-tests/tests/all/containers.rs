//! `sarus ps`, `kill` and `exec`, names of containers, and signals to all of a run's processes.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use sarus_integration_tests::{
    Invocation, Running, Runtime, Session, Terminal, Who, descendants, kill, wait_gone,
};
use serde_json::Value;

use crate::{Ground, in_every_mode, in_mode};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

in_every_mode!(
    running_containers_are_listed_and_ended_ones_are_not,
    a_container_is_killed_or_gets_the_signal_asked_for,
    another_program_finds_what_the_first_has,
    another_program_ends_and_fails_as_the_first_does,
    another_program_has_a_terminal_of_its_own,
    another_program_ends_with_its_container,
    a_container_with_processes_of_its_own_takes_others_in,
    a_signal_to_every_process_reaches_the_command_once,
);

in_mode!(
    as_user_with_crun,
    User,
    Crun,
    a_name_is_one_containers,
    tasks_of_a_step_have_names_of_their_own,
    what_cannot_be_found_or_sent_is_explained
);

/// A container that runs until its input ends.
struct Container {
    run: Running,
    id: String,
}

impl Container {
    fn start(run: &Invocation) -> Self {
        let run = run.clone().keep_input().start();
        assert_eq!(run.line(), "ready\n");
        let id = format!("sarus-{}", run.pid());
        Self { run, id }
    }

    fn of(ground: &Ground, options: &[&str]) -> Self {
        Self::start(&ground.run_with(options, &["sh", "-c", "echo ready; read line; exit 7"]))
    }

    fn end(self) {
        self.run.finish().failed(7);
    }
}

/// The ids that the person's list has.
fn listed(session: &Session) -> Vec<String> {
    let output = session.sarus(["ps", "--quiet"]).run();
    output.ok().lines().map(str::to_owned).collect()
}

fn exec(ground: &Ground, options: &[&str], id: &str, command: &[&str]) -> Invocation {
    ground.session.sarus(["exec"]).args(options).args([id]).args(command)
}

fn exec_shell(ground: &Ground, id: &str, script: &str) -> Invocation {
    exec(ground, &[], id, &["sh", "-c", script])
}

fn running_containers_are_listed_and_ended_ones_are_not(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let stranger = Session::new(Who::User);
    let container = Container::of(&ground, &[]);
    let id = &container.id;
    let table = ground.session.sarus(["ps"]).run();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let header = table.ok().lines().next().map(words).unwrap();
    assert_eq!(header, ["ID", "PID", "STATUS", "IMAGE", "COMMAND", "CREATED"]);
    let line = table.stdout.lines().find(|line| line.starts_with(id)).unwrap();
    assert!(line.contains(" running ") && line.contains(&ground.image), "{table}");
    assert!(line.contains("sh -c echo ready; read line; e…"), "{table}");
    assert!(listed(&ground.session).contains(id));
    let output = ground.session.sarus(["ps", "--format", "json"]).run();
    let all: Vec<Value> = serde_json::from_str(output.ok()).unwrap();
    let one = all.iter().find(|one| one["id"] == id.as_str()).unwrap();
    assert_eq!(one["supervisor"], container.run.pid());
    assert_eq!(one["command"][2], "echo ready; read line; exit 7");
    assert_eq!(one["privileged"], who == Who::Root);
    let pid = u32::try_from(one["pid"].as_u64().unwrap()).unwrap();
    assert!(descendants(container.run.pid()).contains(&pid));
    // Neither another user nor root sees it, nor can they do anything to it.
    assert!(!listed(&stranger).contains(id));
    let missing = ["no container", "of yours runs", id.as_str()];
    stranger.sarus(["kill", id]).run().explains(125, &missing);
    stranger.sarus(["exec", id, "true"]).run().explains(125, &missing);
    if who == Who::User {
        assert_eq!(listed(&ground.session), [id.as_str()]);
        let roots =
            Command::new(ground.session.programs().path("sarus")).args(["ps", "-q"]).output();
        assert!(!String::from_utf8(roots.unwrap().stdout).unwrap().contains(id));
    }
    let killed = Container::of(&ground, &[]);
    let id = killed.id.clone();
    let below = descendants(killed.run.pid());
    killed.run.signal(Signal::KILL);
    killed.run.finish();
    assert!(!listed(&ground.session).contains(&id));
    assert!(below.into_iter().all(|pid| wait_gone(pid, LIMIT)));
    let id = container.id.clone();
    container.end();
    assert!(!listed(&ground.session).contains(&id));
}

fn a_container_is_killed_or_gets_the_signal_asked_for(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "trap 'echo USR1' USR1; trap 'echo TERM; exit 4' TERM; echo ready; \
                  while :; do sleep 0.05; done";
    let container = Container::start(&ground.shell(script));
    for signal in ["USR1", "10", "SIGUSR1", "sigusr1"] {
        ground.session.sarus(["kill", "-s", signal, &container.id]).run().ok();
        assert_eq!(container.run.line(), "USR1\n", "{signal}");
    }
    ground.session.sarus(["kill", "-s", "SIGTERM", &container.id]).run().ok();
    assert_eq!(container.run.line(), "TERM\n");
    container.run.finish().failed(4);
    let (one, two) = (Container::start(&ground.shell(script)), Container::of(&ground, &[]));
    assert_eq!(ground.session.sarus(["kill", &one.id, &two.id]).run().ok(), "");
    one.run.finish().failed(137);
    two.run.finish().failed(137);
}

fn what_cannot_be_found_or_sent_is_explained(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let sarus = |words: &[&str]| ground.session.sarus(words).run();
    sarus(&["kill", "none"]).explains(125, &["`none`", "`sarus ps` lists them"]);
    let (one, two) =
        (Container::of(&ground, &["--name", "one"]), Container::of(&ground, &["--name", "two"]));
    let third = Container::of(&ground, &["--name", "third"]);
    sarus(&["kill", "none", "third"]).explains(125, &["`none`", "there are one, third, two"]);
    third.run.finish().failed(137);
    sarus(&["exec", "none", "true"]).explains(125, &["`none`", "there are one, two"]);
    for signal in ["NONE", "0", "65", "-1", ""] {
        let signal = format!("--signal={signal}");
        sarus(&["kill", &signal, "one"]).explains(125, &["`--signal`", "a signal's name"]);
    }
    sarus(&["exec", "one"]).explains(125, &["needs a container and a command"]);
    sarus(&["exec", "-w", "x", "one", "pwd"]).explains(125, &["`x` is not an absolute path"]);
    one.end();
    two.end();
}

fn another_program_finds_what_the_first_has(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let facts = "id; pwd; echo $ONE $IMAGE $HOME; umask; readlink /proc/self/ns/user \
                 /proc/self/ns/mnt /proc/self/ns/pid; cat /tmp/of-first; \
                 grep -E '^(Cap|NoNewPrivs|Seccomp:|Cpus_allowed_list)' /proc/self/status";
    let script = format!(
        "echo first > /tmp/of-first; {{ {facts}; }} > /tmp/facts; echo ready; read line; \
         cat /tmp/of-other"
    );
    ground.session.write("of-caller", "text\n");
    let run = ground.run_with(&["-e", "ONE=1", "-w", "/srv"], &["sh", "-c", &script]);
    let mut container = Container::start(&run);
    let id = container.id.as_str();
    let same = format!("{{ {facts}; }} | diff /tmp/facts -");
    exec_shell(&ground, id, &same).run().ok();
    let script = "echo $ONE $TWO; pwd";
    let options = ["-e", "ONE=one", "--env", "TWO", "-w", "/etc"];
    let changed = exec(&ground, &options, id, &["sh", "-c", script]).env("TWO", "2").run();
    assert_eq!(changed.ok(), "one 2\n/etc\n");
    let output = exec(&ground, &["-i"], id, &["cat"]).input("text\n").run();
    assert_eq!(output.ok(), "text\n");
    let script = "cat /proc/self/fd/7 /proc/self/fd/200; ls /proc/self/fd";
    let handed = exec_shell(&ground, id, script).after("exec 7< of-caller 200< of-caller").run();
    let handed = handed.ok().strip_prefix("text\ntext\n").unwrap();
    assert_eq!(
        handed.lines().filter(|fd| ["3", "4", "5", "6", "8", "200"].contains(fd)).count(),
        2
    );
    exec_shell(&ground, id, "echo other > /tmp/of-other").run().ok();
    container.run.write("go on\n");
    assert_eq!(container.run.line(), "other\n");
    container.run.finish().ok();
}

fn another_program_ends_and_fails_as_the_first_does(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let container = Container::of(&ground, &[]);
    let id = container.id.as_str();
    for (script, want) in [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", 143)] {
        assert_eq!(exec_shell(&ground, id, script).run().code(), Some(want), "{script}");
    }
    let failed = |command: &str| exec(&ground, &[], id, &[command]).run();
    failed("no-such-program").explains(127, &["no-such-program", "not found"]);
    failed("/bin").explains(126, &["cannot start `/bin`"]);
    let nowhere = exec(&ground, &["-w", "/none"], id, &["true"]).run();
    assert!(nowhere.failed(125).contains("`/none`"), "{nowhere}");
    let script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    let program = exec_shell(&ground, id, script).start();
    assert_eq!(program.line(), "ready\n");
    program.signal(Signal::TERM);
    assert_eq!(program.line(), "got\n");
    program.finish().failed(5);
    // What is sent to the whole group of who ran it comes once.
    let script = "trap 'echo got' TERM; echo ready; sleep 0.5 & wait; wait; sleep 0.3";
    let to_group = "set -m; \"$@\" < /dev/null & read line; kill -TERM -- -$!; wait $!";
    let words = ["bash", "-c", to_group, "bash"];
    let mut program = exec_shell(&ground, id, script).under(words).keep_input().start();
    assert_eq!(program.line(), "ready\n");
    program.write("\n");
    assert_eq!(program.finish().ok(), "ready\ngot\n");
    // Who ran it being killed, the program and what it started end, and the container does not.
    let script = "sleep 1000 & echo ready; exec sleep 1000";
    let program = exec_shell(&ground, id, script).start();
    assert_eq!(program.line(), "ready\n");
    let below = descendants(program.pid());
    assert!(below.len() >= 3, "{below:?}");
    program.signal(Signal::KILL);
    program.finish();
    assert!(below.into_iter().all(|pid| wait_gone(pid, LIMIT)));
    container.end();
}

fn another_program_has_a_terminal_of_its_own(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let container = Container::of(&ground, &[]);
    let mut terminal = Terminal::open(33, 77);
    let script = "trap 'echo size: $(stty size)' WINCH; stty size; tty; echo ready; \
                  while :; do read line && echo got: $line; [ \"$line\" = end ] && exit 4; done";
    let command = ["sh", "-c", script];
    let program = exec(&ground, &["-ti"], &container.id, &command).start_on(&terminal);
    let seen = terminal.read_until("ready");
    assert!(seen.contains("33 77") && seen.contains("/dev/"), "{seen}");
    terminal.resize(40, 100);
    terminal.write("more\n");
    terminal.read_until("size: 40 100");
    terminal.write("end\n");
    terminal.read_until("got: end");
    assert_eq!(program.finish().code(), Some(4));
    container.end();
}

fn another_program_ends_with_its_container(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let container = Container::of(&ground, &[]);
    let script = "trap '' TERM HUP; sleep 1000 & echo ready; wait; wait";
    let program = exec_shell(&ground, &container.id, script).start();
    assert_eq!(program.line(), "ready\n");
    let below = descendants(program.pid());
    // Quietly: nothing had to be waited for, or killed.
    assert_eq!(container.run.finish().failed(7), "");
    assert_eq!(program.finish().code(), Some(137));
    assert!(below.into_iter().all(|pid| wait_gone(pid, LIMIT)));
}

fn a_container_with_processes_of_its_own_takes_others_in(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "readlink /proc/self/ns/pid > /tmp/pid; echo ready; read line; exit 7";
    let run = ground.run_with(&["--pid", "private"], &["sh", "-c", script]);
    let container = Container::start(&run);
    let id = container.id.as_str();
    let script = "readlink /proc/self/ns/pid | diff /tmp/pid - && tr '\\0' ' ' < /proc/1/cmdline";
    let output = exec_shell(&ground, id, script).run();
    assert!(output.ok().starts_with("sh -c readlink "), "{output}");
    assert_eq!(exec_shell(&ground, id, "exit 9").run().code(), Some(9));
    container.end();
}

fn a_name_is_one_containers(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let named = || Container::of(&ground, &["--name", "mine"]);
    let container = named();
    let again = ground.run_with(&["--name", "mine"], &["true"]).run();
    again.explains(125, &["`mine`", &format!("process {}", container.run.pid()), "--name"]);
    assert_eq!(listed(&ground.session), ["mine"]);
    assert_eq!(exec_shell(&ground, "mine", "echo inside").run().ok(), "inside\n");
    container.end();
    // The name is free after the end, and after a supervisor was killed.
    let container = named();
    container.run.signal(Signal::KILL);
    container.run.finish();
    named().end();
    assert_eq!(listed(&ground.session), [""; 0]);
}

fn tasks_of_a_step_have_names_of_their_own(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let task = |rank: &str, tasks: &str| {
        let command = ["sh", "-c", "echo ready; read line; exit 7"];
        let run = ground.run_with(&["--name", "x"], &command);
        Container::start(&run.env("SLURM_PROCID", rank).env("SLURM_STEP_NUM_TASKS", tasks))
    };
    let tasks = [task("3", "8"), task("4", "8"), task("0", "1")];
    let mut names = listed(&ground.session);
    names.sort();
    assert_eq!(names, ["x", "x.3", "x.4"]);
    tasks.into_iter().for_each(Container::end);
}

fn a_signal_to_every_process_reaches_the_command_once(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "n=0; trap 'n=$((n+1)); echo got $n' USR1; trap 'echo $n; exit 5' TERM; echo ready; \
                  while :; do sleep 0.05; done";
    // Parents first, and children first.
    for backwards in [false, true] {
        let run = ground.shell(script).start();
        assert_eq!(run.line(), "ready\n");
        let mut all: Vec<u32> = [run.pid()].into_iter().chain(descendants(run.pid())).collect();
        if backwards {
            all.reverse();
        }
        for pid in all {
            kill(pid, Signal::USR1);
        }
        assert_eq!(run.line(), "got 1\n");
        // What is yet to be forwarded comes before this.
        run.signal(Signal::TERM);
        assert_eq!(run.line(), "1\n", "{backwards}");
        run.finish().failed(5);
    }
}
