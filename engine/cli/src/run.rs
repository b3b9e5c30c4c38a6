//! `sarus run`: finds the image, plans, and gives way to the shim.
//!
//! With the image in the store nothing here touches the network or lists a directory.

use std::ffi::OsStr;
use std::path::PathBuf;

use sarus_image::{Image, ImageError, Stores, Target};
use sarus_launch::{AccountNames, Device, Request};
use sarus_oci::Reference;

use crate::args::{Pull, RunArgs, Verbosity};
use crate::error::CliError;
use crate::plan::{Caller, ImageToRun};
use crate::settings::Settings;
use crate::{explain, launch, plan, pull, to_stderr, variables};

/// Runs a container in this process's place; returns only when that fails.
///
/// # Errors
///
/// Whatever keeps the shim from taking over.
pub(crate) fn run(args: &RunArgs, verbosity: Verbosity) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let image = find(args, &settings)?;
    let cwd = std::env::current_dir();
    let mut caller = Caller {
        env: std::env::vars_os().collect(),
        cwd: cwd.as_ref().map_or_else(|_| PathBuf::from("/"), PathBuf::clone),
        program: std::env::current_exe().ok(),
        account: account(),
        default_mpi_type: settings.config.default_mpi_type.clone(),
    };
    let files = &args.environment.env_file;
    let env_files =
        files.iter().map(|path| variables::read(path)).collect::<Result<Vec<_>, _>>()?;
    let request = plan::request(args, verbosity, &caller, &image, &env_files)?;
    if let Err(source) = cwd {
        // A directory that is gone matters only to what depends on it.
        caller.cwd.push("elsewhere");
        if plan::request(args, verbosity, &caller, &image, &env_files)? != request {
            return Err(CliError::WorkingDirectory { source });
        }
    }
    warn_of_letters(&request);
    match args.explain {
        None => Err(launch::exec(&request).into()),
        Some(format) => explain::print(&launch::explain(&request)?, format),
    }
}

/// Whoever takes a right on a device away must know that it is not taken away.
fn warn_of_letters(request: &Request) {
    let withheld = |device: &&Device| !(device.access.read && device.access.write);
    for device in request.devices.iter().filter(withheld) {
        to_stderr(&format!(
            "warning: the container can use `{}` as you can on the host: there is no device cgroup \
             that would enforce the letters of `--device`\n",
            device.source.to_string_lossy()
        ));
    }
}

/// Finds the image that the command line names, and pulls it where `--pull` says so.
fn find(args: &RunArgs, settings: &Settings) -> Result<ImageToRun, CliError> {
    let given = args.words.first().map_or(OsStr::new(""), |word| word.as_os_str());
    let text = given.to_string_lossy();
    let stored = |name: &dyn ToString, image: Image| ImageToRun {
        squashfs: image.squashfs,
        offset: 0,
        name: name.to_string(),
        digest: Some(image.digest.to_string()),
        execution: image.metadata.config,
    };
    match Target::find(given) {
        Ok(Target::File(file)) => Ok(ImageToRun {
            name: file.path.to_string_lossy().into_owned(),
            squashfs: file.path,
            offset: file.offset,
            execution: file.execution,
            digest: None,
        }),
        Ok(Target::Reference(reference)) => match by_id(args, settings, (&text, Some(&reference)))?
        {
            Some(image) => Ok(stored(&text, image)),
            None => Ok(stored(&reference, image_of(args, settings, &reference)?)),
        },
        Err(error) => match by_id(args, settings, (&text, None))? {
            Some(image) => Ok(stored(&text, image)),
            None => Err(error.into()),
        },
    }
}

/// The image whose id the text is, unless the store has one of that name or it is to be pulled.
fn by_id(
    args: &RunArgs,
    settings: &Settings,
    (text, reference): (&str, Option<&Reference>),
) -> Result<Option<Image>, CliError> {
    if !Stores::is_id(text) {
        return Ok(None);
    }
    let stores = settings.stores(args.place.centralized_repository)?;
    if let Some(reference) = reference
        && (args.pull == Pull::Always
            || stores.lookup(reference, &args.place.platform())?.is_some())
    {
        return Ok(None);
    }
    Ok(stores.by_id(text)?)
}

fn image_of(args: &RunArgs, settings: &Settings, reference: &Reference) -> Result<Image, CliError> {
    let stores = settings.stores(args.place.centralized_repository)?;
    let platform = args.place.platform();
    // What is pulled anyway is not looked at: a damaged image would keep it from being mended.
    let present = match args.pull {
        Pull::Always if args.explain.is_none() => None,
        _ => stores.lookup(reference, &platform)?,
    };
    let store = || settings.store(args.place.centralized_repository);
    let pull = || pull::for_run(settings, &store()?, reference, &platform);
    // Nothing is done but to look.
    let when = if args.explain.is_some() { Pull::Never } else { args.pull };
    match (when, present) {
        (Pull::Missing | Pull::Never, Some(image)) => Ok(image),
        (Pull::Never, None) => Err(ImageError::Missing { given: reference.to_string() }.into()),
        (Pull::Newer, Some(image)) => match pull() {
            Err(CliError::Image(ImageError::Registry(error))) => {
                to_stderr(&format!("note: using the image of the store: {error}\n"));
                Ok(image)
            }
            other => other,
        },
        (Pull::Missing | Pull::Newer, None) | (Pull::Always, _) => pull(),
    }
}

/// What the host's user database says of the user: one look-up, here and not in the shim, since a
/// data base may load libraries of its own.
fn account() -> Option<AccountNames> {
    let user = sarus_sys::users::user(rustix::process::getuid().as_raw())?;
    let first = rustix::process::getgid().as_raw();
    let others = rustix::process::getgroups().unwrap_or_default();
    let ids = std::iter::once(first).chain(others.into_iter().map(rustix::fs::Gid::as_raw));
    let named = ids.filter_map(|gid| Some((gid, sarus_sys::users::group_name(gid)?)));
    Some(AccountNames {
        groups: named.collect(),
        name: user.name,
        gecos: user.gecos,
        home: user.home,
        shell: user.shell,
    })
}
