//! Which signature policy applies: the user's, the site's, the system's.

use sarus_config::Config;
use sarus_image::ImageError;
use sarus_image::policy::{Policy, PolicyError};
use sarus_image::registry::Environment;

/// The policy for what is pulled or loaded.
///
/// `containersPolicy` takes the place of the system's file, and with `enforce` that of the
/// user's too; a file that the configuration names must exist. Without any file everything is let
/// in ([`Policy::accept_anything`]).
///
/// # Errors
///
/// A policy that cannot be read or parsed.
pub fn load(config: &Config, environment: &Environment) -> Result<Policy, ImageError> {
    find(config, environment).map_err(ImageError::from)
}

fn find(config: &Config, environment: &Environment) -> Result<Policy, PolicyError> {
    let site = config.containers_policy.as_ref();
    if let Some(site) = site.filter(|site| site.enforce) {
        return Policy::read(&site.path);
    }
    if let Some(policy) = Policy::first_of(&environment.user_policy_files())? {
        return Ok(policy);
    }
    match site {
        Some(site) => Policy::read(&site.path),
        None => Ok(Policy::first_of(&[environment.system_policy_file()])?
            .unwrap_or_else(Policy::accept_anything)),
    }
}
