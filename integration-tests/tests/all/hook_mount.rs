//! The hook `mount`: what its arguments name is in the container, whoever starts it.

use sarus_integration_tests::{Image, Runtime, Who};
use serde_json::json;

use crate::glibc_image::GlibcImage;
use crate::hook_site::HookSite;
use crate::{Ground, in_every_mode};

in_every_mode!(
    mounts_and_devices_are_there,
    a_file_of_sarus_1_7_puts_a_provider_beside_libfabric,
    what_cannot_be_mounted_stops_the_container,
);

fn mounts_and_devices_are_there(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &Image::busybox().pack());
    let site = HookSite::new(&ground, who);
    site.file("directory/file", "of the host\n");
    site.file("conf", "configured\n");
    let [directory, conf] = ["directory", "conf"].map(|name| site.path(name));
    let arguments = [
        "mount_hook".to_owned(),
        format!("--mount=type=bind,src={},dst=/opt/new/place", directory.display()),
        format!("--mount=dst=/etc/site.conf,readonly,type=bind,source={}", conf.display()),
        "--device=/dev/zero:/dev/stand-in:rw".to_owned(),
    ];
    let hook = json!({"path": "sarus-hook-mount", "args": arguments});
    let when = json!({"annotations": {"^com\\.example\\.on$": "^true$"}});
    site.hook(12, hook, &when, &["createContainer"]);
    let script = "cat /opt/new/place/file /etc/site.conf; head -c 3 /dev/stand-in | od -An -tx1; \
                  echo x 2> /dev/null > /etc/site.conf && echo written; \
                  grep -c ' /opt/new/place ' /proc/self/mountinfo";
    let command = ["sh", "-c", script];
    let run = ground.run_with(&["--annotation", "com.example.on=true"], &command);
    assert_eq!(site.with(run).run().ok(), "of the host\nconfigured\n 00 00 00\n1\n");
    let without = site.with(ground.run(&["ls", "/opt"])).run();
    assert_ne!(without.code(), Some(0), "{without}");
}

/// The file of the documentation of Sarus 1.7, "Libfabric provider injection", with other sources.
fn a_file_of_sarus_1_7_puts_a_provider_beside_libfabric(who: Who, runtime: Runtime) {
    let image = GlibcImage::new(&["/usr/bin/fi_info"]);
    let ground = Ground::with(who, runtime, &image.pack());
    let site = HookSite::new(&ground, who);
    for (name, content) in [
        ("libfabric/libgnix-fi.so", "provider"),
        ("libxpmem.so.0", "xpmem"),
        ("libugni.so.0", "ugni"),
        ("alps/state", "alps"),
    ] {
        site.file(name, content);
    }
    let mount = |source: &str, destination: &str| {
        format!("--mount=type=bind,src={},dst={destination}", site.path(source).display())
    };
    let arguments = [
        "mount_hook".to_owned(),
        mount("libfabric/libgnix-fi.so", "<FI_PROVIDER_PATH>/libgnix-fi.so"),
        mount("libxpmem.so.0", "/usr/lib/libxpmem.so.0"),
        mount("libugni.so.0", "/usr/lib64/libugni.so.0"),
        mount("alps", "/var/opt/cray/alps"),
        "--device=/dev/null:/dev/kgni0".to_owned(),
    ];
    let variables = ["LDCONFIG_PATH=/sbin/ldconfig"];
    let hook = json!({"path": "sarus-hook-mount", "args": arguments, "env": variables});
    let when = json!({"annotations": {
        "^com.hooks.mpi.enabled$": "^true$",
        "^com.hooks.mpi.type$": "^libfabric$"
    }});
    site.hook(12, hook, &when, &["createContainer"]);
    let beside = image.directory_of("libfabric.so.1").join("libfabric/libgnix-fi.so");
    let script = format!(
        "cat {} /usr/lib/libxpmem.so.0 /usr/lib64/libugni.so.0 /var/opt/cray/alps/state; echo; \
         /sbin/ldconfig -p | grep -E 'libugni|libxpmem' | tr -d '\\t'; test -c /dev/kgni0 && echo device; \
         cat /opt/providers/libgnix-fi.so 2> /dev/null",
        beside.display()
    );
    let command = ["sh", "-c", &script];
    let options = ["--mpi-type=libfabric"];
    let run = site.with(ground.run_with(&options, &command)).run();
    assert!(run.stdout.starts_with("providerxpmemugnialps\n"), "{run}");
    for library in ["/usr/lib/libxpmem.so.0", "/usr/lib64/libugni.so.0"] {
        assert!(run.stdout.contains(&format!(" => {library}\n")), "{run}");
    }
    assert!(run.stdout.ends_with("device\n"), "{run}");
    // The container's own variable comes first.
    let options = ["--mpi-type=libfabric", "--env", "FI_PROVIDER_PATH=/opt/providers"];
    let command = ["cat", "/opt/providers/libgnix-fi.so"];
    assert_eq!(site.with(ground.run_with(&options, &command)).run().ok(), "provider");
}

fn what_cannot_be_mounted_stops_the_container(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &Image::busybox().pack());
    let site = HookSite::new(&ground, who);
    let arguments = ["mount_hook", "--mount=type=bind,src=/nonexistent/library,dst=/x"];
    let hook = json!({"path": "sarus-hook-mount", "args": arguments});
    site.hook(12, hook, &json!({"always": true}), &["createContainer"]);
    let output = site.with(ground.run(&["echo", "started"])).run();
    assert_eq!((output.code(), output.stdout.as_str()), (Some(125), ""), "{output}");
    assert!(output.stderr.contains("cannot mount `/nonexistent/library` on `/x`"), "{output}");
}
