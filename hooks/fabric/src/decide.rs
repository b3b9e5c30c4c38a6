//! How the fabric gets into a container: by its providers beside the image's libfabric, or with
//! the site's libfabric in its place. No input or output.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config::Replace;
use crate::image::{Has, Image, libfabric_lacks};
use crate::node::{Files, LIBFABRIC, Node};

/// Where providers go in an image without libfabric.
const PROVIDERS_FALLBACK: &str = "/usr/lib/libfabric";

/// Which libfabric the providers are used by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The image's.
    Injection,
    /// The site's, in its place.
    Replacement,
}

/// One file of the host in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) source: PathBuf,
    pub(crate) destination: PathBuf,
    /// The name by which the loader is asked for it; none of what is loaded by path.
    pub(crate) name: Option<String>,
    pub(crate) reason: String,
}

/// What was decided.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub(crate) way: Option<Way>,
    pub(crate) files: Vec<Placed>,
    /// The providers that can be used, by index of the node's.
    pub(crate) providers: Vec<usize>,
    /// The directory with providers that are files of their own.
    pub(crate) directory: Option<PathBuf>,
    pub(crate) with_plugin: bool,
    /// What cannot be used, and why.
    pub(crate) refused: Vec<String>,
    /// Why the way before was not taken.
    pub(crate) notes: Vec<String>,
}

/// What is decided by.
pub(crate) struct Facts<'f> {
    pub(crate) node: &'f Node<'f>,
    pub(crate) image: &'f Image,
    pub(crate) replace: Replace,
    /// The container's own `FI_PROVIDER_PATH`, its first directory.
    pub(crate) provider_path: Option<&'f Path>,
    /// The C library is to be the host's: its versions are no obstacle.
    pub(crate) with_host_libc: bool,
}

/// Takes the first way by which everything can be used, else the one by which most can.
pub(crate) fn decide(facts: &Facts<'_>) -> Decision {
    let is_added = facts.image.libfabric.is_none()
        && facts.node.plugin.is_some()
        && facts.node.libfabric.is_some();
    let ways: &[Way] = match facts.replace {
        Replace::Always => &[Way::Replacement],
        Replace::Never => &[Way::Injection],
        Replace::Auto if facts.node.libfabric.is_none() => &[Way::Injection],
        // Nothing is replaced where the image has none, but what needs one brings the site's.
        Replace::Auto if facts.image.libfabric.is_none() && !is_added => &[Way::Injection],
        Replace::Auto => &[Way::Injection, Way::Replacement],
    };
    let mut best = Decision::default();
    let mut reasons = Vec::new();
    for way in ways {
        let decision = by(facts, *way);
        let count =
            |decision: &Decision| decision.providers.len() + usize::from(decision.with_plugin);
        if decision.refused.is_empty() {
            return Decision { notes: reasons, ..decision };
        }
        reasons.extend(decision.refused.iter().cloned());
        if best.way.is_none() || count(&decision) > count(&best) {
            best = decision;
        }
    }
    best.refused = reasons;
    best
}

/// What can be used by one way.
fn by(facts: &Facts<'_>, way: Way) -> Decision {
    let (node, image) = (facts.node, facts.image);
    let mut decision = Decision { way: Some(way), ..Decision::default() };
    let wants = !node.providers.is_empty() || node.plugin.is_some();
    if !wants && (way == Way::Injection || node.libfabric.is_none()) {
        return decision;
    }
    let Some(libc) = &image.libc else {
        decision.refused.push("the image has no GNU C library for this processor".to_owned());
        return decision;
    };
    let mut versions = image.libfabric.as_ref().map(|libfabric| libfabric.versions.clone());
    if way == Way::Replacement {
        match replacement(facts, libc) {
            Ok(placed) => decision.files = placed,
            Err(reason) => {
                decision.refused.push(reason);
                return decision;
            }
        }
        let site = node.libfabric.as_ref();
        versions = site.map(|files| files.first().elf.versions_defined.clone());
    }
    let directory = provider_directory(facts);
    for (index, provider) in node.providers.iter().enumerate() {
        let name = &provider.config.name;
        let placed = match &provider.files {
            None if way == Way::Injection => Err(format!(
                "it is part of the site's libfabric (libfabric.replace is {:?})",
                facts.replace
            )),
            None => Ok(Vec::new()),
            Some(files) => {
                let first = files.first();
                let first = Placed {
                    source: first.path.clone(),
                    destination: directory.join(&first.name),
                    name: None,
                    reason: format!("libfabric's provider `{name}`"),
                };
                usable(facts, libc, (files, first), versions.as_ref())
            }
        };
        match placed {
            Ok(placed) => {
                decision.providers.push(index);
                if !placed.is_empty() {
                    decision.directory = Some(directory.clone());
                }
                add(&mut decision.files, placed);
            }
            Err(reason) => decision.refused.push(format!("provider `{name}`: {reason}")),
        }
    }
    plugin(facts, libc, versions.as_ref(), &mut decision);
    decision
}

fn plugin(
    facts: &Facts<'_>,
    libc: &Path,
    versions: Option<&BTreeSet<String>>,
    decision: &mut Decision,
) {
    let Some(plugin) = &facts.node.plugin else { return };
    let first = plugin.files.first();
    let placed = match versions {
        None => Err("the image has no libfabric, and the site names none".to_owned()),
        Some(_) => {
            let first = Placed {
                source: first.path.clone(),
                destination: libc.join(&first.name),
                name: Some(first.name.clone()),
                reason: format!("NCCL's plug-in for libfabric, variant `{}`", plugin.name),
            };
            usable(facts, libc, (&plugin.files, first), versions)
        }
    };
    match placed {
        Ok(placed) => {
            decision.with_plugin = true;
            add(&mut decision.files, placed);
        }
        Err(reason) => {
            decision.refused.push(format!("NCCL's plug-in `{}`: {reason}", plugin.name));
        }
    }
}

/// The site's libfabric where the image's is, or where its loader looks.
fn replacement(facts: &Facts<'_>, libc: &Path) -> Result<Vec<Placed>, String> {
    let Some(files) = &facts.node.libfabric else {
        return Err("libfabric cannot be replaced: the site names none".to_owned());
    };
    let first = files.first();
    let own = &first.elf.versions_defined;
    let (destination, name, reason) = match &facts.image.libfabric {
        Some(libfabric) => {
            if let Some(lost) = libfabric.versions.difference(own).last() {
                let path = first.path.display();
                return Err(format!(
                    "libfabric cannot be replaced: the image's is newer, `{path}` has no {lost}"
                ));
            }
            (libfabric.path.clone(), None, "replaces the image's libfabric")
        }
        None => (libc.join(LIBFABRIC), Some(LIBFABRIC.to_owned()), "the image has no libfabric"),
    };
    let placed =
        Placed { source: first.path.clone(), destination, name, reason: reason.to_owned() };
    usable(facts, libc, (files, placed), None)
        .map_err(|reason| format!("libfabric cannot be replaced: {reason}"))
}

/// The files of a library and of what it needs in the container, if the image fits them.
fn usable(
    facts: &Facts<'_>,
    libc: &Path,
    (files, first): (&Files, Placed),
    versions: Option<&BTreeSet<String>>,
) -> Result<Vec<Placed>, String> {
    let image = facts.image;
    if let Some(missing) = files.missing.first() {
        return Err(format!("this node has no {missing}"));
    }
    if let Some(reason) = versions.and_then(|versions| libfabric_lacks(files, versions)) {
        return Err(reason);
    }
    let mut placed = vec![first];
    // Not below what the image has itself.
    let mut names: Vec<&str> = vec![&files.first().name];
    let mut next = 0;
    while let Some(name) = names.get(next).copied() {
        next += 1;
        let Some(library) = files.libraries.iter().find(|library| library.name == name) else {
            continue;
        };
        if next > 1 {
            let needed_by = format!("`{}` needs it", files.first().name);
            let (destination, reason) = match image.libraries.get(name) {
                Some(Has::Enough) => continue,
                Some(Has::Less(path)) => {
                    (path.clone(), format!("{needed_by}, and the image's lacks something"))
                }
                Some(Has::Other(reason)) => return Err(reason.clone()),
                Some(Has::Nothing) | None => (libc.join(name), needed_by),
            };
            let (source, name) = (library.path.clone(), Some(name.to_owned()));
            placed.push(Placed { source, destination, name, reason });
        }
        if let Some(lacks) = image.lacks.get(&library.path).filter(|_| !facts.with_host_libc) {
            return Err(format!("`{}` needs {lacks}", library.path.display()));
        }
        let needed = library.elf.needed.iter().map(String::as_str);
        names.extend(needed.filter(|name| !names.contains(name)).collect::<Vec<_>>());
    }
    Ok(placed)
}

/// Where the container's libfabric looks for providers.
fn provider_directory(facts: &Facts<'_>) -> PathBuf {
    let beside = || {
        let libfabric = facts.image.libfabric.as_ref()?;
        Some(libfabric.path.parent()?.join("libfabric"))
    };
    match facts.provider_path {
        Some(path) => path.to_owned(),
        None => beside().unwrap_or_else(|| PROVIDERS_FALLBACK.into()),
    }
}

fn add(files: &mut Vec<Placed>, new: Vec<Placed>) {
    for placed in new {
        if !files.iter().any(|known| known.destination == placed.destination) {
            files.push(placed);
        }
    }
}
