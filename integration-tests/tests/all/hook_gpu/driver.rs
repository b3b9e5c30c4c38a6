//! Drivers without CDI: a stand-in for NVIDIA's below a root of its own, and AMD's files.

use std::path::Path;
use std::process::Command;

use sarus_integration_tests::{Image, Packed, Runtime, Tar, Who};

use super::{Node, VERSION, run, set_executable};
use crate::{Ground, in_every_mode};

in_every_mode!(
    the_gpus_of_a_job_come_with_the_drivers_libraries_and_programs,
    a_part_of_a_gpu_comes_with_the_rights_to_it,
    an_image_without_the_gnu_library_gets_the_nodes,
    a_gpu_that_is_not_there_is_refused_with_what_there_is,
    a_driver_that_does_not_answer_stops_the_run,
    without_a_driver_nothing_is_done,
    amd_gpus_come_by_the_kernels_nodes,
);

/// Asks the loader for `libcuda.so.1`, as programs that use CUDA do, and prints its answer.
const ASK: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) return printf("%s\n", dlerror()), 1;
    const char *(*version)(void) = (const char *(*)(void))dlsym(library, "version");
    return puts(version()), 0;
}"#;

const CUDA: &str = r#"const char *version(void) { return "cuda of driver " VERSION; }"#;

/// Compiles a text.
fn compile(source: &str, program: &Path, options: &[&str]) {
    let file = program.with_extension("c");
    fs_err::write(&file, source).unwrap();
    run(Command::new("gcc").args(options).arg("-o").arg(program).arg(&file));
    fs_err::remove_file(file).unwrap();
}

fn library(source: &str, path: &Path, soname: &str, options: &[&str]) {
    let soname = format!("-Wl,-soname,{soname}");
    let mut all = vec!["-shared", "-fPIC", &soname];
    all.extend(options);
    compile(source, path, &all);
}

/// BusyBox with the GNU C library of this machine, the program `ask`, and a loader's cache. With
/// `compat`, libraries of a newer driver as NVIDIA's images have them.
pub(super) fn image(compat: bool) -> Packed {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    let directory = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    for path in ["/bin", "/etc", "/usr/local/cuda/compat", &directory] {
        fs_err::create_dir_all(inside(path)).unwrap();
    }
    compile(ASK, &inside("/bin/ask"), &[]);
    let listed = Command::new("ldd").arg(inside("/bin/ask")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for path in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        fs_err::create_dir_all(inside(path).parent().unwrap()).unwrap();
        fs_err::copy(path, inside(path)).unwrap();
    }
    if compat {
        let newer = inside("/usr/local/cuda/compat/libcuda.so.550.54");
        library(CUDA, &newer, "libcuda.so.1", &[r#"-DVERSION="550.54""#]);

        std::os::unix::fs::symlink("libcuda.so.550.54", newer.with_file_name("libcuda.so.1"))
            .unwrap();
    }
    fs_err::write(inside("/etc/ld.so.conf"), format!("{directory}\n")).unwrap();
    run(Command::new("ldconfig").arg("-r").arg(root));
    Image::busybox().layer(&tar_of(root, Path::new(""), Tar::new())).pack()
}

fn tar_of(root: &Path, below: &Path, mut tar: Tar) -> Tar {
    let mut entries: Vec<_> =
        fs_err::read_dir(root.join(below)).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs_err::DirEntry::file_name);
    for entry in entries {
        let path = below.join(entry.file_name());
        let name = path.to_str().unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            let target = fs_err::read_link(entry.path()).unwrap();
            tar = tar.symlink(name, target.to_str().unwrap());
        } else if kind.is_dir() {
            tar = tar_of(root, &path, tar.dir(name));
        } else {
            tar = tar.file(name, fs_err::read(entry.path()).unwrap()).mode(0o755);
        }
    }
    tar
}

/// Puts a driver below a directory; `options` go to the compiler of its library.
pub(super) fn make_driver(root: &Path, options: &[&str]) {
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    };
    write("proc/driver/nvidia/version", VERSION);
    write("etc/ld.so.conf", "/usr/lib/driver\n");
    write("usr/bin/nvidia-smi", "#!/bin/sh\necho smi of the host\n");
    set_executable(&root.join("usr/bin/nvidia-smi"));
    let directory = root.join("usr/lib/driver");
    fs_err::create_dir_all(&directory).unwrap();
    let nvml = include_str!("../nvml.c");
    library(nvml, &directory.join("libnvidia-ml.so.535.104.05"), "libnvidia-ml.so.1", options);
    let version = [r#"-DVERSION="535.104.05""#];
    library(CUDA, &directory.join("libcuda.so.535.104.05"), "libcuda.so.1", &version);
    run(Command::new("ldconfig").arg("-r").arg(root));
    for name in ["nvidiactl", "nvidia0", "nvidia1", "nvidia-uvm", "nvidia-caps/nvidia-cap4"] {
        null_device(root, name);
    }
}

/// A stand-in for a device node of the driver.
fn null_device(root: &Path, name: &str) {
    let path = root.join("dev").join(name);
    fs_err::create_dir_all(path.parent().unwrap()).unwrap();
    run(Command::new("mknod").args(["-m", "666"]).arg(&path).args(["c", "1", "3"]));
}

/// A node with a driver.
fn node_with(who: Who, runtime: Runtime, image: &Packed, options: &[&str]) -> Node {
    let node = Node::on(Ground::with(who, runtime, image));
    let root = node.file("driver/readme", "");
    node.configure(&[format!("GPU_HOST_ROOT={}", root.parent().unwrap().display())]);
    make_driver(&node.outside("driver"), options);
    node
}

fn the_gpus_of_a_job_come_with_the_drivers_libraries_and_programs(who: Who, runtime: Runtime) {
    for (compat, version) in [(false, "535.104.05"), (true, "550.54")] {
        let node = node_with(who, runtime, &image(compat), &[]);
        let script = "ask; nvidia-smi; echo $NVIDIA_VISIBLE_DEVICES $CUDA_VISIBLE_DEVICES; \
                      cd /dev; echo nvidia*; [ -c nvidia0 ] && echo x > nvidia0 && echo written";
        let run = node.ground.shell(script).env("CUDA_VISIBLE_DEVICES", "1");
        let said = node.configured(run).run();
        let want = format!(
            "cuda of driver {version}\nsmi of the host\n1 0\n\
             nvidia-uvm nvidia0 nvidiactl\nwritten\n"
        );
        assert_eq!(said.ok(), want, "{said}");
        let run = node.ground.run_with(&["--read-only"], &["ask"]);
        let said = node.configured(run.env("CUDA_VISIBLE_DEVICES", "GPU-00000000")).run();
        assert_eq!(said.ok(), format!("cuda of driver {version}\n"), "{said}");
    }
}

fn a_part_of_a_gpu_comes_with_the_rights_to_it(who: Who, runtime: Runtime) {
    let node = node_with(who, runtime, &Image::busybox().pack(), &["-DPARTS"]);
    let rights = "driver/proc/driver/nvidia/capabilities/gpu0/mig/gi9";
    node.file(&format!("{rights}/access"), "DeviceFileMinor: 4\nDeviceFileMode: 292\n");
    node.file(&format!("{rights}/ci0/access"), "DeviceFileMinor: 5\nDeviceFileMode: 292\n");
    null_device(&node.outside("driver"), "nvidia-caps/nvidia-cap5");
    null_device(&node.outside("driver"), "nvidia-caps/nvidia-cap6");
    let list = "cd /dev; echo nvidia? nvidia-caps/*";
    for id in ["MIG-c0ffee", "1:2", "MIG-GPU-00000001/9/0"] {
        let said = node.run_with(&["-e", &format!("NVIDIA_VISIBLE_DEVICES={id}")], list);
        let want = "nvidia0 nvidia-caps/nvidia-cap4 nvidia-caps/nvidia-cap5\n";
        assert_eq!(said.ok(), want, "{said}");
    }
}

fn an_image_without_the_gnu_library_gets_the_nodes(who: Who, runtime: Runtime) {
    let node = node_with(who, runtime, &Image::busybox().pack(), &[]);
    let options = ["-e", "NVIDIA_VISIBLE_DEVICES=all", "-e", "NVIDIA_DRIVER_CAPABILITIES=all"];
    let list = "cd /dev; echo nvidia*; ls /usr/lib 2>/dev/null; nvidia-smi";
    let said = node.run_with(&options, list);
    assert_eq!(said.ok(), "nvidia-uvm nvidia0 nvidia1 nvidiactl\nsmi of the host\n", "{said}");
    let said = node.run_with(&["-e", "NVIDIA_VISIBLE_DEVICES=void"], "cd /dev; echo nvidia*");
    assert_eq!(said.ok(), "nvidia*\n", "{said}");
}

fn a_gpu_that_is_not_there_is_refused_with_what_there_is(who: Who, runtime: Runtime) {
    let node = node_with(who, runtime, &Image::busybox().pack(), &[]);
    node.run_with(&["-e", "NVIDIA_VISIBLE_DEVICES=7"], "true").explains(
        125,
        &["this node has no NVIDIA GPU `7`", "there is GPU 1: GPU-00000001", "--gres"],
    );
    let options = ["-e", "NVIDIA_VISIBLE_DEVICES=0", "-e", "NVIDIA_DRIVER_CAPABILITIES=magic"];
    node.run_with(&options, "true").explains(125, &["`magic` is not known"]);
}

fn a_driver_that_does_not_answer_stops_the_run(who: Who, runtime: Runtime) {
    let node = node_with(who, runtime, &Image::busybox().pack(), &["-DINIT=18"]);
    node.run_with(&["-e", "NVIDIA_VISIBLE_DEVICES=0"], "true").explains(
        125,
        &["`nvmlInit_v2` returned 18 (the library and the loaded driver are of different versions)",
          "reboot the node"],
    );
    node.run_with(&[], "true").ok();
}

fn without_a_driver_nothing_is_done(who: Who, runtime: Runtime) {
    let node = Node::new(who, runtime);
    let root = node.host_file("empty/readme", "");
    node.configure(&[format!("GPU_HOST_ROOT={}", root.parent().unwrap().display())]);
    let options = ["-e", "NVIDIA_VISIBLE_DEVICES=all", "-e", "ROCR_VISIBLE_DEVICES=0"];
    let said = node.run_with(&options, "cd /dev; echo nvidia* dri* kfd*");
    assert_eq!(said.ok(), "nvidia* dri* kfd*\n", "{said}");
}

fn amd_gpus_come_by_the_kernels_nodes(who: Who, runtime: Runtime) {
    let node = Node::new(who, runtime);
    let root = node.file("driver/readme", "");
    node.configure(&[format!("GPU_HOST_ROOT={}", root.parent().unwrap().display())]);
    for name in ["kfd", "dri/renderD128", "dri/renderD129", "dri/card0", "dri/card1"] {
        null_device(&node.outside("driver"), name);
    }
    let topology = "driver/sys/class/kfd/kfd/topology/nodes";
    node.file(&format!("{topology}/0/properties"), "simd_count 0\ndrm_render_minor 0\n");
    for (number, minor) in [(1, 128), (2, 129)] {
        let text = format!("simd_count 440\ndrm_render_minor {minor}\nunique_id {number}\n");
        node.file(&format!("{topology}/{number}/properties"), text);
        let card =
            format!("driver/sys/class/drm/renderD{minor}/device/drm/card{}/dev", minor - 128);
        node.file(&card, "");
    }
    let list = "cd /dev; echo kfd* dri/card* dri/render*; echo $ROCR_VISIBLE_DEVICES";
    let all = "kfd dri/card0 dri/card1 dri/renderD128 dri/renderD129\n\n";
    let second = "kfd dri/card1 dri/renderD129\n";
    let said = node.run_with(&[], list);
    assert_eq!(said.ok(), all, "{said}");
    for (value, inside) in [("1", "0"), ("GPU-0000000000000002", "GPU-0000000000000002")] {
        let run = node.ground.shell(list).env("ROCR_VISIBLE_DEVICES", value);
        let said = node.configured(run).run();
        assert_eq!(said.ok(), format!("{second}{inside}\n"), "{said}");
    }
    node.run_with(&["-e", "ROCR_VISIBLE_DEVICES=5"], "true")
        .explains(125, &["this node has no AMD GPU `5`", "there is GPU 1: GPU-0000000000000002"]);
}
