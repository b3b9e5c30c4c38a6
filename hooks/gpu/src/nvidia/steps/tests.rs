//! Plans from a node in memory.

use serde_json::{Value, json};

use super::*;
use crate::nvidia::Capability;
use crate::nvidia::capability::parse;
use crate::nvidia::image::Compat;
use crate::nvidia::select::{read, tests::gpus};

fn library(name: &str, soname: &str, path: &str) -> Library {
    Library { name: name.into(), soname: soname.into(), path: path.into(), is_32: false }
}

/// Three GPUs, the last in parts, with a driver below `/driver`.
fn host() -> HostGpus {
    let node = sarus_nvml::Node {
        driver_version: "535.104.05".into(),
        cuda_version: Some((12, 2)),
        gpus: gpus(),
    };
    let right =
        |compute_instance, minor| Capability { gpu: 2, gpu_instance: 9, compute_instance, minor };
    let nodes = [
        "nvidiactl",
        "nvidia0",
        "nvidia1",
        "nvidia2",
        "nvidia-uvm",
        "nvidia-uvm-tools",
        "nvidia-modeset",
        "nvidia-caps/nvidia-cap4",
        "nvidia-fs0",
        "nvidia-fs-x",
    ];
    HostGpus {
        node,
        libraries: vec![
            library("libcuda.so", "libcuda.so.1", "/usr/lib/libcuda.so.535.104.05"),
            library("libnvidia-ml.so", "libnvidia-ml.so.1", "/usr/lib/libnvidia-ml.so.1"),
        ],
        files: vec!["/usr/sbin/nvidia-smi".into(), "/run/nvidia-persistenced/socket".into()],
        nodes: nodes.iter().map(|name| Path::new("/dev").join(name)).collect(),
        capabilities: vec![right(None, 4), right(Some(0), 5), right(Some(1), 6)],
        root: "/driver".into(),
    }
}

fn image() -> Image {
    Image { has_glibc: true, libraries: "/usr/lib64".into(), ..Image::default() }
}

fn plan_of(host: &HostGpus, image: &Image, variables: &[(&str, &str)]) -> Value {
    let find =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let classes = parse(find("NVIDIA_DRIVER_CAPABILITIES")).unwrap();
    let around = Surroundings { host, image, classes: &classes };
    let mut planned = Plan::default();
    plan(&around, &read(find), true, &mut planned).unwrap();
    planned.to_json("gpu")
}

/// The destinations of the device nodes.
fn devices(plan: &Value) -> Vec<&str> {
    let steps = plan["steps"].as_array().unwrap().iter();
    let devices = steps.filter(|step| step["do"] == "device");
    devices.map(|step| step["destination"].as_str().unwrap()).collect()
}

#[test]
fn a_gpu_comes_with_its_node_libraries_programs_and_numbers() {
    let plan = plan_of(&host(), &image(), &[("CUDA_VISIBLE_DEVICES", "1")]);
    let steps = plan["steps"].as_array().unwrap();
    let without_reason = |step: &Value| {
        let mut step = step.clone();
        step.as_object_mut().unwrap().remove("reason");
        step
    };
    let device = |path: &str| {
        json!({"do": "device", "source": format!("/driver{path}"),
        "destination": path, "access": "rw"})
    };
    let bind = |from: &str, to: &str, read_only: bool| {
        json!({"do": "bind",
        "source": format!("/driver{from}"), "destination": to, "readOnly": read_only})
    };
    let link = |target: &str, at: &str| json!({"do": "link", "target": target, "destination": at});
    let cuda = "/usr/lib/libcuda.so.535.104.05";
    let want = [
        device("/dev/nvidiactl"),
        device("/dev/nvidia-uvm"),
        device("/dev/nvidia-uvm-tools"),
        device("/dev/nvidia-fs0"),
        // The node's number is the minor number, not the index.
        device("/dev/nvidia0"),
        bind(cuda, "/usr/lib64/libcuda.so.535.104.05", true),
        link("libcuda.so.535.104.05", "/usr/lib64/libcuda.so.1"),
        link("libcuda.so.1", "/usr/lib64/libcuda.so"),
        bind("/usr/lib/libnvidia-ml.so.1", "/usr/lib64/libnvidia-ml.so.1", true),
        json!({"do": "ldCache", "libraries": [
            ["libcuda.so.1", "/usr/lib64/libcuda.so.1"],
            ["libnvidia-ml.so.1", "/usr/lib64/libnvidia-ml.so.1"]]}),
        bind("/usr/sbin/nvidia-smi", "/usr/bin/nvidia-smi", true),
        bind("/run/nvidia-persistenced/socket", "/run/nvidia-persistenced/socket", false),
        json!({"do": "variable", "name": "NVIDIA_VISIBLE_DEVICES", "value": "1"}),
        json!({"do": "variable", "name": "CUDA_VISIBLE_DEVICES", "value": "0"}),
    ];
    let got: Vec<Value> = steps.iter().map(without_reason).collect();
    assert_eq!(got, want);
    assert_eq!(steps[4]["reason"], "GPU 1 (GPU-ab-1) is asked for");
}

#[test]
fn what_the_engine_numbered_already_stays() {
    let variables = [("NVIDIA_VISIBLE_DEVICES", "1"), ("CUDA_VISIBLE_DEVICES", "0")];
    let plan = plan_of(&host(), &image(), &variables);
    let set = plan["steps"].as_array().unwrap().iter().filter(|step| step["do"] == "variable");
    assert_eq!(set.count(), 0, "{plan}");
}

#[test]
fn a_part_of_a_gpu_comes_with_the_rights_to_it_alone() {
    let plan = plan_of(&host(), &image(), &[("NVIDIA_VISIBLE_DEVICES", "MIG-yy")]);
    let want = ["/dev/nvidia2", "/dev/nvidia-caps/nvidia-cap4", "/dev/nvidia-caps/nvidia-cap5"];
    assert_eq!(devices(&plan)[4..], want);
}

#[test]
fn classes_decide_which_nodes_there_are() {
    for (classes, want) in [
        ("utility", vec!["/dev/nvidiactl"]),
        ("graphics", vec!["/dev/nvidiactl", "/dev/nvidia-modeset"]),
    ] {
        let variables =
            [("NVIDIA_VISIBLE_DEVICES", "none"), ("NVIDIA_DRIVER_CAPABILITIES", classes)];
        assert_eq!(devices(&plan_of(&host(), &image(), &variables)), want, "{classes}");
    }
}

#[test]
fn an_image_without_the_gnu_library_gets_nodes_and_is_told_why() {
    let image = Image { has_glibc: false, ..image() };
    let plan = plan_of(&host(), &image, &[("NVIDIA_VISIBLE_DEVICES", "0")]);
    assert!(devices(&plan).contains(&"/dev/nvidia1"), "{plan}");
    let kinds: Vec<_> = plan["steps"].as_array().unwrap().iter().map(|s| &s["do"]).collect();
    assert!(!kinds.contains(&&json!("link")), "{plan}");
    assert!(plan["notes"][0].as_str().unwrap().contains("no GNU C library"), "{plan}");
}

#[test]
fn a_file_of_the_image_is_covered_and_a_link_replaced() {
    let occupied = [PathBuf::from("/usr/lib64/libcuda.so.1")].into();
    let image = Image { occupied, ..image() };
    let plan = plan_of(&host(), &image, &[("NVIDIA_VISIBLE_DEVICES", "0")]);
    let covered = plan["steps"]
        .as_array()
        .unwrap()
        .iter()
        .any(|step| step["do"] == "bind" && step["destination"] == "/usr/lib64/libcuda.so.1");
    assert!(covered, "{plan}");
}

#[test]
fn newer_libraries_of_the_image_are_used_and_older_ones_not() {
    for (version, want, said) in [
        ("550.54", "/usr/local/cuda/compat/libcuda.so.1", "and are used"),
        ("525.1", "/usr/lib64/libcuda.so.1", "and are not used"),
    ] {
        let own = PathBuf::from("/usr/local/cuda/compat/libcuda.so.1");
        let libraries = vec![("libcuda.so.1".to_owned(), own)];
        let compat = Some(Compat { version: version.into(), libraries });
        let image = Image { compat, ..image() };
        let plan = plan_of(&host(), &image, &[("NVIDIA_VISIBLE_DEVICES", "0")]);
        let cache = plan["steps"].as_array().unwrap().iter().find(|s| s["do"] == "ldCache");
        let listed = cache.unwrap()["libraries"].as_array().unwrap();
        let cuda: Vec<_> = listed.iter().filter(|entry| entry[0] == "libcuda.so.1").collect();
        assert_eq!(cuda.len(), 1, "{plan}");
        assert_eq!(cuda[0][1], want);
        assert!(plan["notes"][0].as_str().unwrap().ends_with(said), "{plan}");
    }
}

#[test]
fn a_job_without_gpus_is_told_so() {
    let mut host = host();
    host.node.gpus.clear();
    let plan = plan_of(&host, &image(), &[("NVIDIA_VISIBLE_DEVICES", "all")]);
    assert_eq!(plan["steps"], json!([]));
    assert_eq!(plan["notes"], json!(["no NVIDIA GPU: the driver shows none to this job"]));
}
