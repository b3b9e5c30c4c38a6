//! `sarus ssh-keygen`: gives way to the program of the hook that `--ssh` turns on, which knows what
//! keys it needs and where.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

use sarus_config::hooks::{Directories, Hook, Occasion, load};

use crate::annotations;
use crate::args::{HookArgs, SshKeygenArgs};
use crate::error::CliError;
use crate::settings::Settings;

/// Runs it in this process's place; returns only when that fails.
///
/// # Errors
///
/// Where the site has no such hook, or its program cannot be executed.
pub(crate) fn ssh_keygen(args: &SshKeygenArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let hooks = load(&Directories::of(&settings.config))?;
    let hook = find(&hooks)?.ok_or(CliError::NoSshHook)?;
    let mut command = Command::new(&hook.path);
    if let Some(name) = hook.args.first() {
        command.arg0(name);
    }
    command.arg("keygen");
    if args.overwrite {
        command.arg("--overwrite");
    }
    // As when it is called for a container.
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    log::debug!("executing {command:?}");
    sarus_sys::signals::restore_file_size_limit();
    let source = command.exec();
    Err(CliError::Program { path: hook.path.clone(), source })
}

/// The first hook that runs for `com.hooks.ssh.enabled` alone, and not without.
fn find(hooks: &[Hook]) -> Result<Option<&Hook>, CliError> {
    let ssh = HookArgs { ssh: true, ..HookArgs::default() };
    let mut on = annotations::plan(&ssh, &[], None)?;
    on.retain(|name, _| name == annotations::SSH);
    let off = BTreeMap::new();
    let runs = |hook: &Hook, annotations| {
        hook.decide(&Occasion { annotations, command: "", has_bind_mounts: false }).runs
    };
    Ok(hooks.iter().find(|hook| runs(hook, &on) && !runs(hook, &off)))
}
