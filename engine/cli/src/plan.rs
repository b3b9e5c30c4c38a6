//! From the words of `sarus run` to the launch request. Pure: what the process and the disk have
//! to say comes in as values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use sarus_launch::{
    AccountNames, Command, Image, Mount, Namespaces, REQUEST_VERSION, RawString, Request,
};
use sarus_oci::Execution;

use crate::args::{RunArgs, Verbosity};
use crate::usage::UsageError;
use crate::variables::{self, EnvFile};
use crate::{annotations, mounts};

/// What planning needs to know of the calling process and the site.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// All variables.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// This program, absolute, where known.
    pub program: Option<PathBuf>,
    /// What the host's user database says of the user.
    pub account: Option<AccountNames>,
    /// The site's MPI type for those who name none.
    pub default_mpi_type: Option<String>,
}

/// An image that was found, and how it wants to be run.
#[derive(Debug, Clone, Default)]
pub struct ImageToRun {
    /// The squashfs file, absolute.
    pub squashfs: PathBuf,
    /// Byte of it at which the image begins.
    pub offset: u64,
    /// As the user named it, completed.
    pub name: String,
    /// Digest of the platform's manifest; none for a file.
    pub digest: Option<String>,
    /// The image's own settings; empty for a file.
    pub execution: Execution,
}

/// Plans a run.
///
/// # Errors
///
/// The first word that cannot be used; no command.
pub fn request(
    args: &RunArgs,
    verbosity: Verbosity,
    caller: &Caller,
    image: &ImageToRun,
    env_files: &[EnvFile],
) -> Result<Request, UsageError> {
    let request = Request {
        version: REQUEST_VERSION,
        name: args.container.name.as_deref().map(|name| name_of_task(name, caller)),
        image: Image {
            squashfs: RawString::from(image.squashfs.clone()),
            offset: image.offset,
            name: image.name.clone(),
            digest: image.digest.clone(),
            env: image.execution.env.clone(),
            workdir: image.execution.working_dir.clone().filter(|dir| !dir.is_empty()),
        },
        command: Command {
            args: command(args, image)?,
            workdir: args.process.workdir.clone().map(RawString::from),
        },
        account: caller.account.clone(),
        writable_dir: args
            .container
            .writable_dir
            .as_ref()
            .map(|path| RawString::from(caller.cwd.join(path))),
        host_env: caller.env.iter().map(|(name, value)| variables::join(name, value)).collect(),
        env: environment(args, caller, env_files)?,
        mounts: all_mounts(args, caller)?,
        devices: args
            .mounts
            .device
            .iter()
            .filter(|given| !mounts::is_cdi_device(given))
            .map(|given| mounts::parse_device(given))
            .collect::<Result<_, _>>()?,
        annotations: all_annotations(args, caller)?,
        namespaces: Namespaces {
            pid: annotations::has_private_pid(&args.hooks, args.process.pid)?,
        },
        read_only: args.container.read_only,
        init: args.process.init,
        tty: args.process.tty,
        runtime: args.container.runtime.as_deref().map(|given| runtime(given, caller)),
        engine: caller.program.clone().map(RawString::from),
        verbosity: verbosity_level(verbosity),
    };
    request.check()?;
    Ok(request)
}

/// All tasks of a step have the same command line, but no two containers the same name: the task's
/// number is added where there are several.
fn name_of_task(name: &str, caller: &Caller) -> String {
    let number = |name: &str| {
        let value = caller.env.iter().find(|(known, _)| known == name)?;
        value.1.to_str()?.parse::<u64>().ok()
    };
    let task =
        sarus_launch::TASKS.iter().find_map(|(rank, size)| Some((number(rank)?, number(size)?)));
    match task {
        Some((rank, 2..)) => format!("{name}.{rank}"),
        _ => name.to_owned(),
    }
}

/// 0: warnings only; 1: what is done (`--verbose`); 2: in every detail (`--debug`).
pub fn verbosity_level(verbosity: Verbosity) -> u8 {
    if verbosity.debug { 2 } else { u8::from(verbosity.verbose) }
}

/// Docker's rules: the entrypoint, then the arguments given, else the image's default ones.
/// `--entrypoint` replaces the entrypoint and drops the default arguments; an empty one leaves
/// none.
fn command(args: &RunArgs, image: &ImageToRun) -> Result<Vec<RawString>, UsageError> {
    let execution = &image.execution;
    let given = &args.words[1.min(args.words.len())..];
    // A list with one empty word is how Docker stores "no entrypoint".
    let own = execution.entrypoint.as_deref().filter(|words| *words != [""]).unwrap_or_default();
    let mut command: Vec<RawString> = match &args.process.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![RawString::from(program.clone())],
        None => own.iter().map(|word| RawString::from(word.clone())).collect(),
    };
    if !given.is_empty() {
        command.extend(given.iter().cloned().map(RawString::from));
    } else if args.process.entrypoint.is_none() {
        let default = execution.cmd.as_deref().unwrap_or_default();
        command.extend(default.iter().map(|word| RawString::from(word.clone())));
    }
    if command.is_empty() {
        return Err(UsageError::NoCommand { image: image.name.clone() });
    }
    Ok(command)
}

/// Files first, then `-e`, each in the order given: the later one of a name wins.
fn environment(
    args: &RunArgs,
    caller: &Caller,
    env_files: &[EnvFile],
) -> Result<Vec<RawString>, UsageError> {
    let mut variables = Vec::new();
    for file in env_files {
        variables.extend(variables::from_file(file, &caller.env)?);
    }
    variables.extend(variables::from_options(&args.environment.env, &caller.env)?);
    Ok(variables)
}

/// A CDI device is for a hook to give, so it is an annotation, as CDI has it.
fn all_annotations(
    args: &RunArgs,
    caller: &Caller,
) -> Result<BTreeMap<String, String>, UsageError> {
    let given = &args.container.annotation;
    let mut annotations =
        annotations::plan(&args.hooks, given, caller.default_mpi_type.as_deref())?;
    let devices = args.mounts.device.iter().filter(|given| mounts::is_cdi_device(given));
    let devices: Vec<_> = devices.map(|device| device.to_string_lossy()).collect();
    if !devices.is_empty() {
        annotations.insert(annotations::CDI.to_owned(), devices.join(","));
    }
    Ok(annotations)
}

/// As with Docker, nothing hides what is asked for: a mount comes before those below it, and two
/// different ones at one place are refused.
fn all_mounts(args: &RunArgs, caller: &Caller) -> Result<Vec<Mount>, UsageError> {
    let volumes = args.mounts.volume.iter().map(|given| mounts::parse_volume(given, &caller.cwd));
    let mounts = args.mounts.mount.iter().map(|given| mounts::parse_mount(given, &caller.cwd));
    let tmpfs = args.mounts.tmpfs.iter().map(|given| mounts::parse_tmpfs(given));
    let mut all = Vec::<Mount>::new();
    for mount in tmpfs.chain(volumes).chain(mounts) {
        let mount = mount?;
        let place = |mount: &Mount| PathBuf::from(mount.destination.as_os_str());
        match all.iter().find(|other| place(other).components().eq(place(&mount).components())) {
            None => all.push(mount),
            Some(same) if same.source == mount.source && same.read_only == mount.read_only => {}
            Some(_) => return Err(UsageError::DestinationTwice { destination: place(&mount) }),
        }
    }
    all.sort_by_key(|mount| PathBuf::from(mount.destination.as_os_str()).components().count());
    Ok(all)
}

/// A name stays one; a path becomes absolute.
fn runtime(given: &str, caller: &Caller) -> String {
    if given.contains('/') {
        caller.cwd.join(given).to_string_lossy().into_owned()
    } else {
        given.to_owned()
    }
}
