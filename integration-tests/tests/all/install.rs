//! `ci/install` puts the product where a packager wants it, and `ci/uninstall` takes it away.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sarus_integration_tests::Programs;

fn script(name: &str, stage: &Path, programs: &Path, arguments: &[&str]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci").join(name);
    let output = Command::new(path)
        .args(arguments)
        .env("DESTDIR", stage)
        .env("SARUS_BUILD_DIR", programs)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_is_installed_runs_and_goes_again() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let programs = Programs::install(&directory.path().join("built"));
    let stage = directory.path().join("stage");
    fs_err::create_dir(&stage).unwrap();
    script("install", &stage, programs.directory(), &["/opt/sarus"]);
    let prefix = stage.join("opt/sarus");
    let version = Command::new(prefix.join("bin/sarus")).arg("--version").output().unwrap();
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains("2.0.0"));
    let hook = fs_err::read_to_string(prefix.join("share/sarus/hooks.d/60-mount.json")).unwrap();
    assert!(hook.contains("\"/opt/sarus/libexec/sarus/hooks/sarus-hook-mount\""), "{hook}");
    let plan = Command::new(prefix.join("libexec/sarus/hooks/sarus-hook-mount")).output().unwrap();
    let said = String::from_utf8_lossy(&plan.stderr).into_owned();
    assert!(said.contains("a hook is started by a container engine"), "{said}");
    assert!(!prefix.join("libexec/sarus/hooks/sarus-hook-example").exists());
    let shim = prefix.join("libexec/sarus/sarus-shim");
    let mode = fs_err::metadata(&shim).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755, "no privilege unless asked for");
    script("install", &stage, programs.directory(), &["--setuid", "/opt/sarus"]);
    let mode = fs_err::metadata(&shim).unwrap().permissions().mode();
    assert_eq!(mode & 0o7000, 0o4000);
    script("uninstall", &stage, programs.directory(), &["/opt/sarus"]);
    let left: Vec<_> = walk(&stage).into_iter().filter(|path| !path.is_dir()).collect();
    assert!(left.iter().all(|path| path.starts_with(stage.join("etc"))), "{left:?}");
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}
