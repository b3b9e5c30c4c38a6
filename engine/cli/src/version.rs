//! `sarus version` and `completion`.

use clap::CommandFactory;
use serde::Serialize;

use crate::args::{Arguments, CompletionArgs, Format, VersionArgs};
use crate::error::CliError;
use crate::output;

/// What `sarus version` says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    version: &'static str,
    target: String,
    profile: &'static str,
    launch_request: u32,
    store: u32,
}

/// `sarus version`
pub(crate) fn version(args: &VersionArgs) -> Result<(), CliError> {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        target: format!("{}-{}-{libc}", std::env::consts::ARCH, std::env::consts::OS),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
        launch_request: sarus_launch::REQUEST_VERSION,
        store: sarus_image::METADATA_VERSION,
    };
    match args.format {
        Format::Json => output::json(&version),
        Format::Table => output::text(&format!(
            "sarus {}\nbuild: {}, {}\nformats: launch request {}, store {}\n",
            version.version, version.target, version.profile, version.launch_request, version.store
        )),
    }
}

/// `sarus completion`
pub(crate) fn completion(args: &CompletionArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "sarus", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}
