//! The variables of a container, each with where it comes from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use sarus_config::Environment;
use serde::Serialize;

use crate::RawString;

/// The search path where neither image, host, site nor user gives one; Docker's.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables in which launchers (Slurm, MPICH's, Open MPI's) say which of how many tasks this is: the
/// task's number, from 0, and the number of tasks.
pub const TASKS: [(&str, &str); 3] = [
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
];

/// Who decided something about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The caller's surroundings.
    Host,
    /// The image's configuration.
    Image,
    /// The engine itself.
    Engine,
    /// The site's configuration.
    Site,
    /// A hook of the stage `precreate`.
    Hook,
    /// The command line.
    User,
}

/// One variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Its value.
    pub value: RawString,
    /// Who set it last.
    pub origin: Origin,
}

/// Variables by name.
pub type Variables = BTreeMap<RawString, Variable>;

/// What the variables are made of, lowest first.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The caller's, `NAME=value`.
    pub host: &'a [RawString],
    /// The image's `Env`.
    pub image: &'a [String],
    /// The site's changes.
    pub site: &'a Environment,
    /// `-e`, in order.
    pub user: &'a [RawString],
}

/// Names under which Slurm's PMIx (version 3 and later) hands over what a client reads as the
/// second name.
const PMIX_NAMES: [(&str, &str); 3] = [
    ("PMIX_PTL_MODULE", "PMIX_MCA_ptl"),
    ("PMIX_SECURITY_MODE", "PMIX_MCA_psec"),
    ("PMIX_GDS_MODULE", "PMIX_MCA_gds"),
];

/// Merges the variables: host, image, GPU variables, site, user; a `PMIX_*` of the host wins over
/// the image's. An entry without `=` or without a name is ignored.
pub fn variables(sources: Sources<'_>) -> Variables {
    let mut merged = Variables::new();
    for (name, value) in sources.host.iter().filter_map(|entry| split(entry.as_bytes())) {
        put(&mut merged, name, value, Origin::Host);
    }
    for (name, value) in sources.image.iter().filter_map(|entry| split(entry.as_bytes())) {
        if !(name.as_bytes().starts_with(b"PMIX_") && merged.contains_key(&name)) {
            put(&mut merged, name, value, Origin::Image);
        }
    }
    gpus(&mut merged);
    pmix(&mut merged);
    site(&mut merged, sources.site);
    for (name, value) in sources.user.iter().filter_map(|entry| split(entry.as_bytes())) {
        put(&mut merged, name, value, Origin::User);
    }
    let path = Variable { value: DEFAULT_PATH.into(), origin: Origin::Engine };
    merged.entry("PATH".into()).or_insert(path);
    merged
}

fn split(entry: &[u8]) -> Option<(RawString, RawString)> {
    let at = entry.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((raw(&entry[..at]), raw(&entry[at + 1..])))
}

fn raw(bytes: &[u8]) -> RawString {
    OsString::from_vec(bytes.to_vec()).into()
}

fn put(merged: &mut Variables, name: RawString, value: RawString, origin: Origin) {
    merged.insert(name, Variable { value, origin });
}

/// The GPUs that the launcher gave, as the container's runtime hooks want them; inside they are
/// numbered from 0, since no other is there.
fn gpus(merged: &mut Variables) {
    let name = RawString::from("CUDA_VISIBLE_DEVICES");
    let Some(given) = merged.get(&name).filter(|found| found.origin == Origin::Host) else {
        return;
    };
    let Some(list) = given.value.as_str().map(str::to_owned) else { return };
    let count = list.split(',').filter(|id| !id.is_empty()).count();
    if count == 0 || list == "NoDevFiles" {
        return;
    }
    let inside = (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
    put(merged, "NVIDIA_VISIBLE_DEVICES".into(), list.into(), Origin::Host);
    put(merged, name, inside.into(), Origin::Engine);
}

fn pmix(merged: &mut Variables) {
    for (given, wanted) in PMIX_NAMES {
        let Some(found) = merged.get(&given.into()).cloned() else { continue };
        merged
            .entry(wanted.into())
            .or_insert(Variable { value: found.value, origin: Origin::Engine });
    }
}

fn site(merged: &mut Variables, site: &Environment) {
    for name in &site.unset {
        merged.remove(&name.into());
    }
    for (name, value) in &site.set {
        put(merged, name.into(), value.into(), Origin::Site);
    }
    for (name, value) in &site.prepend {
        join(merged, name, |old| [value.as_bytes(), b":", old].concat(), value);
    }
    for (name, value) in &site.append {
        join(merged, name, |old| [old, b":", value.as_bytes()].concat(), value);
    }
}

fn join(merged: &mut Variables, name: &str, both: impl Fn(&[u8]) -> Vec<u8>, alone: &str) {
    let old = merged.get(&name.into()).map(|found| found.value.clone());
    let value = match old {
        Some(old) if !old.as_bytes().is_empty() => raw(&both(old.as_bytes())),
        _ => alone.into(),
    };
    put(merged, name.into(), value, Origin::Site);
}
