//! What this node has of what the site configured: devices that exist, libraries with all that
//! they need.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use sarus_hook::elf::Elf;
use sarus_hook::libraries::{Loader, is_of_libc};
use sarus_hook::{Failure, Root};

use crate::config::{Config, Devices, Plugin, Provider, Variant};

/// The name by which programs ask for libfabric.
pub(crate) const LIBFABRIC: &str = "libfabric.so.1";

/// A library of the host.
#[derive(Debug, Clone)]
pub(crate) struct Library {
    /// The name by which it is asked for.
    pub(crate) name: String,
    /// Where it is, without links.
    pub(crate) path: PathBuf,
    pub(crate) elf: Rc<Elf>,
}

/// A library and those that it needs, without the C library's and libfabric.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The first is the one that the site named.
    pub(crate) libraries: Vec<Library>,
    /// In words, what this node lacks itself.
    pub(crate) missing: Vec<String>,
}

impl Files {
    /// The library that the site named.
    pub(crate) fn first(&self) -> &Library {
        &self.libraries[0]
    }

    /// The versions of libfabric that the library is linked with.
    pub(crate) fn libfabric_versions(&self) -> impl Iterator<Item = &String> {
        self.first().elf.versions_needed.get(LIBFABRIC).into_iter().flatten()
    }
}

/// Device nodes: path on the host and in the container.
pub(crate) type Nodes = Vec<(PathBuf, PathBuf)>;

/// A provider whose hardware is there.
#[derive(Debug)]
pub(crate) struct NodeProvider<'c> {
    pub(crate) config: &'c Provider,
    pub(crate) devices: Nodes,
    /// None where it is part of the site's libfabric.
    pub(crate) files: Option<Files>,
}

/// The plug-in of NCCL that was chosen.
#[derive(Debug)]
pub(crate) struct NodePlugin<'c> {
    pub(crate) name: String,
    pub(crate) variant: &'c Variant,
    pub(crate) files: Files,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Node<'c> {
    pub(crate) providers: Vec<NodeProvider<'c>>,
    pub(crate) libfabric: Option<Files>,
    pub(crate) plugin: Option<NodePlugin<'c>>,
    pub(crate) devices: Nodes,
    /// Why configured providers are not there.
    pub(crate) absent: Vec<String>,
    /// What is configured and cannot be read on this node.
    pub(crate) unusable: Vec<String>,
}

impl Node<'_> {
    /// Every set of files that might go into the container.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Files> {
        let providers = self.providers.iter().filter_map(|provider| provider.files.as_ref());
        let plugin = self.plugin.iter().map(|plugin| &plugin.files);
        providers.chain(&self.libfabric).chain(plugin)
    }
}

/// Looks at the node; at the site's libfabric only if `with_libfabric`. `annotation` are the
/// container's: they turn providers off, and choose the plug-in's variant.
pub(crate) fn look<'c, 'a>(
    config: &'c Config,
    with_libfabric: bool,
    annotation: impl Fn(&str) -> Option<&'a str>,
) -> Result<Node<'c>, Failure> {
    let mut node = Node::default();
    for provider in &config.providers {
        let name = &provider.name;
        if annotation(&format!("com.hooks.{name}.enabled")) == Some("false") {
            node.absent.push(format!("provider `{name}` is off: com.hooks.{name}.enabled=false"));
            continue;
        }
        let devices = nodes(&provider.devices);
        if devices.is_empty() && !provider.devices.is_empty() {
            node.absent.push(format!("this node has no device of provider `{name}`"));
            continue;
        }
        match provider.library.as_deref().map(files).transpose() {
            Ok(files) => node.providers.push(NodeProvider { config: provider, devices, files }),
            Err(reason) => node.unusable.push(format!("provider `{name}`: {reason}")),
        }
    }
    let libfabric = config.libfabric.as_ref().filter(|_| with_libfabric);
    let libfabric = libfabric.and_then(|libfabric| libfabric.library.as_deref());
    match libfabric.map(files).transpose() {
        Ok(files) => node.libfabric = files,
        Err(reason) => node.unusable.push(reason),
    }
    node.devices = nodes(&config.devices);
    if annotation("com.hooks.aws_ofi_nccl.enabled") == Some("true") {
        let wanted = annotation("com.hooks.aws_ofi_nccl.variant");
        let (name, variant) = variant(config.aws_ofi_nccl.as_ref(), wanted)?;
        match files(&variant.library) {
            Ok(files) => {
                node.plugin = Some(NodePlugin { name: name.to_owned(), variant, files });
            }
            Err(reason) => node.unusable.push(format!("NCCL's plug-in `{name}`: {reason}")),
        }
    }
    Ok(node)
}

fn variant<'c>(
    plugin: Option<&'c Plugin>,
    wanted: Option<&str>,
) -> Result<(&'c str, &'c Variant), Failure> {
    let failed = || Failure::new("cannot give the container NCCL's plug-in for libfabric");
    let Some(plugin) = plugin else {
        let because = "the site's configuration of the hook has no `awsOfiNccl`";
        let hint = "leave the annotation `com.hooks.aws_ofi_nccl.enabled` away";
        return Err(failed().because(because).hint(hint));
    };
    let known = || plugin.variants.keys().cloned().collect::<Vec<_>>().join(", ");
    let Some(name) = wanted.or(plugin.default.as_deref()) else {
        let because = "no variant is named";
        let hint = format!("set com.hooks.aws_ofi_nccl.variant to one of: {}", known());
        return Err(failed().because(because).hint(hint));
    };
    let found = plugin.variants.get_key_value(name);
    found.map(|(name, variant)| (name.as_str(), variant)).ok_or_else(|| {
        let because = format!("there is no variant `{name}`");
        let hint = format!("set com.hooks.aws_ofi_nccl.variant to one of: {}", known());
        failed().because(because).hint(hint)
    })
}

/// A library of the host with what it needs; an error in words.
fn files(path: &Path) -> Result<Files, String> {
    let failed = |reason: String| format!("cannot read `{}`: {reason}", path.display());
    let open = File::open(path).map_err(|error| failed(error.to_string()))?;
    let format = Elf::read(open).map_err(failed)?.format;
    let slash = File::open("/").map_err(|error| failed(error.to_string()))?;
    let loader = Loader::new(Root(slash.as_fd()), format, "");
    let closure = loader.closure(&[path.to_owned()]);
    let by_name: BTreeMap<&str, _> = closure
        .objects
        .iter()
        .flat_map(|object| {
            let soname = object.found.elf.soname.as_deref();
            [Some(object.name.as_str()), soname].into_iter().flatten().map(move |n| (n, object))
        })
        .collect();
    let mut files = Files { libraries: Vec::new(), missing: Vec::new() };
    let first = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut names = vec![first];
    let mut next = 0;
    while let Some(name) = names.get(next).cloned() {
        next += 1;
        let Some(object) = by_name.get(name.as_str()) else {
            files.missing.push(format!("`{name}`, which `{}` needs", path.display()));
            continue;
        };
        let elf = Rc::clone(&object.found.elf);
        let wanted = elf.needed.iter().filter(|name| !is_of_libc(name) && *name != LIBFABRIC);
        let new: Vec<String> = wanted.filter(|name| !names.contains(name)).cloned().collect();
        names.extend(new);
        files.libraries.push(Library { name, path: object.real.clone(), elf });
    }
    if files.libraries.is_empty() {
        return Err(failed("it cannot be read".to_owned()));
    }
    Ok(files)
}

/// The device nodes that patterns match, in the order of their names.
fn nodes(patterns: &[Devices]) -> Nodes {
    let mut found = Nodes::new();
    for devices in patterns {
        let (pattern, directory) = match devices {
            Devices::Same(pattern) => (pattern, None),
            Devices::Elsewhere { source, directory } => (source, Some(directory)),
        };
        for path in matching(Path::new(pattern)) {
            let kind = path.metadata().map(|found| found.file_type());
            if kind.is_ok_and(|kind| kind.is_char_device() || kind.is_block_device()) {
                let name = path.file_name().unwrap_or_default();
                let destination =
                    directory.map_or_else(|| path.clone(), |directory| directory.join(name));
                found.push((path, destination));
            }
        }
    }
    found
}

/// The paths that a pattern matches, component by component.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.iter() {
        let text = part.to_string_lossy();
        if !text.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let below = |directory: &PathBuf| {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let mut names: Vec<String> =
                names.filter(|name| fits(text.as_bytes(), name.as_bytes())).collect();
            names.sort();
            names.into_iter().map(|name| directory.join(name)).collect::<Vec<_>>()
        };
        found = found.iter().flat_map(below).collect();
    }
    found.retain(|path| path.exists());
    found
}

/// Whether a name fits a pattern: `*` is any text, `?` any byte.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skipped| fits(rest, &name[skipped..])),
        (Some((one, rest)), Some((other, name))) => {
            (*one == b'?' || one == other) && fits(rest, name)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn patterns_match_names() {
        for (pattern, name, want) in [
            ("cxi*", "cxi0", true),
            ("cxi*", "cxi", true),
            ("cxi?", "cxi10", false),
            ("u*s[0]", "uverbs0", false),
            ("*", "x", true),
            ("uverbs*0", "uverbs10", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
        }
    }

    #[test]
    fn devices_that_exist_are_found() {
        let text = r#"{"version": 1, "devices": [
            "/dev/nul?", "/dev/none*", "/etc/passwd", {"source": "/dev/zer*", "directory": "/x"}]}"#;
        let config = config::parse(text).unwrap();
        let want = [("/dev/null", "/dev/null"), ("/dev/zero", "/x/zero")];
        let want: Nodes = want.map(|(from, to)| (from.into(), to.into())).into();
        assert_eq!(nodes(&config.devices), want);
    }

    #[test]
    fn a_provider_without_hardware_or_turned_off_is_not_there() {
        let text = r#"{"version": 1, "providers": [
            {"name": "cxi", "library": "/nonexistent", "devices": ["/dev/none*"]},
            {"name": "verbs", "library": "/nonexistent"}]}"#;
        let config = config::parse(text).unwrap();
        let off = |name: &str| (name == "com.hooks.verbs.enabled").then_some("false");
        let node = look(&config, true, off).unwrap();
        assert!(node.providers.is_empty());
        assert_eq!(
            node.absent,
            [
                "this node has no device of provider `cxi`",
                "provider `verbs` is off: com.hooks.verbs.enabled=false"
            ]
        );
        let node = look(&config, true, |_| None).unwrap();
        assert!(node.unusable[0].starts_with("provider `verbs`: cannot read `/nonexistent`"));
    }

    #[test]
    fn the_plug_in_is_a_variant_of_the_sites() {
        let text = r#"{"version": 1, "awsOfiNccl": {"variants": {
            "cuda11": {"library": "/a"}, "cuda12": {"library": "/b"}}}}"#;
        let config = config::parse(text).unwrap();
        let plugin = config.aws_ofi_nccl.as_ref();
        assert_eq!(variant(plugin, Some("cuda12")).unwrap().0, "cuda12");
        for (plugin, wanted, said) in [
            (plugin, None, "one of: cuda11, cuda12"),
            (plugin, Some("rocm"), "no variant `rocm`"),
            (None, None, "no `awsOfiNccl`"),
        ] {
            let failure = variant(plugin, wanted).unwrap_err().to_string();
            assert!(failure.contains(said), "{failure}");
        }
    }
}
