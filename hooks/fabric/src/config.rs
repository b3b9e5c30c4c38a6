//! What the site has: the file that `FABRIC_CONFIG` names. Format: `docs/hooks/fabric.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sarus_hook::{Failure, site};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Config {
    version: u32,
    #[serde(default, rename = "$schema")]
    _schema: Option<String>,
    /// Whether a container that cannot have the fabric is refused.
    #[serde(default)]
    pub(crate) required: bool,
    pub(crate) libfabric: Option<Libfabric>,
    #[serde(default)]
    pub(crate) providers: Vec<Provider>,
    #[serde(default)]
    pub(crate) devices: Vec<Devices>,
    #[serde(default)]
    pub(crate) mounts: Vec<Mount>,
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
    pub(crate) aws_ofi_nccl: Option<Plugin>,
}

/// The site's own libfabric.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Libfabric {
    /// Its library; without it the image's is never replaced.
    pub(crate) library: Option<PathBuf>,
    #[serde(default)]
    pub(crate) replace: Replace,
    /// Directories of images in which libfabric is looked for after the loader's own.
    #[serde(default)]
    pub(crate) image_directories: Vec<PathBuf>,
}

/// When the image's libfabric is replaced by the site's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Replace {
    /// Where a provider cannot be used otherwise.
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Provider {
    /// As libfabric calls it: `cxi`.
    pub(crate) name: String,
    /// Its shared object; without it the provider is built into the site's libfabric.
    pub(crate) library: Option<PathBuf>,
    /// A node has the provider where one of them exists; every node, where none is named.
    #[serde(default)]
    pub(crate) devices: Vec<Devices>,
    #[serde(default)]
    pub(crate) mounts: Vec<Mount>,
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
}

/// Device nodes, by a pattern with `*` and `?`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Devices {
    Same(String),
    #[serde(rename_all = "camelCase")]
    Elsewhere {
        source: String,
        /// Directory in the container.
        directory: PathBuf,
    },
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Mount {
    Same(PathBuf),
    #[serde(rename_all = "camelCase")]
    Elsewhere {
        source: PathBuf,
        destination: PathBuf,
    },
}

impl Mount {
    pub(crate) fn paths(&self) -> (&Path, &Path) {
        match self {
            Self::Same(path) => (path, path),
            Self::Elsewhere { source, destination } => (source, destination),
        }
    }
}

/// NCCL's plug-in for libfabric.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Plugin {
    /// The variant taken where the annotation names none.
    pub(crate) default: Option<String>,
    pub(crate) variants: BTreeMap<String, Variant>,
}

/// The plug-in for one version of CUDA or ROCm.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Variant {
    pub(crate) library: PathBuf,
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
}

/// Parses and checks the text of a file.
pub(crate) fn parse(text: &str) -> Result<Config, String> {
    let config: Config = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if config.version != 1 {
        return Err(format!("`version` is {}: expected 1", config.version));
    }
    for path in paths(&config) {
        if !path.is_absolute() {
            return Err(format!("`{}` is not an absolute path", path.display()));
        }
    }
    let mut names: Vec<&str> = config.providers.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("provider `{}` is there twice", twice[0]));
    }
    let built_in = config.providers.iter().find(|provider| provider.library.is_none());
    if let Some(provider) = built_in
        && config.libfabric.as_ref().is_none_or(|libfabric| libfabric.library.is_none())
    {
        let name = &provider.name;
        return Err(format!("provider `{name}` has no `library`, and neither has `libfabric`"));
    }
    if let Some(plugin) = &config.aws_ofi_nccl
        && let Some(default) = &plugin.default
        && !plugin.variants.contains_key(default)
    {
        return Err(format!("`awsOfiNccl.default` is `{default}`: there is no such variant"));
    }
    Ok(config)
}

fn paths(config: &Config) -> Vec<&Path> {
    let mut paths = Vec::new();
    let every_devices =
        config.providers.iter().map(|provider| &provider.devices).chain([&config.devices]);
    for devices in every_devices.flatten() {
        match devices {
            Devices::Same(source) => paths.push(Path::new(source)),
            Devices::Elsewhere { source, directory } => {
                paths.extend([Path::new(source), directory]);
            }
        }
    }
    let every_mounts =
        config.providers.iter().map(|provider| &provider.mounts).chain([&config.mounts]);
    for mount in every_mounts.flatten() {
        let (source, destination) = mount.paths();
        paths.extend([source, destination]);
    }
    if let Some(libfabric) = &config.libfabric {
        paths.extend(libfabric.library.as_deref());
        paths.extend(libfabric.image_directories.iter().map(PathBuf::as_path));
    }
    paths.extend(config.providers.iter().filter_map(|provider| provider.library.as_deref()));
    let variants = config.aws_ofi_nccl.iter().flat_map(|plugin| plugin.variants.values());
    paths.extend(variants.map(|variant| variant.library.as_path()));
    paths
}

/// Reads the file; as root only where nobody else can have written it.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    let what = format!("cannot use the fabric's file `{}`", path.display());
    let hint = "`FABRIC_CONFIG` in the hook's file names it; format: docs/hooks/fabric.md";
    let text = site::read(path).map_err(|failure| failure.within(&what).hint(hint))?;
    parse(&text).map_err(|reason| Failure::new(what).because(reason).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_read() {
        let text = r#"{
            "$schema": "fabric.schema.json", "version": 1, "required": true,
            "libfabric": {"library": "/opt/lib/libfabric.so.1", "replace": "always"},
            "providers": [
                {"name": "cxi", "library": "/opt/lib/libcxi-fi.so", "devices": ["/dev/cxi*"],
                 "variables": {"FI_PROVIDER": "cxi"}},
                {"name": "verbs", "mounts": ["/etc/libibverbs.d"]}
            ],
            "devices": ["/dev/xpmem", {"source": "/x/gdr*", "directory": "/dev"}],
            "mounts": [{"source": "/a", "destination": "/b"}],
            "variables": {"A": "1"},
            "awsOfiNccl": {"default": "cuda12",
                           "variants": {"cuda12": {"library": "/opt/libnccl-net.so"}}}
        }"#;
        let config = parse(text).unwrap();
        assert_eq!(config.providers.len(), 2);
        assert_eq!(config.libfabric.unwrap().replace, Replace::Always);
        assert!(config.required);
        assert_eq!(parse(r#"{"version": 1}"#).unwrap().providers.len(), 0);
    }

    #[test]
    fn the_files_that_are_shown_are_good() {
        let page = include_str!("../../../docs/hooks/fabric.md");
        let shown = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next());
        for text in [include_str!("../../../etc/fabric.json"), shown.unwrap()] {
            assert_eq!(parse(text).unwrap().providers[0].name, "cxi");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("{}", "missing field `version`"),
            (r#"{"version": 2}"#, "`version` is 2: expected 1"),
            (r#"{"version": 1, "provider": []}"#, "unknown field `provider`"),
            (r#"{"version": 1, "devices": ["cxi*"]}"#, "`cxi*` is not an absolute path"),
            (
                r#"{"version": 1, "providers": [{"name": "cxi"}]}"#,
                "provider `cxi` has no `library`, and neither has `libfabric`",
            ),
            (
                r#"{"version": 1, "providers": [{"name": "a", "library": "/a"},
                                                {"name": "a", "library": "/b"}]}"#,
                "provider `a` is there twice",
            ),
            (
                r#"{"version": 1, "awsOfiNccl": {"default": "x", "variants": {}}}"#,
                "there is no such variant",
            ),
            (r#"{"version": 1, "libfabric": {"replace": "maybe"}}"#, "unknown variant `maybe`"),
        ] {
            let reason = parse(text).unwrap_err();
            assert!(reason.contains(said), "{text}: {reason}");
        }
    }
}
