//! The hook `fabric`: a stand-in provider of libfabric reaches the image with its library, its
//! device and the site's variables.

use std::path::{Path, PathBuf};
use std::process::Command;

use sarus_integration_tests::{Image, Invocation, Output, Runtime, Who};
use serde_json::{Value, json};

use crate::glibc_image::GlibcImage;
use crate::hook_site::HookSite;
use crate::{Ground, in_every_mode, in_mode};

in_every_mode!(a_provider_is_there_with_its_library_device_and_variables);

in_mode!(
    as_user_crun_more,
    User,
    Crun,
    an_older_libfabric_is_replaced_by_the_sites,
    a_newer_c_library_is_named_and_needed_only_where_the_site_requires_it,
    an_image_without_glibc_starts_and_says_why,
    a_node_without_the_device_gives_nothing,
    the_plug_in_of_nccl_comes_in_the_variant_asked_for
);
in_mode!(
    as_root_runc_more,
    Root,
    Runc,
    an_older_libfabric_is_replaced_by_the_sites,
    a_newer_c_library_is_named_and_needed_only_where_the_site_requires_it,
    the_plug_in_of_nccl_comes_in_the_variant_asked_for
);

/// The hook's template, with the site's own file.
const TEMPLATE: &str = include_str!("../../../etc/hooks.d/30-fabric.json");

/// Compiles a shared library; returns its path.
fn compile(directory: &Path, name: &str, source: &str, flags: &[&str]) -> PathBuf {
    let (code, library) = (directory.join("source.c"), directory.join(name));
    fs_err::write(&code, source).unwrap();
    let soname = format!("-Wl,-soname,{name}");
    let mut gcc = Command::new("gcc");
    gcc.args(["-w", "-shared", "-fPIC", &soname, "-o"]).arg(&library).arg(&code).args(flags);
    let output = gcc.current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// The stand-in provider `libcxi-fi.so`, and the library that it needs.
pub(crate) fn compile_provider(directory: &Path) {
    let source = r#"const char *cxi_domain(void) { return "cxi-domain"; }"#;
    compile(directory, "libcxi.so.1", source, &[]);
    let flags = ["libcxi.so.1", "-lfabric", "-Wl,-rpath,$ORIGIN"];
    compile(directory, "libcxi-fi.so", include_str!("cxi.c"), &flags);
}

struct Fabric<'g> {
    ground: &'g Ground,
    site: HookSite<'g>,
}

impl<'g> Fabric<'g> {
    /// A node with a stand-in provider, its library and its device.
    fn new(ground: &'g Ground, who: Who) -> Self {
        let site = HookSite::new(ground, who);
        let library = site.file("lib/libcxi.so.1", "");
        compile_provider(library.parent().unwrap());
        let node = site.file("dev/.keep", "").with_file_name("cxi0");
        let mknod =
            Command::new("mknod").args(["-m", "666"]).arg(&node).args(["c", "1", "3"]).output();
        assert!(mknod.unwrap().status.success());
        let mut hook: Value = serde_json::from_str(TEMPLATE).unwrap();
        let variable = format!("FABRIC_CONFIG={}", site.path("fabric.json").display());
        hook["hook"]["path"] = json!("sarus-hook-fabric");
        hook["hook"]["env"] = json!([variable]);
        let stages: Vec<&str> = hook["stages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stage| stage.as_str().unwrap())
            .collect();
        site.hook(30, hook["hook"].clone(), &hook["when"], &stages);
        Self { ground, site }
    }

    /// The site's file, changed by `change`.
    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let [library, devices] = ["lib/libcxi-fi.so", "dev/cxi*"].map(|name| self.site.path(name));
        let mut config = json!({
            "version": 1,
            "providers": [{
                "name": "cxi",
                "library": library,
                "devices": [{"source": devices, "directory": "/dev"}],
                "variables": {"FI_CXI_FABRIC": "of-the-site"},
            }],
            "variables": {"FI_MR_CACHE_MONITOR": "disabled"},
        });
        change(&mut config);
        self.site.file("fabric.json", config.to_string());
    }

    fn run(&self, options: &[&str], script: &str) -> Output {
        let options = [&["--annotation", "com.hooks.cxi.enabled=true"], options].concat();
        self.invocation(&options, script).run()
    }

    fn invocation(&self, options: &[&str], script: &str) -> Invocation {
        self.site.with(self.ground.run_with(options, &["sh", "-c", script]))
    }
}

/// An image with `fi_info` and libfabric.
fn image() -> GlibcImage {
    GlibcImage::new(&["/usr/bin/fi_info"])
}

fn old_libfabric() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let versions = "FABRIC_1.0 { global: fi_version; local: *; }; FABRIC_1.1 {} FABRIC_1.0;";
    fs_err::write(directory.path().join("versions"), versions).unwrap();
    let source = "unsigned fi_version(void) { return 65536; }";
    let flags = ["-Wl,--version-script,versions"];
    fs_err::read(compile(directory.path(), "libfabric.so.1", source, &flags)).unwrap()
}

fn host_libfabric() -> PathBuf {
    let text = Command::new("ldd").arg("/usr/bin/fi_info").output().unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find(|line| line.contains("libfabric.so.1")).unwrap();
    line.split_whitespace().nth(2).unwrap().into()
}

/// What `fi_info` says of it.
pub(crate) const SHOWN: &str = "provider: cxi\n    fabric: of-the-site\n    domain: cxi-domain\n";

fn a_provider_is_there_with_its_library_device_and_variables(who: Who, runtime: Runtime) {
    let image = image();
    let ground = Ground::with(who, runtime, &image.pack());
    let fabric = Fabric::new(&ground, who);
    fabric.configure(|_| {});
    let output =
        fabric.run(&[], "fi_info -p cxi; stat -c '%t:%T' /dev/cxi0; echo $FI_MR_CACHE_MONITOR");
    assert!(output.ok().starts_with(SHOWN), "{output}");
    assert!(output.stdout.ends_with("\n1:3\ndisabled\n"), "{output}");
    assert_eq!(output.stderr, "", "{output}");
    // What the user says stays, and an image's own directory is used.
    let options = ["--env", "FI_CXI_FABRIC=of-the-user", "--env", "FI_PROVIDER_PATH=/opt/fi"];
    let output = fabric.run(&options, "ls /opt/fi; fi_info -p cxi");
    assert!(
        output.ok().starts_with("libcxi-fi.so\nprovider: cxi\n    fabric: of-the-user\n"),
        "{output}"
    );
    // Without the annotation the container knows nothing of it.
    let output = fabric.invocation(&[], "fi_info -p cxi; ls /dev/cxi0").run();
    assert!(output.code() != Some(0) && output.stdout.is_empty(), "{output}");
    let off = fabric.run(&["--annotation", "com.hooks.cxi.enabled=false"], "ls /dev/cxi0");
    assert_ne!(off.code(), Some(0), "{off}");
}

fn an_older_libfabric_is_replaced_by_the_sites(who: Who, runtime: Runtime) {
    let mut image = image();
    let libfabric = image.directory_of("libfabric.so.1").join("libfabric.so.1");
    // What the site's libfabric needs is not in the image either.
    let kept = ["ldconfig", "fi_info", "libc.so.6", "libm.so.6"];
    image.retain(|name| kept.contains(&name) || name.starts_with("ld-linux"));
    image.file(&libfabric, old_libfabric());
    let ground = Ground::with(who, runtime, &image.pack());
    let fabric = Fabric::new(&ground, who);
    fabric.configure(|config| {
        config["libfabric"] = json!({"library": host_libfabric()});
    });
    let output = fabric.run(&[], "fi_info -p cxi");
    assert!(output.ok().starts_with(SHOWN), "{output}");
    let verbose = fabric.site.with(ground.session.sarus(["--verbose", "run", "--runtime"]).args([
        runtime.name(),
        "--annotation",
        "com.hooks.cxi.enabled=true",
        &ground.image,
        "true",
    ]));
    let verbose = verbose.run();
    assert!(verbose.stderr.contains("libfabric ends with FABRIC_1.1"), "{verbose}");
    // Where the site wants no replacement, the container starts without the fabric.
    fabric.configure(|config| {
        config["libfabric"] = json!({"library": host_libfabric(), "replace": "never"});
    });
    let output = fabric.run(&[], "ls /dev/cxi0 2> /dev/null; echo started");
    assert_eq!(output.ok(), "started\n");
    assert!(output.stderr.contains("libfabric ends with FABRIC_1.1"), "{output}");
}

fn a_newer_c_library_is_named_and_needed_only_where_the_site_requires_it(
    who: Who,
    runtime: Runtime,
) {
    let ground = Ground::with(who, runtime, &image().pack());
    let fabric = Fabric::new(&ground, who);
    let stub = tempfile::tempdir().unwrap();
    fs_err::write(stub.path().join("versions"), "GLIBC_2.99 { global: *; };").unwrap();
    let flags = ["-nostdlib", "-Wl,--version-script,versions"];
    let newer = compile(stub.path(), "libc.so.6", "void newer(void) {}", &flags);
    let library = fabric.site.file("lib/libnew-fi.so", "");
    let source = "void newer(void); void *fi_prov_ini(void) { newer(); return 0; }";
    let flags = ["-nostdlib", newer.to_str().unwrap()];
    compile(library.parent().unwrap(), "libnew-fi.so", source, &flags);
    let new = fabric.site.path("lib/libnew-fi.so");
    fabric.configure(|config| config["providers"][0]["library"] = json!(new));
    let wanted =
        format!("`{}` needs GLIBC_2.99 (the image's `libc.so.6` ends with GLIBC_2.", new.display());
    let output = fabric.run(&[], "echo started");
    assert_eq!(output.ok(), "started\n");
    assert!(output.stderr.contains(&wanted), "{output}");
    fabric.configure(|config| {
        config["providers"][0]["library"] = json!(new);
        config["required"] = json!(true);
    });
    let output = fabric.run(&[], "echo started");
    output.failed(125);
    assert!(output.stdout.is_empty() && output.stderr.contains(&wanted), "{output}");
    assert!(output.stderr.contains("the site requires"), "{output}");
}

/// The file says what root mounts into every container.
#[test]
fn a_file_that_others_can_write_is_refused_when_root_runs() {
    let ground = Ground::new(Who::Root, Runtime::Runc);
    let fabric = Fabric::new(&ground, Who::Root);
    fabric.configure(|_| {});
    let file = fabric.site.file("fabric.json", r#"{"version": 1}"#);
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs_err::set_permissions(file, all).unwrap();
    let output = fabric.run(&[], "echo started");
    assert_eq!((output.code(), output.stdout.as_str()), (Some(125), ""), "{output}");
    assert!(output.stderr.contains("fabric.json` is not safe"), "{output}");
}

fn an_image_without_glibc_starts_and_says_why(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &Image::busybox().pack());
    let fabric = Fabric::new(&ground, who);
    fabric.configure(|_| {});
    let output = fabric.run(&[], "echo started");
    assert_eq!(output.ok(), "started\n");
    assert!(output.stderr.contains("the image has no GNU C library"), "{output}");
}

fn a_node_without_the_device_gives_nothing(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &Image::busybox().pack());
    let fabric = Fabric::new(&ground, who);
    fabric.configure(|config| {
        config["providers"][0]["devices"] = json!(["/dev/no-such-fabric*"]);
        config["required"] = json!(true);
    });
    let output = fabric.run(&[], "env | grep -c '^FI_CXI'");
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("0\n", ""), "{output}");
}

fn the_plug_in_of_nccl_comes_in_the_variant_asked_for(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &image().pack());
    let fabric = Fabric::new(&ground, who);
    let library = fabric.site.file("nccl/libnccl-net.so", "");
    let source = "unsigned fi_version(void); unsigned ncclNet_v8(void) { return fi_version(); }";
    compile(library.parent().unwrap(), "libnccl-net.so", source, &["-lfabric"]);
    let library = fabric.site.path("nccl/libnccl-net.so");
    fabric.configure(|config| {
        config["awsOfiNccl"] = json!({"variants": {
            "cuda12": {"library": library, "variables": {"NCCL_NET": "AWS Libfabric"}},
            "cuda11": {"library": "/nonexistent"},
        }});
    });
    let on = ["--annotation", "com.hooks.aws_ofi_nccl.enabled=true", "--annotation"];
    let options = [&on[..], &["com.hooks.aws_ofi_nccl.variant=cuda12"]].concat();
    // The loader says on standard error what it cannot preload.
    let script = "LD_PRELOAD=libnccl-net.so fi_info -p cxi; echo $NCCL_NET";
    let output = fabric.run(&options, script);
    assert!(output.ok().starts_with(SHOWN), "{output}");
    assert!(output.stdout.ends_with("AWS Libfabric\n"), "{output}");
    assert_eq!(output.stderr, "", "{output}");
    let options = [&on[..], &["com.hooks.aws_ofi_nccl.variant=rocm5"]].concat();
    let output = fabric.run(&options, "true");
    output.failed(125);
    assert!(output.stderr.contains("one of: cuda11, cuda12"), "{output}");
}
