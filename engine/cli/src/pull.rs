//! `sarus pull`, and the pull before a run.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use sarus_image::registry::{Client, Environment, Options, RegistryError};
use sarus_image::{
    Image, ImageError, Location, PARALLEL_DEFAULT, PullSettings, Pulled, Store, pull as pull_image,
    squash,
};
use sarus_oci::{Platform, Reference};
use sarus_sys::interrupt::Interrupt;

use crate::args::{CredentialArgs, PullArgs, ReportFormat};
use crate::error::CliError;
use crate::load::LoadJob;
use crate::policy;
use crate::progress::{Progress, Style};
use crate::secret::{self, AuthFile, Login};
use crate::settings::Settings;
use crate::{output, timing, to_stderr};

/// `sarus pull`
pub(crate) fn pull(args: &PullArgs) -> Result<(), CliError> {
    if let Some(location) = Location::with_transport(&args.reference) {
        let job = LoadJob {
            location,
            name: None,
            format: None,
            place: &args.place,
            temp_dir: args.temp_dir.as_deref(),
            quiet: args.quiet,
            timing: args.timing,
        };
        return job.run();
    }
    let settings = Settings::load()?;
    let reference = Reference::parse(&args.reference).map_err(ImageError::from)?;
    let store = settings.store(args.place.centralized_repository)?;
    if let Some(directory) = &args.temp_dir {
        log::info!("`--temp-dir={}` is not needed: nothing is unpacked", directory.display());
    }
    let login = login(&args.credentials, &reference)?;
    let style = if args.quiet { Style::Quiet } else { Style::of_stderr() };
    let job = PullJob { settings: &settings, store: &store, style, login };
    let _interrupt = abandon_when_interrupted(&store);
    let pulled = job.pull(&reference, &args.place.platform())?;
    let digest = &pulled.image.digest;
    match args.timing {
        Some(ReportFormat::Json) => {
            let image = (digest, pulled.up_to_date);
            return output::json(&timing::json(Some(&pulled.found_as), image, &pulled.timing));
        }
        Some(ReportFormat::Text) => to_stderr(&timing::text(&pulled.timing)),
        None => {}
    }
    if args.quiet {
        output::text(&format!("{digest}\n"))
    } else {
        output::text(&format!("{}  {digest}\n", pulled.found_as))
    }
}

/// One pull, with what it needs of the command line and the configuration.
pub(crate) struct PullJob<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) store: &'a Store,
    pub(crate) style: Style,
    pub(crate) login: Option<Login>,
}

impl PullJob<'_> {
    pub(crate) fn pull(
        self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Pulled, CliError> {
        let progress = Arc::new(Progress::new(self.style, &reference.to_string()));
        let notices = Arc::clone(&progress);
        let in_memory = |source| CliError::Input { what: "the credentials", source };
        let auth_file = self.login.as_ref().map(AuthFile::new).transpose().map_err(in_memory)?;
        let mut options = Options::new(environment(auth_file.as_ref()));
        options.registries_d.clone_from(&self.settings.config.containers_registries_d);
        options.notify = Arc::new(move |notice| notices.say(&notice.to_string()));
        let client = Client::new(options).map_err(ImageError::from)?;
        let settings = pull_settings(self.settings)?;
        let pulled = pull_image(&client, self.store, (reference, platform), &settings, &*progress);
        match pulled {
            Ok(pulled) => {
                progress.finish(&pulled);
                Ok(pulled)
            }
            Err(error) => {
                progress.abandon();
                Err(if auth_file.is_some() { name_origin(error) } else { error }.into())
            }
        }
    }
}

/// The process's environment, with the credentials of the command line in the place of the files'.
fn environment(auth_file: Option<&AuthFile>) -> Environment {
    let Some(auth_file) = auth_file else { return Environment::of_process() };
    let own = (OsString::from("REGISTRY_AUTH_FILE"), auth_file.path());
    Environment::new(std::env::vars_os().chain([own]), "/etc")
}

/// Credentials of the command line are called that in an error.
fn name_origin(mut error: ImageError) -> ImageError {
    if let ImageError::Registry(RegistryError::Unauthorized { origin: Some(origin), .. }) =
        &mut error
    {
        "the command line".clone_into(origin);
    }
    error
}

/// The image for a run, pulled without a word on standard output.
pub(crate) fn for_run(
    settings: &Settings,
    store: &Store,
    reference: &Reference,
    platform: &Platform,
) -> Result<Image, CliError> {
    let job = PullJob { settings, store, style: Style::of_stderr(), login: None };
    let _interrupt = abandon_when_interrupted(store);
    let umask = crate::keep_own_bits();
    let pulled = job.pull(reference, platform);
    // The container's is the caller's.
    rustix::process::umask(umask);
    Ok(pulled?.image)
}

/// While it lives, a signal that ends the command takes what is unfinished out of the store first: whoever
/// interrupts a pull may never come back, and others wait for its leases.
pub(crate) fn abandon_when_interrupted(store: &Store) -> Option<Interrupt> {
    let store = store.clone();
    let interrupt = Interrupt::before_end(move || store.abandon());
    interrupt.inspect_err(|error| log::debug!("signals end the command at once: {error}")).ok()
}

pub(crate) fn pull_settings(settings: &Settings) -> Result<PullSettings, CliError> {
    use sarus_config::Compression as Configured;
    let config = &settings.config;
    let compression = match config.squashfs.compression {
        Configured::Zstd { level } => squash::Compression::Zstd { level: level.into() },
        Configured::Gzip { level } => squash::Compression::Gzip { level: level.into() },
        Configured::Lz4 => squash::Compression::Lz4,
        Configured::None => squash::Compression::None,
    };
    let block_size = config.squashfs.block_size;
    Ok(PullSettings {
        squash: squash::Settings { compression, block_size, ..squash::Settings::default() },
        time: source_date_epoch(std::env::var_os("SOURCE_DATE_EPOCH").as_deref())?,
        parallel: PARALLEL_DEFAULT,
        blob_cache_bytes: config.blob_cache_size,
        removal_grace: config.removal_grace,
        policy: policy::load(config, &Environment::of_process())?,
    })
}

fn source_date_epoch(value: Option<&std::ffi::OsStr>) -> Result<Option<u32>, CliError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
    let given = value.to_string_lossy();
    given
        .parse()
        .map(Some)
        .map_err(|_number| CliError::SourceDateEpoch { given: given.into_owned() })
}

/// The credentials of the command line, for the registry that the reference leads to only.
fn login(args: &CredentialArgs, reference: &Reference) -> Result<Option<Login>, CliError> {
    if args.username.is_none() && !args.login {
        return Ok(None);
    }
    let client = Client::new(Options::new(Environment::of_process())).map_err(ImageError::from)?;
    let registry = &client.registry_of(reference).map_err(ImageError::from)?;
    let terminal = io::stdin().is_terminal();
    let (user, password) = match (&args.username, args.login) {
        (None, false) => return Ok(None),
        (Some(user), _) if args.password_stdin => (user.clone(), secret::read_all()?),
        (Some(user), _) => (user.clone(), secret::ask_password(registry, terminal)?),
        (None, true) => {
            let user = secret::ask_user(registry, terminal)?;
            (user, secret::ask_password(registry, terminal)?)
        }
    };
    Ok(Some(Login { registry: registry.to_owned(), user, password }))
}
