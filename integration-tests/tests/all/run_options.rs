//! The options of `sarus run`: variables, command, mounts, namespaces, devices, names.

use sarus_integration_tests::{Image, Runtime, Who};
use serde_json::json;

use crate::{Ground, in_every_mode};

in_every_mode!(
    variables_come_from_host_image_file_and_option_in_this_order,
    entrypoint_and_command_are_joined_as_docker_does,
    the_working_directory_is_given_or_the_images_and_made_when_absent,
    bind_mounts_show_the_host_read_only_or_not,
    device_nodes_work_where_the_host_has_them_for_that,
    a_tmpfs_has_the_size_and_mode_asked_for,
    what_nobody_reads_on_standard_error_changes_nothing,
    an_option_that_no_hook_heeds_is_told_by_the_first_task,
    read_only_refuses_writes_to_the_image_but_not_to_mounts,
    a_private_process_namespace_starts_with_process_one,
    processes_of_the_host_are_seen_without_one,
    an_init_reaps_and_passes_the_exit_status_on,
    standard_streams_and_further_descriptors_are_the_callers,
    the_host_name_and_its_files_are_the_hosts,
    a_file_of_another_owner_in_the_image_can_be_changed,
    the_device_directory_is_minimal,
    a_device_that_is_asked_for_is_there,
    a_group_of_the_user_opens_what_it_opens_outside,
);

fn variables_come_from_host_image_file_and_option_in_this_order(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let file =
        ground.session.write("vars", "# comment\nA=file\nB=file\nC=file with blanks \nHOSTS\n");
    let file = file.to_str().unwrap();
    let output = ground
        .run_with(&["--env-file", file, "-e", "B=option", "-e", "HOST2"], &["env"])
        .env("A", "host")
        .env("IMAGE", "host")
        .env("HOSTS", "host's")
        .env("HOST2", "second")
        .env("LD_LIBRARY_PATH", "/host/lib")
        .run();
    let lines: Vec<&str> = output.ok().lines().collect();
    let want = [
        "A=file",
        "B=option",
        "C=file with blanks ",
        "IMAGE=busybox",
        "HOSTS=host's",
        "HOST2=second",
    ];
    for line in want {
        assert!(lines.contains(&line), "{line} in {output}");
    }
    assert!(lines.contains(&"PATH=/usr/local/bin:/usr/bin:/bin"), "the image's path: {output}");
}

fn entrypoint_and_command_are_joined_as_docker_does(who: Who, runtime: Runtime) {
    let config = json!({
        "Env": ["PATH=/bin"], "Entrypoint": ["echo", "entry"], "Cmd": ["default"],
    });
    let ground = Ground::with(who, runtime, &Image::busybox().config(config).pack());
    assert_eq!(ground.run(&[]).run().ok(), "entry default\n");
    assert_eq!(ground.run(&["given", "-x"]).run().ok(), "entry given -x\n");
    assert_eq!(ground.run_with(&["--entrypoint", "printf"], &["%s", "a"]).run().ok(), "a");
    assert_eq!(ground.run_with(&["--entrypoint", ""], &["echo", "b"]).run().ok(), "b\n");
}

fn the_working_directory_is_given_or_the_images_and_made_when_absent(who: Who, runtime: Runtime) {
    let config = json!({"Env": ["PATH=/bin"], "WorkingDir": "/srv"});
    let ground = Ground::with(who, runtime, &Image::busybox().config(config).pack());
    assert_eq!(ground.run(&["pwd"]).run().ok(), "/srv\n");
    assert_eq!(ground.run_with(&["-w", "/usr/bin"], &["pwd"]).run().ok(), "/usr/bin\n");
    assert_eq!(ground.run_with(&["-w", "/made/here"], &["pwd"]).run().ok(), "/made/here\n");
}

fn bind_mounts_show_the_host_read_only_or_not(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    ground.session.write("data/file", "from the host\n");
    let data = ground.session.home().join("data");
    let data = data.to_str().unwrap();
    let writable = format!("{data}:/data");
    let script = "cat /data/file; echo changed > /data/new";
    let output = ground.run_with(&["-v", &writable], &["sh", "-c", script]).run();
    assert_eq!(output.ok(), "from the host\n");
    assert_eq!(fs_err::read_to_string(format!("{data}/new")).unwrap(), "changed\n");
    for options in [
        ["-v".to_owned(), format!("{data}:/data:ro")],
        ["--mount".to_owned(), format!("type=bind,source={data},destination=/data,readonly")],
    ] {
        let options = [options[0].as_str(), options[1].as_str()];
        let script = "cat /data/file; echo x > /data/refused";
        let output = ground.run_with(&options, &["sh", "-c", script]).run();
        assert!(output.failed(1).contains("Read-only file system"), "{output}");
        assert_eq!(output.stdout, "from the host\n");
    }
    assert!(!std::path::Path::new(data).join("refused").exists());
    // A file may be mounted as well, on one that the image has.
    let file = format!("{data}/file:/etc/os-release");
    assert_eq!(
        ground.run_with(&["-v", &file], &["cat", "/etc/os-release"]).run().ok(),
        "from the host\n"
    );
}

/// A node where the host has none for that: made by root outside `/dev`.
fn device_nodes_work_where_the_host_has_them_for_that(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let place = ground.session.directory().join("nodes");
    fs_err::create_dir(&place).unwrap();
    let null = place.join("null");
    let mut mknod = std::process::Command::new("mknod");
    mknod.args(["-m", "666"]).arg(&null).args(["c", "1", "3"]);
    assert!(mknod.output().unwrap().status.success());
    let around = format!("/dev/..{}", place.display());
    let link = ground.session.directory().join("link");
    std::os::unix::fs::symlink("/dev", &link).unwrap();
    let link = link.to_str().unwrap();
    for (source, works) in
        [(place.to_str().unwrap(), false), (&around, false), ("/dev", true), (link, true)]
    {
        let mount = format!("{source}:/mnt");
        let output = ground.run_with(&["-v", &mount], &["sh", "-c", "echo x > /mnt/null"]).run();
        assert_eq!(output.code() == Some(0), works, "{output}");
    }
}

fn what_nobody_reads_on_standard_error_changes_nothing(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    for to in ["2> /dev/full", "2> >(exec true)", "2>&-"] {
        let script = format!("exec \"$@\" {to}");
        let code = |invocation: sarus_integration_tests::Invocation| {
            invocation.under(["bash", "-c", &script, "bash"]).run().code()
        };
        assert_eq!(code(ground.run(&["no-such-program"])), Some(127), "{to}");
        assert_eq!(code(ground.run(&["/tmp"])), Some(126), "{to}");
        assert_eq!(code(ground.run_with(&["-v", "/none:/m"], &["true"])), Some(125), "{to}");
        let debug = ["--debug", "run", "--runtime", runtime.name(), &ground.image];
        let debug = ground.session.sarus(debug).args(["sh", "-c", "exit 3"]);
        assert_eq!(code(debug), Some(3), "{to}");
    }
}

fn an_option_that_no_hook_heeds_is_told_by_the_first_task(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let mpi = || ground.run_with(&["--mpi"], &["true"]);
    for (run, told) in [
        (mpi(), true),
        (mpi().env("SLURM_PROCID", "0"), true),
        (mpi().env("SLURM_PROCID", "1"), false),
        (ground.run(&["true"]), false),
    ] {
        let output = run.run();
        output.ok();
        let said = "`--mpi` does nothing here: of the hooks that run none heeds";
        assert_eq!(output.stderr.contains(said), told, "{output}");
    }
}

fn a_tmpfs_has_the_size_and_mode_asked_for(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script =
        "stat -c %a /scratch; df -k /scratch | tail -1 | awk '{print $2}'; echo x > /scratch/f";
    let output =
        ground.run_with(&["--tmpfs", "/scratch:size=2m,mode=0750"], &["sh", "-c", script]).run();
    assert_eq!(output.ok(), "750\n2048\n");
    // What is below a mount is seen, in whatever order they are given.
    let below = format!("{}:/scratch/below", ground.session.home().display());
    ground.session.write("file", "kept");
    let script = "cat below/file; cp /bin/true .; ./true; echo $?";
    let options = ["-w", "/scratch", "--tmpfs", "/scratch:noexec", "-v", &below];
    for options in [options, ["-v", &below, "--tmpfs", "/scratch:noexec", "-w", "/scratch"]] {
        let output = ground.run_with(&options, &["sh", "-c", script]).run();
        assert_eq!(output.ok(), "kept126\n", "{output}");
    }
}

fn read_only_refuses_writes_to_the_image_but_not_to_mounts(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "echo x > /scratch/f && echo x > /bin/f";
    let output =
        ground.run_with(&["--read-only", "--tmpfs", "/scratch"], &["sh", "-c", script]).run();
    assert!(output.failed(1).contains("Read-only file system"), "{output}");
}

fn a_private_process_namespace_starts_with_process_one(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "echo $$; ls /proc | grep -c '^[0-9]'";
    let output = ground.run_with(&["--pid", "private"], &["sh", "-c", script]).run();
    let numbers: Vec<u32> = output.ok().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers[0], 1, "{output}");
    // The shell, `ls` and `grep`.
    assert!(numbers[1] <= 3, "{output}");
}

fn processes_of_the_host_are_seen_without_one(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let output = ground.shell("readlink /proc/self/ns/pid").run();
    let outside = fs_err::read_link("/proc/self/ns/pid").unwrap();
    assert_eq!(output.ok().trim(), outside.to_str().unwrap());
}

fn an_init_reaps_and_passes_the_exit_status_on(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "(sleep 0.1 &) ; exit 9";
    ground.run_with(&["--init", "--pid", "private"], &["sh", "-c", script]).run().failed(9);
    ground.run_with(&["--init"], &["sh", "-c", "kill -TERM $$"]).run().failed(143);
}

fn standard_streams_and_further_descriptors_are_the_callers(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    ground.session.write("seven", "seventh\n");
    let output =
        ground.shell("cat; cat <&7; echo error >&2").input("input\n").after("exec 7< seven").run();
    assert_eq!(output.ok(), "input\nseventh\n");
    assert_eq!(output.stderr, "error\n");
    // Also such with numbers far above the others, which count for no more than themselves.
    let far = "ulimit -n 256; exec 7< seven 200< seven 251> far";
    let listing =
        "ls /proc/self/fd | sort -n; cat /proc/self/fd/200; echo said > /proc/self/fd/251";
    let outside = ground.session.program(["sh", "-c", listing]).after(far).run();
    assert!(outside.ok().ends_with("\n200\n251\nseventh\n"), "{outside}");
    assert_eq!(ground.shell(listing).after(far).run().ok(), outside.ok());
    assert_eq!(fs_err::read_to_string(ground.session.home().join("far")).unwrap(), "said\n");
    // What the caller had closed stays closed, and nothing of the engine's is passed on.
    let list = "for f in /proc/self/fd/*; do readlink $f; done | grep -v -e pipe -e /proc/ | sort";
    let outside = ground.session.program(["sh", "-c", list]).run();
    assert_eq!(ground.shell(list).run().ok(), outside.ok());
}

fn the_host_name_and_its_files_are_the_hosts(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let output = ground.shell("hostname; cat /etc/hosts /etc/resolv.conf").run();
    let read = |path| fs_err::read_to_string(path).unwrap();
    let name = read("/proc/sys/kernel/hostname");
    assert_eq!(output.ok(), format!("{name}{}{}", read("/etc/hosts"), read("/etc/resolv.conf")));
}

fn a_file_of_another_owner_in_the_image_can_be_changed(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "cat /srv/data; echo changed > /srv/data && cat /srv/data && rm /srv/data";
    assert_eq!(ground.shell(script).run().ok(), "original\nchanged\n");
}

fn the_device_directory_is_minimal(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let output = ground.shell("ls /dev; echo x > /dev/null; head -c 3 /dev/zero | wc -c").run();
    let lines: Vec<&str> = output.ok().lines().collect();
    for name in ["null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "fd", "stdin"] {
        assert!(lines.contains(&name), "{name} in {output}");
    }
    for name in ["fuse", "loop0", "loop-control", "kmsg", "mem", "sda", "vda"] {
        assert!(!lines.contains(&name), "{name} in {output}");
    }
    assert_eq!(lines.last(), Some(&"3"));
    // As the host has them; and what root does to one is done to the container's own.
    let names = "/dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty";
    let list = format!("stat -c '%n %a %t:%T' {names}");
    let outside = ground.session.program(["sh", "-c", &list]).run();
    assert_eq!(ground.shell(&list).run().ok(), outside.ok());
    if who == Who::Root {
        let changed = ground.shell("chmod 600 /dev/full && stat -c %a /dev/full").run();
        assert_eq!(changed.ok(), "600\n");
        assert_eq!(ground.session.program(["sh", "-c", &list]).run().ok(), outside.ok());
    }
}

fn a_device_that_is_asked_for_is_there(who: Who, runtime: Runtime) {
    let ground = Ground::new(who, runtime);
    let script = "test -c /dev/fuse && test -c /dev/copy && stat -c '%t %T' /dev/copy";
    let options = ["--device", "/dev/fuse", "--device", "/dev/fuse:/dev/copy"];
    // The kernel's number of the device: misc (10), 229.
    let output = ground.run_with(&options, &["sh", "-c", script]).run();
    assert_eq!((output.ok(), output.stderr.as_str()), ("a e5\n", ""));
    let output = ground.run_with(&["--device", "/dev/fuse:r"], &["true"]).run();
    output.ok();
    assert!(output.stderr.contains("there is no device cgroup"), "{output}");
}

fn a_group_of_the_user_opens_what_it_opens_outside(who: Who, runtime: Runtime) {
    let mut ground = Ground::new(who, runtime);
    let Some(group) = ground.session.user().map(sarus_integration_tests::User::join_group) else {
        // Root opens it by its owner.
        return assert_eq!(ground.session.uid(), 0);
    };
    let file = ground.session.directory().join("of-a-group");
    fs_err::write(&file, "for the group\n").unwrap();
    std::os::unix::fs::chown(&file, Some(0), Some(group)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    fs_err::set_permissions(&file, mode).unwrap();
    let mount = format!("{}:/file", file.display());
    assert_eq!(ground.run_with(&["-v", &mount], &["cat", "/file"]).run().ok(), "for the group\n");
}
