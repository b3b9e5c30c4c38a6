//! Words of Docker, Podman and Apptainer that mean nothing here, and what takes their place. Pure.

/// Words and the advice that each of them gets.
type Table = &'static [(&'static [&'static str], &'static str)];

const COMMANDS: Table = &[
    (
        &["attach", "create", "logs", "restart", "start", "top", "wait"],
        "a container lives as long as its command, in the terminal or job that started it: `sarus run`, `sarus ps`",
    ),
    (&["rm", "container"], "containers leave nothing to remove; `sarus ps` lists those that run"),
    (&["stop"], "`sarus kill` ends a container"),
    (
        &["build", "commit", "push", "tag"],
        "images are made with other tools; then `sarus pull`, or `podman save IMAGE | sarus load`",
    ),
    (&["save"], "`sarus export` writes an image to a squashfs file"),
    (&["import"], "`sarus load` takes archives, root file systems, SIF and squashfs files"),
    (&["image", "list"], "`sarus images` lists images; there are `inspect`, `rmi` and `prune`"),
    (&["system"], "`sarus prune` frees what is not needed"),
    (&["info"], "`sarus version` and `sarus hooks` tell of the installation"),
    (&["shell"], "`sarus run -it IMAGE sh` starts a shell"),
    (&["cp"], "`sarus cat IMAGE PATH` prints a file; `sarus run -v` shares directories"),
];

const RUN: Table = &[
    (&["-u", "--user", "--userns"], "inside you are who you are outside"),
    (&["--group-add"], "your groups are kept"),
    (
        &["--network", "--net", "-p", "--publish", "--dns", "--add-host"],
        "the network is the host's, as MPI needs it",
    ),
    (&["--ipc", "--shm-size"], "`/dev/shm` and IPC are the host's, as MPI needs them"),
    (&["--hostname", "--uts"], "the name is the node's"),
    (
        &["--memory", "--cpus", "--cpuset-cpus", "--ulimit", "--cgroupns", "--cgroups"],
        "limits are the job's and the shell's: `srun --mem`, `--cpus-per-task`, `ulimit`",
    ),
    (
        &["--privileged", "--cap-add", "--cap-drop", "--security-opt"],
        "containers have no privileges; what the kernel filters is the site's to configure",
    ),
    (
        &["--gpus", "--nv", "--rocm", "--nvccli"],
        "the GPUs of the job come by the site's hooks (`sarus hooks`), or by name: `--device nvidia.com/gpu=all`",
    ),
    (
        &["-d", "--detach", "--restart"],
        "there is no daemon: a container in the background is `sarus run … &`, or a job",
    ),
    (&["-B", "--bind", "--volumes-from"], "`-v SOURCE:DESTINATION` shares a directory"),
    (&["--pwd"], "`-w` sets the working directory"),
    (
        &["--writable-tmpfs", "--writable"],
        "a container can write always; what it wrote goes with it",
    ),
    (&["--env-host"], "the host's variables are there"),
];

const PULL: Table = &[
    (
        &["--tls-verify", "--nohttps", "--no-https"],
        "`insecure = true` for that registry in registries.conf permits it",
    ),
    (&["--creds", "--docker-login"], "`sarus login` keeps credentials"),
    (&["--authfile"], "`REGISTRY_AUTH_FILE` names the file"),
    (&["--arch", "--os", "--variant"], "`--platform linux/arm64` chooses another platform"),
    (&["--policy", "--pull"], "a pull always asks; `sarus run --pull` has the choice"),
];

const PS: Table = &[(&["-a", "--all"], "containers that have ended leave nothing to list")];
const IMAGES: Table = &[(&["-a", "--all"], "all images are listed")];
const RMI: Table = &[(&["-a", "--all"], "`sarus prune --all` removes all that are not in use")];

/// What takes the place of an option of a subcommand, or, without one, of a subcommand.
pub(crate) fn advice(command: Option<&str>, word: &str) -> Option<&'static str> {
    let table = match command {
        None => COMMANDS,
        Some("run" | "exec") => RUN,
        Some("pull" | "load" | "login") => PULL,
        Some("ps") => PS,
        Some("images") => IMAGES,
        Some("rmi") => RMI,
        Some(_) => return None,
    };
    table.iter().find(|(words, _)| words.contains(&word)).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::args::Arguments;
    use crate::parse_error::report;

    #[test]
    fn no_word_means_something_here() {
        let mut program = Arguments::command();
        program.build();
        for word in COMMANDS.iter().flat_map(|(words, _)| *words) {
            assert!(program.find_subcommand(word).is_none(), "{word}");
        }
        let tables = [("run", RUN), ("pull", PULL), ("ps", PS), ("images", IMAGES), ("rmi", RMI)];
        for (name, table) in tables {
            let command = program.find_subcommand(name).unwrap();
            let known = |word: &str| {
                command.get_arguments().any(|argument| {
                    argument.get_long().is_some_and(|long| word == format!("--{long}"))
                        || argument.get_short().is_some_and(|short| word == format!("-{short}"))
                })
            };
            for word in table.iter().flat_map(|(words, _)| *words) {
                assert!(!known(word), "{name} {word}");
                assert_eq!(advice(Some(name), word).map(str::is_empty), Some(false));
            }
        }
    }

    #[test]
    fn words_of_other_engines_get_what_takes_their_place() {
        for (words, want) in [
            (&["run", "--gpus", "all", "x"][..], "hint: the GPUs of the job"),
            (&["run", "--net=host", "x"], "hint: the network is the host's"),
            (&["exec", "-u", "0", "x", "true"], "hint: inside you are who you are outside"),
            (&["rm", "x"], "hint: containers leave nothing"),
            (&["pull", "--tls-verify=false", "x"], "hint: `insecure = true`"),
            (&["run", "--volum", "x"], "hint: a similar argument exists: `--volume`"),
            (&["pul", "x"], "hint: a similar subcommand exists: `pull`"),
        ] {
            let line = std::iter::once(&"sarus").chain(words);
            let error = Arguments::command().try_get_matches_from(line).unwrap_err();
            let command =
                Some(words[0]).filter(|name| Arguments::command().find_subcommand(name).is_some());
            let said = report(&error, command);
            assert!(said.contains(want), "{words:?}: {said}");
            assert_eq!(said.lines().filter(|line| line.starts_with("hint: ")).count(), 1);
        }
    }
}
