//! Which GPUs are asked for, and which of the node's these are.

use std::fmt;

use sarus_hook::Failure;
use sarus_nvml::{Gpu, Mig};

use crate::cdi::DeviceName;

/// What the container's variables ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Neither GPU nor driver.
    Nothing,
    /// The driver without a GPU.
    DriverOnly,
    All,
    /// By index, UUID, or as a MIG device.
    Listed(Vec<String>),
}

/// A request and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) wanted: Wanted,
    /// Only `CUDA_VISIBLE_DEVICES` says it, in the host's numbers.
    pub(crate) is_cudas: bool,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Wanted::Nothing => f.write_str("none"),
            Wanted::DriverOnly => f.write_str("the driver's libraries"),
            Wanted::All => f.write_str("all"),
            Wanted::Listed(ids) => f.write_str(&ids.join(", ")),
        }
    }
}

/// One device as the container sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected<'g> {
    pub(crate) gpu: &'g Gpu,
    /// The parts of it that can be opened; of a GPU that was not partitioned, none.
    pub(crate) parts: Vec<&'g Mig>,
}

/// Reads the variables of the container.
pub(crate) fn read<'v>(variable: impl Fn(&str) -> Option<&'v str>) -> Request {
    if let Some(value) = variable("NVIDIA_VISIBLE_DEVICES") {
        return Request { wanted: parse(value), is_cudas: false };
    }
    // A number below 0 ends the list, as in CUDA.
    let value = variable("CUDA_VISIBLE_DEVICES").unwrap_or_default();
    let ids = value.split(',').map(str::trim).take_while(|id| !id.starts_with('-'));
    let ids: Vec<&str> = ids.filter(|id| *id != "NoDevFiles").collect();
    Request { wanted: parse(&ids.join(",")), is_cudas: true }
}

fn parse(value: &str) -> Wanted {
    // CDI devices are the business of others.
    let is_ours = |id: &&str| !id.is_empty() && DeviceName::parse(id).is_err();
    let ids: Vec<&str> = value.split(',').map(str::trim).filter(is_ours).collect();
    match ids.as_slice() {
        [] | ["void"] => Wanted::Nothing,
        ["none"] => Wanted::DriverOnly,
        ids if ids.contains(&"all") => Wanted::All,
        ids => Wanted::Listed(ids.iter().map(|id| (*id).to_owned()).collect()),
    }
}

/// Finds what is asked for among the GPUs of the node, each once.
///
/// # Errors
///
/// Where an id is of no GPU, or of several.
pub(crate) fn select<'g>(wanted: &Wanted, gpus: &'g [Gpu]) -> Result<Vec<Selected<'g>>, Failure> {
    let whole = |gpu: &'g Gpu| Selected { gpu, parts: gpu.mig.iter().collect() };
    let ids = match wanted {
        Wanted::Nothing | Wanted::DriverOnly => return Ok(Vec::new()),
        Wanted::All => return Ok(gpus.iter().map(whole).collect()),
        Wanted::Listed(ids) => ids,
    };
    let mut selected = Vec::new();
    for id in ids {
        let of = |gpu: &'g Gpu| {
            let part = gpu.mig.iter().filter(|part| is_part(id, gpu, part));
            let part = part.map(move |part| Selected { gpu, parts: vec![part] });
            is_gpu(id, gpu).then(|| whole(gpu)).into_iter().chain(part)
        };
        let found: Vec<Selected<'_>> = gpus.iter().flat_map(of).collect();
        match found.as_slice() {
            [one] if selected.contains(one) => {}
            [one] => selected.push(one.clone()),
            [] => return Err(unknown(id, gpus)),
            several => {
                let count = several.len();
                return Err(Failure::new(format!("cannot tell which GPU `{id}` is"))
                    .because(format!("{count} of this node's begin with it"))
                    .hint("write more of the UUID; `nvidia-smi -L` lists them"));
            }
        }
    }
    Ok(selected)
}

/// By index, or by UUID or its beginning, as CUDA allows.
fn is_gpu(id: &str, gpu: &Gpu) -> bool {
    if id.bytes().all(|byte| byte.is_ascii_digit()) {
        return id.parse() == Ok(gpu.index);
    }
    id.starts_with("GPU-") && gpu.uuid.starts_with(id)
}

/// `GPU:PART` by indexes, `MIG-UUID`, or `MIG-GPU-UUID/GI/CI`.
fn is_part(id: &str, gpu: &Gpu, part: &Mig) -> bool {
    if let Some((index, number)) = id.split_once(':') {
        return index.parse() == Ok(gpu.index) && number.parse() == Ok(part.index);
    }
    let by_instance = format!("MIG-{}/{}/{}", gpu.uuid, part.gpu_instance, part.compute_instance);
    id == by_instance || (id.starts_with("MIG-") && part.uuid.starts_with(id))
}

fn unknown(id: &str, gpus: &[Gpu]) -> Failure {
    let mut failure = Failure::new(format!("this node has no NVIDIA GPU `{id}`"));
    if gpus.is_empty() {
        failure = failure.because("the driver shows none to this job");
    }
    for gpu in gpus {
        failure = failure.because(format!("there is GPU {}: {}", gpu.index, gpu.uuid));
        for part in &gpu.mig {
            let (gpu, index) = (gpu.index, part.index);
            failure = failure.because(format!("there is MIG device {gpu}:{index}: {}", part.uuid));
        }
    }
    failure.hint("NVIDIA_VISIBLE_DEVICES is set by CUDA_VISIBLE_DEVICES of the job, by the image or by `-e`; with Slurm, `--gres` or `--gpus` gives a job its GPUs")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn gpus() -> Vec<Gpu> {
        let mig = |index, gpu_instance, uuid: &str| Mig {
            index,
            gpu_instance,
            compute_instance: 0,
            uuid: uuid.to_owned(),
        };
        let gpu =
            |index, minor, uuid: &str| Gpu { index, minor, uuid: uuid.to_owned(), mig: Vec::new() };
        let mut gpus = vec![gpu(0, 1, "GPU-aa-0"), gpu(1, 0, "GPU-ab-1"), gpu(2, 2, "GPU-cc-2")];
        gpus[2].mig = vec![mig(0, 7, "MIG-xx"), mig(3, 9, "MIG-yy")];
        gpus
    }

    #[test]
    fn variables_say_what_is_wanted() {
        let listed = |ids: &[&str]| Wanted::Listed(ids.iter().map(|id| (*id).to_owned()).collect());
        let cases = [
            (None, None, Wanted::Nothing, true),
            (Some(""), Some("0"), Wanted::Nothing, false),
            (Some("void"), None, Wanted::Nothing, false),
            (Some("none"), None, Wanted::DriverOnly, false),
            (Some("all"), Some("1"), Wanted::All, false),
            (Some("0, 2"), None, listed(&["0", "2"]), false),
            (Some("nvidia.com/gpu=0"), None, Wanted::Nothing, false),
            (None, Some("2,3"), listed(&["2", "3"]), true),
            (None, Some("2,-1,3"), listed(&["2"]), true),
            (None, Some("-1"), Wanted::Nothing, true),
            (None, Some("NoDevFiles"), Wanted::Nothing, true),
            (None, Some("MIG-xx"), listed(&["MIG-xx"]), true),
        ];
        for (visible, cuda, wanted, is_cudas) in cases {
            let request = read(|name| if name.starts_with("NVIDIA") { visible } else { cuda });
            assert_eq!(request, Request { wanted, is_cudas }, "{visible:?} {cuda:?}");
        }
    }

    #[test]
    fn gpus_are_found_by_index_uuid_and_part() {
        let gpus = gpus();
        let find = |value: &str| {
            let selected = select(&parse(value), &gpus).map_err(|failure| failure.to_string())?;
            let shown = selected.iter().map(|found| {
                let parts: Vec<u32> = found.parts.iter().map(|part| part.index).collect();
                (found.gpu.index, parts)
            });
            Ok(shown.collect::<Vec<_>>())
        };
        let cases = [
            ("none", Ok(vec![])),
            ("all", Ok(vec![(0, vec![]), (1, vec![]), (2, vec![0, 3])])),
            ("1,0,1", Ok(vec![(1, vec![]), (0, vec![])])),
            ("GPU-aa-0", Ok(vec![(0, vec![])])),
            ("GPU-c", Ok(vec![(2, vec![0, 3])])),
            ("2:3", Ok(vec![(2, vec![3])])),
            ("MIG-yy,MIG-x", Ok(vec![(2, vec![3]), (2, vec![0])])),
            ("MIG-GPU-cc-2/9/0", Ok(vec![(2, vec![3])])),
            ("GPU-a", Err("cannot tell which GPU `GPU-a` is")),
            ("3", Err("this node has no NVIDIA GPU `3`")),
            ("2:1", Err("this node has no NVIDIA GPU `2:1`")),
            ("0:0", Err("no NVIDIA GPU `0:0`")),
            ("nonsense", Err("no NVIDIA GPU `nonsense`")),
        ];
        for (value, want) in cases {
            match (find(value), want) {
                (Ok(found), Ok(want)) => assert_eq!(found, want, "{value}"),
                (Err::<_, String>(error), Err(want)) => assert!(error.contains(want), "{error}"),
                (found, want) => panic!("{value}: {found:?}, expected {want:?}"),
            }
        }
        let error = find("9").unwrap_err();
        assert!(error.contains("there is MIG device 2:3: MIG-yy"), "{error}");
    }
}
