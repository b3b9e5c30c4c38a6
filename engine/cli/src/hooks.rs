//! `sarus hooks`: which hooks there are, and why each would or would not run.

use std::ffi::OsStr;

use sarus_config::hooks::{Directories, Hook, Occasion, load};
use sarus_image::{ImageError, Target};
use sarus_launch::MountSource;
use sarus_oci::Platform;
use serde::Serialize;

use crate::args::{Format, HooksArgs};
use crate::error::CliError;
use crate::output::{self, table};
use crate::settings::Settings;
use crate::{annotations, mounts};

/// One hook, as it is listed.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    file: String,
    path: String,
    args: Vec<String>,
    stages: Vec<&'static str>,
    runs: bool,
    reason: String,
}

/// `sarus hooks`
pub(crate) fn hooks(args: &HooksArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let hooks = load(&Directories::of(&settings.config))?;
    let default_mpi_type = settings.config.default_mpi_type.as_deref();
    let annotations = annotations::plan(&args.hooks, &args.annotation, default_mpi_type)?;
    let command = command(args, &settings)?;
    let occasion = Occasion {
        annotations: &annotations,
        command: &command,
        has_bind_mounts: !settings.config.site_mounts.is_empty() || has_bind_mounts(args)?,
    };
    let lines: Vec<Line> = hooks.iter().map(|hook| line(hook, &occasion)).collect();
    match args.format {
        Format::Json => output::json(&lines),
        Format::Table => output::text(&to_table(&lines)),
    }
}

fn line(hook: &Hook, occasion: &Occasion<'_>) -> Line {
    let decision = hook.decide(occasion);
    Line {
        name: hook.file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        file: hook.file.to_string_lossy().into_owned(),
        path: hook.path.to_string_lossy().into_owned(),
        args: hook.args.clone(),
        stages: hook.stages.iter().map(|stage| stage.name()).collect(),
        runs: decision.runs,
        reason: decision.reason,
    }
}

fn to_table(lines: &[Line]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            vec![
                line.name.clone(),
                line.path.clone(),
                line.stages.join(","),
                if line.runs { "yes" } else { "no" }.to_owned(),
                line.reason.clone(),
            ]
        })
        .collect();
    table(&["NAME", "PATH", "STAGES", "RUNS", "REASON"], &rows)
}

/// The command that conditions look at: the one given; of an image alone its default one, where
/// the store has the image; else none.
fn command(args: &HooksArgs, settings: &Settings) -> Result<String, CliError> {
    if let Some(command) = args.words.get(1) {
        return Ok(command.to_string_lossy().into_owned());
    }
    let Some(image) = args.words.first() else { return Ok(String::new()) };
    let Target::Reference(reference) = Target::find(OsStr::new(image))? else {
        return Ok(String::new());
    };
    let found = settings.stores(false)?.lookup(&reference, &Platform::host())?;
    let image = found.ok_or_else(|| ImageError::Missing { given: reference.to_string() })?;
    let config = image.metadata.config;
    let mut words = config.entrypoint.into_iter().chain(config.cmd).flatten();
    Ok(words.find(|word| !word.is_empty()).unwrap_or_default())
}

fn has_bind_mounts(args: &HooksArgs) -> Result<bool, CliError> {
    let cwd = std::env::current_dir().unwrap_or_default();
    for given in &args.mounts.mount {
        if matches!(mounts::parse_mount(given, &cwd)?.source, MountSource::Bind { .. }) {
            return Ok(true);
        }
    }
    Ok(!args.mounts.volume.is_empty())
}
