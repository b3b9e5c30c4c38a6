//! `sarus login` and `logout`.

use std::io::{self, IsTerminal};

use sarus_image::ImageError;
use sarus_image::registry::{Client, Credentials, Environment, Options, RegistryError};
use sarus_image::registry::{log_out, save};

use crate::args::{LoginArgs, LogoutArgs};
use crate::error::CliError;
use crate::secret;
use crate::to_stderr;
use crate::usage::UsageError;

/// `sarus login`: credentials are kept only when the registry accepts them.
pub(crate) fn login(args: &LoginArgs) -> Result<(), CliError> {
    let registry = args.registry.as_str();
    let terminal = io::stdin().is_terminal();
    let user = match &args.username {
        Some(user) => user.clone(),
        None => secret::ask_user(registry, terminal)?,
    };
    if user.contains(':') {
        return Err(UsageError::UserWithColon { given: user }.into());
    }
    let password = if args.password_stdin {
        secret::read_all()?
    } else {
        secret::ask_password(registry, terminal)?
    };
    let credentials = Credentials::basic(&user, &password);
    let environment = Environment::of_process();
    let client = Client::new(Options::new(environment.clone())).map_err(failed)?;
    client.check_login(registry, &credentials).map_err(failed)?;
    let saved = save(&environment, registry, &credentials).map_err(failed)?;
    to_stderr(&format!("logged in to {registry}: kept in `{}`\n", saved.path.display()));
    if !saved.persistent {
        to_stderr("note: that file ends with your login session\n");
    }
    Ok(())
}

/// `sarus logout`
pub(crate) fn logout(args: &LogoutArgs) -> Result<(), CliError> {
    let registry = &args.registry;
    let changed = log_out(&Environment::of_process(), registry).map_err(failed)?;
    if changed.is_empty() {
        to_stderr(&format!("not logged in to {registry}\n"));
    }
    for path in changed {
        to_stderr(&format!("logged out of {registry}: removed from `{}`\n", path.display()));
    }
    Ok(())
}

fn failed(error: RegistryError) -> CliError {
    ImageError::from(error).into()
}
