//! What runs of one user and job have in common on a node, and what each keeps to itself.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use sarus_integration_tests::{
    Image, Invocation, Packed, Registry, Running, Runtime, Tar, Who, descendants, kill, named,
    wait_gone,
};

use crate::{Ground, in_every_mode, in_mode};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Says its user namespace, writes, and goes on with a line of input: reads the image and its own.
const WAITING: &str = "echo $$ > /tmp/mine; readlink /proc/self/ns/user; read line; \
                       cat /srv/data; [ $(cat /tmp/mine) = $$ ] && echo mine";

in_every_mode!(runs_at_once_mount_the_image_once);

in_mode!(
    as_user_with_crun,
    User,
    Crun,
    the_first_of_many_can_be_killed,
    programs_of_different_images_read_each_others_memory,
    jobs_and_sessions_are_apart_and_steps_have_servers_of_their_own,
    a_place_to_meet_that_is_roots_or_open_to_others_is_not_used,
    places_to_meet_that_root_took_are_named_and_a_logins_is_used,
    a_run_leaves_the_place_that_it_met_at_when_a_better_one_became_free,
    who_holds_a_lock_but_is_no_run_is_in_nobodys_way,
    an_unpacked_image_is_shared_and_the_last_removes_it,
    runs_outlive_the_server_of_the_image,
    the_writable_layer_can_be_on_disk,
    the_writable_layer_is_as_large_as_the_configuration_says
);

in_mode!(
    as_user_with_runc,
    User,
    Runc,
    the_first_of_many_can_be_killed,
    programs_of_different_images_read_each_others_memory,
    runs_outlive_the_server_of_the_image
);

fn waiting(ground: &Ground) -> Invocation {
    ground.shell(WAITING).keep_input()
}

/// Lets a run of [`WAITING`] go on; it must find its files as they were.
fn end(mut run: Running) {
    run.write("go on\n");
    let output = run.finish();
    let said = output.ok();
    assert!(said.ends_with("\noriginal\nmine\n"), "{output}");
}

fn servers(ground: &Ground) -> Vec<u32> {
    named("sarus-fuse", ground.session.uid())
}

fn places_to_meet(uid: u32) -> [PathBuf; 2] {
    ["/dev/shm", "/tmp"].map(|parent| Path::new(parent).join(format!("sarus-{uid}")))
}

/// Nothing is left that runs of the user shared.
fn assert_nothing_shared(ground: &Ground) {
    assert_eq!(servers(ground), [0_u32; 0]);
    assert_eq!(loop_devices(ground), [""; 0]);
    for place in places_to_meet(ground.session.uid()) {
        assert!(!place.exists(), "{}", place.display());
    }
}

/// The files of this test behind loop devices.
fn loop_devices(ground: &Ground) -> Vec<String> {
    let ours = ground.session.directory().to_str().unwrap();
    let files = fs_err::read_dir("/sys/block").unwrap().filter_map(|entry| {
        fs_err::read_to_string(entry.unwrap().path().join("loop/backing_file")).ok()
    });
    files.filter(|file| file.contains(ours)).collect()
}

/// The static program `peek`.
fn peek(directory: &Path) -> PathBuf {
    let program = directory.join("peek");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all/peek.c");
    let mut compiler = Command::new("gcc");
    let output = compiler.args(["-static", "-O1", "-o"]).arg(&program).arg(&source).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    program
}

/// BusyBox with `peek` and a file that makes the image another one.
fn with_peek(content: &str) -> Packed {
    let folder = tempfile::tempdir().unwrap();
    let program = fs_err::read(peek(folder.path())).unwrap();
    let tar = Tar::new().file("srv/which", content).file("bin/peek", program).mode(0o755);
    Image::busybox().layer(&tar).pack()
}

fn runs_at_once_mount_the_image_once(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let runs: Vec<_> = (0..6).map(|_| waiting(&ground).start()).collect();
    let namespaces: Vec<_> = runs.iter().map(Running::line).collect();
    assert!(namespaces.iter().all(|one| *one == namespaces[0]), "{namespaces:?}");
    let (fuse, loops) = if who == Who::User { (1, 0) } else { (0, 1) };
    assert_eq!((servers(&ground).len(), loop_devices(&ground).len()), (fuse, loops));
    runs.into_iter().for_each(end);
    assert_nothing_shared(&ground);
}

fn the_first_of_many_can_be_killed(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let start = || {
        let run = waiting(&ground).start();
        let namespace = run.line();
        (run, namespace)
    };
    let (first, namespace) = start();
    let others: Vec<_> = (0..3).map(|_| start()).collect();
    first.signal(Signal::KILL);
    assert_eq!(first.finish().code(), None);
    let (fifth, joined) = start();
    assert_eq!(joined, namespace);
    assert_eq!(servers(&ground).len(), 1);
    for (run, joined) in others {
        assert_eq!(joined, namespace);
        end(run);
    }
    end(fifth);
    assert_nothing_shared(&ground);
}

fn programs_of_different_images_read_each_others_memory(who: Who, runtime: Runtime) {
    let registry = Registry::start();
    let ground = Ground::with(who, runtime, &with_peek("one\n"));
    let other = registry.push("other:1", &with_peek("other\n"));
    ground.session.trust(&[registry.host()]);
    ground.session.sarus(["pull", "--quiet", &other]).run().ok();
    let run = ground.run(&["peek", "hold"]).keep_input().start();
    let line = run.line();
    let (pid, address) = line.trim().split_once(' ').unwrap();
    let output = ground
        .session
        .sarus(["run", "--runtime", runtime.name(), &other, "sh", "-c"])
        .args([format!("cat /srv/which; peek at {pid} {address}")])
        .run();
    assert_eq!(output.ok(), "other\ntext of another container\n");
    assert_eq!(servers(&ground).len(), 1, "the other image's server ended with its last run");
    run.finish().ok();
    assert_nothing_shared(&ground);
}

fn jobs_and_sessions_are_apart_and_steps_have_servers_of_their_own(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let job = |job: &str, step: &str| {
        waiting(&ground).env("SLURM_JOB_ID", job).env("SLURM_STEP_ID", step)
    };
    let runs: Vec<_> = [
        job("1", "0"),
        job("1", "1"),
        job("1", "1"),
        job("2", "0"),
        waiting(&ground),
        waiting(&ground).under(["setsid", "--wait"]),
    ]
    .iter()
    .map(Invocation::start)
    .collect();
    let namespaces: Vec<_> = runs.iter().map(Running::line).collect();
    // Which of the runs before it each shares the user namespace with, if any.
    let shares: Vec<_> = namespaces
        .iter()
        .map(|one| namespaces.iter().position(|other| other == one).unwrap())
        .collect();
    assert_eq!(shares, [0, 0, 0, 3, 4, 5]);
    assert_eq!(servers(&ground).len(), 5);
    runs.into_iter().for_each(end);
    assert_nothing_shared(&ground);
}

/// Makes a place.
type Plant<'a> = &'a dyn Fn(&Path);

/// Places to meet of a user that the test made, and removes. Root's tests would see them: the name
/// of such a test has it run alone with those.
struct Planted([PathBuf; 2]);

impl Drop for Planted {
    fn drop(&mut self) {
        for place in &self.0 {
            drop(std::fs::remove_file(place).or_else(|_| std::fs::remove_dir_all(place)));
        }
    }
}

fn a_place_to_meet_that_is_roots_or_open_to_others_is_not_used(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let (uid, gid) = (Some(ground.session.uid()), Some(ground.session.gid()));
    let mode = |path: &Path, mode| {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let target = ground.session.directory().join("target");
    fs_err::create_dir(&target).unwrap();
    chown(&target, uid, gid).unwrap();
    mode(&target, 0o700);
    let roots = |path: &Path| {
        fs_err::create_dir(path).unwrap();
        mode(path, 0o777);
    };
    let open = |path: &Path| {
        fs_err::create_dir(path).unwrap();
        mode(path, 0o755);
        chown(path, uid, gid).unwrap();
    };
    let link = |path: &Path| {
        symlink(&target, path).unwrap();
        std::os::unix::fs::lchown(path, uid, gid).unwrap();
    };
    let file = |path: &Path| {
        fs_err::write(path, "").unwrap();
        chown(path, uid, gid).unwrap();
    };
    let plants: [(&str, Plant<'_>); 4] =
        [("root's", &roots), ("open", &open), ("a link", &link), ("a file", &file)];
    for (what, plant) in plants {
        // A test that failed may have left the places of a user with the same number.
        drop(Planted(places_to_meet(ground.session.uid())));
        let planted = Planted(places_to_meet(ground.session.uid()));
        planted.0.iter().for_each(|place| plant(place));
        let runs = [waiting(&ground).start(), waiting(&ground).start()];
        assert_ne!(runs[0].line(), runs[1].line(), "{what}");
        runs.into_iter().for_each(end);
        for place in planted.0.iter().chain([&target]) {
            // An empty one of the user's may have been removed.
            let Ok(found) = place.metadata() else { continue };
            let entries = if found.is_dir() { fs_err::read_dir(place).unwrap().count() } else { 0 };
            assert_eq!((entries, found.size() * u64::from(found.is_file())), (0, 0), "{what}");
        }
    }
    assert_nothing_shared(&ground);
}

fn a_run_leaves_the_place_that_it_met_at_when_a_better_one_became_free(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let (uid, gid) = (ground.session.uid(), ground.session.gid());
    let planted = Planted(places_to_meet(uid));
    let [best, other] = &planted.0;
    fs_err::create_dir(best).unwrap();
    fs_err::set_permissions(best, std::fs::Permissions::from_mode(0o755)).unwrap();
    chown(best, Some(uid), Some(gid)).unwrap();
    let server = ground.session.home().join("server");
    let met = ground.session.home().join("met");
    let script = format!(
        "#!/bin/sh\n[ -d {} ] && rmdir {} && : > {}; exec squashfuse_ll \"$@\"\n",
        other.display(),
        best.display(),
        met.display()
    );
    ground.session.write("server", script);
    fs_err::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(r#"{{"squashfusePath": "{}"}}"#, server.display());
    ground.session.write(".config/sarus/sarus.json", text);
    assert_eq!(ground.run(&["echo", "hello"]).run().ok(), "hello\n");
    assert!(met.exists(), "there was no other place, or the server was not the one given");
    assert_nothing_shared(&ground);
}

fn places_to_meet_that_root_took_are_named_and_a_logins_is_used(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let uid = ground.session.uid();
    let planted = Planted(places_to_meet(uid));
    planted.0.iter().for_each(|place| fs_err::create_dir(place).unwrap());
    let first = planted.0[0].to_str().unwrap();
    let owner = format!("`{first}` (user 0, mode 0755)");
    ground.run_with(&["--name", "x"], &["true"]).run().explains(125, &[&owner, "administrator"]);
    let output = ground.run(&["true"]).run();
    assert!(output.ok().is_empty() && output.stderr.contains(&owner), "{output}");
    // What a login makes is root's to make and the user's alone.
    let login = PathBuf::from(format!("/run/user/{uid}"));
    let made = Planted([login.clone(), login.join("unused")]);
    fs_err::create_dir_all(&login).unwrap();
    fs_err::set_permissions(&login, std::fs::Permissions::from_mode(0o700)).unwrap();
    chown(&login, Some(uid), Some(ground.session.gid())).unwrap();
    let runs = [waiting(&ground).start(), waiting(&ground).start()];
    assert_eq!(runs[0].line(), runs[1].line());
    runs.into_iter().for_each(end);
    assert_eq!(ground.run_with(&["--name", "x"], &["true"]).run().ok(), "");
    assert_eq!(fs_err::read_dir(&login).unwrap().count(), 0);
    drop((made, planted));
    assert_nothing_shared(&ground);
}

fn who_holds_a_lock_but_is_no_run_is_in_nobodys_way(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let program = peek(ground.session.directory());
    let [place, _] = places_to_meet(ground.session.uid());
    let name = {
        let run = waiting(&ground).start();
        run.line();
        let mut entries = fs_err::read_dir(&place).unwrap();
        let name = entries.next().unwrap().unwrap().file_name();
        end(run);
        name
    };
    // Every place for others too, every place alone, and one that no run takes.
    for (kind, start, length) in [("r", "0", "0"), ("w", "0", "0"), ("r", "1", "1")] {
        let script = format!("mkdir -m 700 {0}; exec \"$@\"", place.display());
        let lock = ground
            .session
            .program(["sh", "-c", &script, "sh"])
            .args([program.as_os_str(), "lock".as_ref(), place.join(&name).as_os_str()])
            .args([kind, start, length])
            .keep_input()
            .start();
        assert_eq!(lock.line(), "locked\n");
        let runs = [waiting(&ground).start(), waiting(&ground).start()];
        runs.iter().for_each(|run| drop(run.line()));
        runs.into_iter().for_each(end);
        lock.finish().ok();
        end(waiting(&ground).start());
        assert_nothing_shared(&ground);
    }
}

fn an_unpacked_image_is_shared_and_the_last_removes_it(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    ground.session.write(".config/sarus/sarus.json", r#"{"imageMount": "unpack"}"#);
    let directory = scratch(&ground);
    let entries = || fs_err::read_dir(&directory).unwrap().count();
    let start = || waiting(&ground).env("TMPDIR", &directory).start();
    let runs = [start(), start()];
    assert_eq!(runs[0].line(), runs[1].line());
    assert_eq!((entries(), servers(&ground).len()), (1, 0));
    let [first, second] = runs;
    end(first);
    assert_eq!(entries(), 1);
    end(second);
    assert_eq!(entries(), 0);
    assert_nothing_shared(&ground);
}

/// An empty directory of the person's.
fn scratch(ground: &Ground) -> PathBuf {
    let directory = ground.session.directory().join("scratch");
    fs_err::create_dir(&directory).unwrap();
    chown(&directory, Some(ground.session.uid()), Some(ground.session.gid())).unwrap();
    directory
}

fn runs_outlive_the_server_of_the_image(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "echo ready; read line; { read id < /etc/os-release; } 2> /dev/null; echo $?";
    let runs: Vec<_> = (0..2).map(|_| ground.shell(script).keep_input().start()).collect();
    runs.iter().for_each(|run| assert_eq!(run.line(), "ready\n"));
    for pid in servers(&ground) {
        kill(pid, Signal::KILL);
        assert!(wait_gone(pid, LIMIT));
    }
    end(waiting(&ground).start());
    // The shell itself may die of it, whose program is of the image.
    for run in runs {
        let output = run.finish();
        assert_ne!(output.stdout, "ready\n0\n", "{output}");
    }
    assert_nothing_shared(&ground);
}

fn the_writable_layer_can_be_on_disk(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let directory = scratch(&ground);
    let find = || {
        let mut find = Command::new("find");
        let output = find.arg(&directory).args(["-name", "mine"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let options = ["--writable-dir", directory.to_str().unwrap()];
    let start = || ground.run_with(&options, &["sh", "-c", WAITING]).keep_input().start();
    let runs = [start(), start()];
    assert_eq!(runs[0].line(), runs[1].line());
    assert_eq!(find().lines().count(), 2);
    assert!(find().lines().all(|line| line.ends_with("/upper/tmp/mine")), "{}", find());
    let [first, second] = runs;
    end(first);
    assert_eq!(find().lines().count(), 1);
    // What a killed run wrote goes too.
    let below = descendants(second.pid());
    second.signal(Signal::KILL);
    second.finish();
    assert!(below.into_iter().all(|pid| wait_gone(pid, LIMIT)));
    start().finish();
    assert_eq!(fs_err::read_dir(&directory).unwrap().count(), 0);
    assert_nothing_shared(&ground);
}

fn the_writable_layer_is_as_large_as_the_configuration_says(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let slurm = Some("4");
    for (writable, tasks, megabytes, fits) in [
        (r#"{"size": "16MiB"}"#, None, 8, true),
        (r#"{"size": "16MiB"}"#, None, 24, false),
        (r#"{"nodeSize": "64MiB"}"#, None, 24, true),
        (r#"{"nodeSize": "64MiB"}"#, slurm, 8, true),
        (r#"{"nodeSize": "64MiB"}"#, slurm, 24, false),
        (r#"{"size": "16MiB", "nodeSize": "1GiB"}"#, slurm, 24, false),
    ] {
        let text = format!(r#"{{"writable": {writable}}}"#);
        ground.session.write(".config/sarus/sarus.json", text);
        let script = format!("dd if=/dev/zero of=/file bs=1M count={megabytes}");
        let mut run = ground.shell(&script);
        if let Some(tasks) = tasks {
            run = run.env("SLURM_STEP_TASKS_PER_NODE", tasks);
        }
        let output = run.run();
        let is_full = output.stderr.contains("No space left on device");
        assert_eq!((output.code() == Some(0), is_full), (fits, !fits), "{writable}: {output}");
    }
}
