//! The hook as real root, on behalf of a user: the shim is installed setuid root.

use sarus_integration_tests::{Output, Runtime, Who};

use super::driver::{image, make_driver};
use crate::in_mode;
use crate::setuid::{IMAGE, Site, is_privileged};

in_mode!(with_runc, User, Runc, a_user_gets_gpus_and_no_more_than_the_node_gives_them);
in_mode!(with_crun, User, Crun, a_user_gets_gpus_and_no_more_than_the_node_gives_them);

/// The driver and specifications as root installs them. The node and the file of the device
/// `closed` are for root only.
const PREPARE: &str = r#"cp -a "$DRIVER" /srv/driver; chown -R root:root /srv/driver
    mkdir /srv/hooks /srv/cdi
    mknod -m 600 /srv/closed-node c 1 3; mknod -m 666 /srv/open-node c 1 3
    cat > /srv/cdi/x.yaml <<'END'
cdiVersion: 0.7.0
kind: example.com/x
devices:
- name: open
  containerEdits:
    deviceNodes: [{path: /dev/open, hostPath: /srv/open-node}]
    additionalGids: [4711]
- name: closed
  containerEdits:
    deviceNodes: [{path: /dev/closed, hostPath: /srv/closed-node}]
- name: secret
  containerEdits:
    mounts: [{containerPath: /opt/secret, hostPath: /srv/closed/file, options: [bind]}]
END
    echo text > /srv/closed/file
    printf '{"version": "1.0.0", "hook": {"path": "/srv/bin/sarus-hook-gpu",
        "env": ["GPU_HOST_ROOT=/srv/driver", "CDI_SPEC_DIRS=/srv/cdi"]},
        "when": {"always": true}, "stages": ["precreate"]}' > /srv/hooks/20-gpu.json"#;

fn run(site: &Site, options: &[&str], script: &str) -> Output {
    let driver = site.ground.session.directory().join("driver");
    let runtime = site.ground.runtime.name();
    let words = ["sarus", "--verbose", "run", "--runtime", runtime];
    let all = [&words, options, &[IMAGE, "sh", "-c", script]].concat();
    site.user(&all).env("DRIVER", driver).run()
}

fn a_user_gets_gpus_and_no_more_than_the_node_gives_them(_: Who, runtime: Runtime) {
    let mut site = Site::with(runtime, &image(false));
    site.config = r#"{"centralizedRepositoryDir": "/srv/store", "hooksDir": ["/srv/hooks"]}"#;
    site.prepare = PREPARE;
    make_driver(&site.ground.session.directory().join("driver"), &[]);
    let gpu = ["-e", "NVIDIA_VISIBLE_DEVICES=0"];
    let output = run(&site, &gpu, "ask; nvidia-smi; cd /dev; echo nvidia?; echo x > nvidia1");
    assert!(is_privileged(&output), "{output}");
    assert_eq!(output.ok(), "cuda of driver 535.104.05\nsmi of the host\nnvidia1\n", "{output}");

    let device = ["--device", "example.com/x=open"];
    let output = run(&site, &device, "echo x > /dev/open && id -u; id -G");
    let lines: Vec<&str> = output.ok().lines().collect();
    assert_eq!(lines[0], site.ground.session.uid().to_string(), "{output}");
    if runtime == Runtime::Runc {
        assert!(lines[1].split(' ').any(|gid| gid == "4711"), "{output}");
    }
    let output = run(&site, &["--device", "example.com/x=closed"], "echo x > /dev/closed");
    assert_eq!(output.code(), Some(1), "{output}");
    assert!(output.stderr.contains("Permission denied"), "{output}");
    let output = run(&site, &["--device", "example.com/x=secret"], "cat /opt/secret");
    assert!(output.failed(125).contains("`/srv/closed/file`"), "{output}");
    assert!(!output.stdout.contains("text"), "{output}");
}
