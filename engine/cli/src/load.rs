//! `sarus load`, and `sarus pull` from where no registry is.

use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sarus_image::{Format, ImageError, LoadRequest, Loaded, Location, Place, load as load_images};
use sarus_oci::Reference;

use crate::args::{LoadArgs, PlaceArgs, ReportFormat};
use crate::error::CliError;
use crate::progress::{Progress, Style};
use crate::pull::{abandon_when_interrupted, pull_settings};
use crate::settings::Settings;
use crate::usage::UsageError;
use crate::{output, timing, to_stderr};

/// `sarus load`
pub(crate) fn load(args: &LoadArgs) -> Result<(), CliError> {
    let (file, name) = words(args)?;
    let name = name.map(Reference::parse).transpose().map_err(ImageError::from)?;
    let job = LoadJob {
        location: Location::of_argument(file.as_deref().unwrap_or(Path::new("-"))),
        name,
        format: args.format,
        place: &args.place,
        temp_dir: args.temp_dir.as_deref(),
        quiet: args.quiet,
        timing: args.timing,
    };
    job.run()
}

/// File and name: `FILE [NAME]`, or `--input FILE [NAME]`; standard input without a file.
fn words(args: &LoadArgs) -> Result<(Option<PathBuf>, Option<&str>), UsageError> {
    let (file, rest) = match (&args.input, args.words.split_first()) {
        (Some(file), _) => (Some(file.clone()), args.words.as_slice()),
        (None, Some((file, rest))) => (Some(PathBuf::from(file)), rest),
        (None, None) => (None, args.words.as_slice()),
    };
    match rest {
        [] => Ok((file, None)),
        [name] => match name.to_str() {
            Some(name) => Ok((file, Some(name))),
            None => Err(UsageError::LoadName { given: name.to_string_lossy().into_owned() }),
        },
        [_, more, ..] => Err(UsageError::LoadName { given: more.to_string_lossy().into_owned() }),
    }
}

/// One load, with what it needs of the command line.
pub(crate) struct LoadJob<'a> {
    pub(crate) location: Location,
    pub(crate) name: Option<Reference>,
    pub(crate) format: Option<Format>,
    pub(crate) place: &'a PlaceArgs,
    pub(crate) temp_dir: Option<&'a Path>,
    pub(crate) quiet: bool,
    pub(crate) timing: Option<ReportFormat>,
}

impl LoadJob<'_> {
    /// Loads, and prints a line for each name: the name and the image's digest, or with `quiet`
    /// the digest alone; with `--timing=json` one object for each image instead.
    pub(crate) fn run(self) -> Result<(), CliError> {
        let settings = Settings::load()?;
        let store = settings.store(self.place.centralized_repository)?;
        let input = self.input()?;
        let interrupt = abandon_when_interrupted(&store);
        let style = if self.quiet { Style::Quiet } else { Style::of_stderr() };
        let label = match &self.location.place {
            Place::Input => "standard input".to_owned(),
            Place::Path(path) => path.display().to_string(),
            Place::Storage(name) => name.clone(),
        };
        let progress = Progress::new(style, &label);
        let spool = self.temp_dir.or(settings.config.temp_dir.as_deref());
        let request = LoadRequest {
            location: self.location,
            name: self.name,
            format: self.format,
            platform: self.place.platform(),
            spool: sarus_sys::scratch::parent(spool),
        };
        let pull_settings = pull_settings(&settings)?;
        let loaded = load_images(&request, input, &store, &pull_settings, &progress);
        drop(interrupt);
        let loaded = loaded.inspect_err(|_| progress.abandon())?;
        for Loaded { image, names, up_to_date, timing } in loaded {
            let digest = &image.digest;
            progress.done(&image, up_to_date);
            match self.timing {
                Some(ReportFormat::Json) => {
                    let report = timing::json(names.first(), (digest, up_to_date), &timing);
                    output::json(&report)?;
                    continue;
                }
                Some(ReportFormat::Text) => to_stderr(&timing::text(&timing)),
                None => {}
            }
            let lines = names.iter().map(|name| match self.quiet {
                true => format!("{digest}\n"),
                false => format!("{name}  {digest}\n"),
            });
            output::text(&lines.collect::<String>())?;
        }
        Ok(())
    }

    /// Standard input, where it is to be read.
    fn input(&self) -> Result<Option<File>, CliError> {
        if self.location.place != Place::Input {
            return Ok(None);
        }
        let input = std::io::stdin();
        if input.is_terminal() {
            return Err(UsageError::NoArchive.into());
        }
        let copy = input.as_fd().try_clone_to_owned();
        let failed = |source| CliError::Input { what: "the image", source };
        Ok(Some(File::from(copy.map_err(failed)?)))
    }
}
