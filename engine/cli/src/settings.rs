//! What a command takes from the configuration and the environment: stores, settings.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use sarus_config::{Config, ConfigError, Parsed, SYSTEM_CONFIG, config_home, load_for_user};
use sarus_image::{Store, Stores};

use crate::error::CliError;

fn read_configuration() -> Result<Parsed, ConfigError> {
    let var = |name: &str| std::env::var_os(name);
    let home = config_home(var("XDG_CONFIG_HOME").as_deref(), var("HOME").as_deref());
    load_for_user(Path::new(SYSTEM_CONFIG), home.as_deref())
}

/// `tempDir` of the configuration; none also where the configuration is not valid.
pub(crate) fn temporary_directory() -> Option<PathBuf> {
    read_configuration().ok().and_then(|parsed| parsed.config.temp_dir)
}

/// Configuration and stores of the caller.
#[derive(Debug)]
pub struct Settings {
    /// The settings in force.
    pub config: Config,
    /// None where nothing says where the caller's home is.
    own_store: Option<PathBuf>,
}

impl Settings {
    /// Loads the site's and the user's configuration.
    ///
    /// # Errors
    ///
    /// A file that is not valid.
    pub fn load() -> Result<Self, CliError> {
        let var = |name: &str| std::env::var_os(name);
        let parsed = read_configuration()?;
        for note in &parsed.notes {
            log::info!("{note}");
        }
        for path in &parsed.unread {
            log::info!("`{}` is another user's and is not read", path.display());
        }
        Ok(Self::new(parsed.config, &var))
    }

    /// Settings for a configuration and an environment.
    pub fn new(config: Config, var: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let data_home = data_home(var("XDG_DATA_HOME").as_deref(), var("HOME").as_deref());
        let configured = config.store_dir.is_some() || config.local_repository_base_dir.is_some();
        let own_store = (data_home.is_some() || configured)
            .then(|| config.user_store(&user_name(var), &data_home.unwrap_or_default()));
        Self { config, own_store }
    }

    fn own_store(&self) -> Result<Store, CliError> {
        self.own_store.as_ref().map(Store::open).ok_or(CliError::NoHome)
    }

    /// The stores to look images up in: the site's alone, or the user's, then the site's, then
    /// the additional ones.
    ///
    /// # Errors
    ///
    /// [`CliError::NoSiteStore`], [`CliError::NoHome`]
    pub fn stores(&self, centralized: bool) -> Result<Stores, CliError> {
        let site = self.config.centralized_repository_dir.clone().map(Store::open_read_only);
        match (centralized, site) {
            (true, Some(site)) => Ok(Stores::new(site, None)),
            (true, None) => Err(CliError::NoSiteStore),
            (false, site) => {
                let additional = self.config.additional_stores.iter().map(Store::open_read_only);
                Ok(Stores::new(self.own_store()?, site.into_iter().chain(additional)))
            }
        }
    }

    /// The store to write to: the user's, or the site's.
    ///
    /// # Errors
    ///
    /// [`CliError::NoSiteStore`], [`CliError::NoHome`]
    pub fn store(&self, centralized: bool) -> Result<Store, CliError> {
        if !centralized {
            return self.own_store();
        }
        let site = self.config.centralized_repository_dir.clone().ok_or(CliError::NoSiteStore)?;
        Ok(Store::open_shared(site))
    }
}

/// `$XDG_DATA_HOME`, else `~/.local/share`; what is not absolute is no value.
fn data_home(xdg: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute = |value: &OsStr| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    xdg.and_then(absolute).or_else(|| home.and_then(absolute).map(|home| home.join(".local/share")))
}

/// The name in the path of a store below `localRepositoryBaseDir`. No right depends on it: the
/// directory is opened as the user.
fn user_name(var: &dyn Fn(&str) -> Option<OsString>) -> String {
    let is_name = |name: &String| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    ["USER", "LOGNAME"]
        .into_iter()
        .filter_map(|name| var(name)?.into_string().ok())
        .find(is_name)
        .unwrap_or_else(|| rustix::process::getuid().as_raw().to_string())
}
