//! What a specification says: its types, and the rules that each value obeys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::name::{check_annotations, check_device, parse_kind};
use super::version;

/// Largest specification that is read, in bytes.
pub(crate) const FILE_SIZE_MAX: u64 = 8 << 20;

/// Stages at which hooks may be added.
const STAGES: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// One file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Spec {
    pub(crate) cdi_version: String,
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) devices: Vec<Device>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) container_edits: Edits,
}

/// One device of a file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Device {
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) container_edits: Edits,
}

/// What is done to a container.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Edits {
    #[serde(deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) device_nodes: Vec<Node>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) net_devices: Vec<NetDevice>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) mounts: Vec<Mount>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) hooks: Vec<Hook>,
    pub(crate) intel_rdt: Option<IntelRdt>,
    #[serde(alias = "additionalGIDs", deserialize_with = "or_default")]
    pub(crate) additional_gids: Vec<u32>,
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    #[serde(default)]
    pub(crate) host_path: Option<PathBuf>,
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) major: Option<i64>,
    #[serde(default)]
    pub(crate) minor: Option<i64>,
    #[serde(default)]
    pub(crate) file_mode: Option<u32>,
    #[serde(default)]
    pub(crate) permissions: Option<String>,
    #[serde(default)]
    pub(crate) uid: Option<u32>,
    #[serde(default)]
    pub(crate) gid: Option<u32>,
}

/// A network interface of the host (1.1.0).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NetDevice {
    pub(crate) host_interface_name: String,
    #[serde(rename = "name")]
    pub(crate) _name: String,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Mount {
    pub(crate) host_path: PathBuf,
    pub(crate) container_path: PathBuf,
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) options: Vec<String>,
}

/// An OCI hook.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Hook {
    pub(crate) hook_name: String,
    pub(crate) path: PathBuf,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) args: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) env: Vec<String>,
    /// Seconds.
    #[serde(default)]
    pub(crate) timeout: Option<i64>,
}

/// Shares of the processor's cache and memory bandwidth.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct IntelRdt {
    #[serde(rename = "closID")]
    pub(crate) clos_id: Option<String>,
    pub(crate) l3_cache_schema: Option<String>,
    pub(crate) mem_bw_schema: Option<String>,
    #[serde(rename = "enableCMT")]
    pub(crate) enable_cmt: Option<bool>,
    #[serde(rename = "enableMBM")]
    pub(crate) enable_mbm: Option<bool>,
    pub(crate) schemata: Option<Vec<String>>,
    pub(crate) enable_monitoring: Option<bool>,
}

/// A member that is null, as YAML writes an empty one, is as one that is absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// How a file is written, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
}

/// Parses and checks a specification. The error says in words what is wrong, and where.
pub(crate) fn parse(text: &str, format: Format) -> Result<Spec, String> {
    let spec: Spec = match format {
        Format::Json => serde_json::from_str(text).map_err(|error| error.to_string())?,
        Format::Yaml => {
            // As other engines read it: `fileMode: 0660` is octal.
            let options = serde_saphyr::options! { legacy_octal_numbers: true };
            serde_saphyr::from_str_with_options(text, options)
                .map_err(|error| error.without_snippet().to_string())?
        }
    };
    check(&spec)?;
    Ok(spec)
}

/// The device nodes, mounts and so on of all parts, each with its place in the file.
pub(crate) fn parts(spec: &Spec) -> impl Iterator<Item = (String, &Edits)> {
    let devices = spec.devices.iter().enumerate();
    let devices = devices
        .map(|(at, device)| (format!("devices[{at}].containerEdits"), &device.container_edits));
    devices.chain([("containerEdits".to_owned(), &spec.container_edits)])
}

fn check(spec: &Spec) -> Result<(), String> {
    let at = |place: &str| {
        let place = place.to_owned();
        move |reason: String| format!("`{place}`: {reason}")
    };
    version::check(spec)?;
    parse_kind(&spec.kind).map_err(at("kind"))?;
    check_annotations(&spec.annotations).map_err(at("annotations"))?;
    if spec.devices.is_empty() {
        return Err("`devices`: at least one is required".to_owned());
    }
    let mut names = BTreeSet::new();
    for (number, device) in spec.devices.iter().enumerate() {
        let place = format!("devices[{number}]");
        check_device(&device.name).map_err(at(&format!("{place}.name")))?;
        check_annotations(&device.annotations).map_err(at(&format!("{place}.annotations")))?;
        if !names.insert(&device.name) {
            return Err(format!("`{place}.name`: `{}` is there twice", device.name));
        }
    }
    parts(spec).try_for_each(|(place, edits)| check_edits(&place, edits))
}

fn check_edits(place: &str, edits: &Edits) -> Result<(), String> {
    let at = |list: &str, number: usize| {
        let place = format!("{place}.{list}[{number}]");
        move |reason: String| format!("`{place}`: {reason}")
    };
    for (number, entry) in edits.env.iter().enumerate() {
        check_variable(entry).map_err(at("env", number))?;
    }
    for (number, node) in edits.device_nodes.iter().enumerate() {
        check_node(node).map_err(at("deviceNodes", number))?;
    }
    for (number, mount) in edits.mounts.iter().enumerate() {
        check_mount(mount).map_err(at("mounts", number))?;
    }
    for (number, hook) in edits.hooks.iter().enumerate() {
        check_hook(hook).map_err(at("hooks", number))?;
    }
    let rdt = edits.intel_rdt.as_ref().and_then(|rdt| rdt.clos_id.as_deref());
    if let Some(id) = rdt.filter(|id| id.contains(['/', '\n']) || [".", ".."].contains(id)) {
        return Err(format!("`{place}.intelRdt.closID`: `{id}` is no name of a directory"));
    }
    Ok(())
}

fn check_variable(entry: &str) -> Result<(), String> {
    match entry.split_once('=') {
        Some((name, _)) if !name.is_empty() && !entry.contains('\0') => Ok(()),
        _ => Err(format!("expected `NAME=VALUE`, got `{entry}`")),
    }
}

fn check_absolute(key: &str, path: &std::path::Path) -> Result<(), String> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(format!("`{key}` must be an absolute path, got `{}`", path.display()))
}

fn check_node(node: &Node) -> Result<(), String> {
    check_absolute("path", &node.path)?;
    if let Some(path) = node.host_path.as_deref().filter(|path| *path != "") {
        check_absolute("hostPath", path)?;
    }
    let kind = node.kind.as_deref().unwrap_or_default();
    if !["", "b", "c", "u", "p"].contains(&kind) {
        return Err(format!("`type` must be b, c, u or p, got `{kind}`"));
    }
    for (key, number) in [("major", node.major), ("minor", node.minor)] {
        if let Some(number) = number.filter(|number| u32::try_from(*number).is_err()) {
            return Err(format!("`{key}` is no device number: {number}"));
        }
    }
    let permissions = node.permissions.as_deref().unwrap_or_default();
    if permissions != "none" && permissions.chars().any(|letter| !"rwm".contains(letter)) {
        return Err(format!("`permissions` must be some of r, w and m, got `{permissions}`"));
    }
    Ok(())
}

fn check_mount(mount: &Mount) -> Result<(), String> {
    if mount.host_path.as_os_str().is_empty() {
        return Err("`hostPath` is empty".to_owned());
    }
    check_absolute("containerPath", &mount.container_path)
}

fn check_hook(hook: &Hook) -> Result<(), String> {
    if !STAGES.contains(&hook.hook_name.as_str()) {
        let known = STAGES.join(", ");
        return Err(format!("`hookName` must be one of {known}, got `{}`", hook.hook_name));
    }
    check_absolute("path", &hook.path)?;
    hook.env.iter().try_for_each(|entry| check_variable(entry))?;
    match hook.timeout {
        Some(seconds) if seconds <= 0 => Err(format!("`timeout` must be above 0, got {seconds}")),
        _ => Ok(()),
    }
}
