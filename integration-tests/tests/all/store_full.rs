//! File systems that refuse: full, over a quota, read-only, in two parts. What was there stays.

use sarus_integration_tests::{Output, Registry, Session, Who};

use crate::store_shared::image;

/// Runs a script in a mount namespace of its own: `$STORE` is the store's directory, there
/// already, `$SMALL` and `$LARGE` are images of 200 kB and 1 MB, `fails` shows the error of a
/// command that must fail.
fn script(text: &str) -> Output {
    let registry = Registry::start();
    let session = Session::new(Who::Root);
    session.trust(&[registry.host()]);
    let small = registry.push("small:1", &image(&[1]));
    let large = registry.push("large:1", &image(&[2, 3, 4, 5, 6]));
    let functions = "set -eu
        fails() { if \"$@\" 2> \"$HOME/said\"; then exit 99; else status=$?; fi
                  cat \"$HOME/said\"; echo \"status $status\"; }
        listed() { sarus images --format json | grep -c '\"repository\"' || true; }
        mkdir -p \"$STORE\"";
    let program = ["unshare", "--mount", "sh", "-c"];
    session
        .program(program)
        .args([format!("{functions}\n{text}")])
        .env("STORE", session.home().join(".local/share/sarus"))
        .env("SMALL", small)
        .env("LARGE", large)
        .run()
}

fn assert_said(output: &Output, parts: &[&str]) {
    for part in parts {
        assert!(output.ok().contains(part), "nothing of {part:?} in: {output}");
    }
}

#[test]
fn a_full_file_system_is_named_and_the_images_that_are_there_stay() {
    let output = script(
        "mount -t tmpfs -o size=900k none \"$STORE\"
         sarus pull --quiet \"$SMALL\"
         fails sarus pull --quiet \"$LARGE\"
         echo \"$(listed) listed, $(ls \"$STORE/tmp\" \"$STORE/images/v1\" | grep -c ,) left\"
         sarus prune --force
         sarus inspect \"$SMALL\" | grep squashfsDigest",
    );
    let cause = "No space left on device";
    let parts = ["error: ", cause, "hint: ", "status 125", "1 listed, 0 left", "Total reclaimed"];
    assert_said(&output, &parts);
}

/// As NFS clients do, bindfs keeps a file that is removed while it is open, under another name.
#[test]
fn a_failed_pull_leaves_nothing_on_a_file_system_that_keeps_open_files() {
    let output = script(
        "mkdir \"$HOME/server\"; mount -t tmpfs -o size=900k none \"$HOME/server\"
         bindfs \"$HOME/server\" \"$STORE\"
         sarus pull --quiet \"$SMALL\"
         fails sarus pull --quiet \"$LARGE\"
         echo \"$(listed) listed, $(ls \"$STORE/tmp\" \"$STORE/images/v1\" | grep -c ,) left\"
         exec 9< \"$(echo \"$STORE\"/images/v1/*/image.squashfs)\"
         sarus rmi --force \"$SMALL\"
         exec 9<&-
         sarus prune --force
         echo \"$(find \"$STORE\" -mindepth 1 | grep -c ,) in the end\"
         umount \"$STORE\"",
    );
    assert_said(&output, &["No space left on device", "status 125", "1 listed, 0 left"]);
    assert_said(&output, &["Deleted: sha256:", "leftover", "removed,", "0 in the end"]);
}

/// Of the file systems with quotas btrfs needs no tools but its own.
#[test]
fn a_quota_that_is_exceeded_is_named_and_the_images_that_are_there_stay() {
    let output = script(
        "truncate -s 256M \"$HOME/disk\"; mkfs.btrfs -q \"$HOME/disk\" > \"$HOME/log\"
         mkdir \"$HOME/btrfs\"; mount -o loop \"$HOME/disk\" \"$HOME/btrfs\"
         btrfs -q quota enable \"$HOME/btrfs\"; btrfs -q subvolume create \"$HOME/btrfs/store\"
         btrfs -q qgroup limit 900k \"$HOME/btrfs/store\"
         mount --bind \"$HOME/btrfs/store\" \"$STORE\"
         sarus pull --quiet \"$SMALL\"
         fails sarus pull --quiet \"$LARGE\"
         echo \"$(listed) listed, $(ls \"$STORE/tmp\" \"$STORE/images/v1\" | grep -c ,) left\"
         sarus prune --force
         sarus verify --deep \"$SMALL\"",
    );
    let hint = "hint: your quota is used up";
    let parts = ["Disk quota exceeded", hint, "status 125", "1 listed, 0 left"];
    assert_said(&output, &parts);
    assert_said(&output, &["Total reclaimed"]);
}

/// The kernel says once that the disk did not take something: whoever asks early must not forget it.
#[test]
fn a_disk_that_fails_while_the_image_is_still_written_is_named() {
    let output = script(
        "mkdir \"$HOME/root\"; head -c 140M /dev/urandom > \"$HOME/root/data\"
         tar -C \"$HOME/root\" -cf \"$HOME/root.tar\" .
         sarus pull --quiet \"$SMALL\"
         fails strace -f -qq -o \"$HOME/calls\" -e trace=fdatasync -e inject=fdatasync:error=EIO \\
           sarus load --quiet \"$HOME/root.tar\" broken:1
         grep -c fdatasync \"$HOME/calls\"
         echo \"$(listed) listed, $(ls \"$STORE/tmp\" \"$STORE/images/v1\" | grep -c ,) left\"
         sarus load --quiet \"$HOME/root.tar\" sound:1
         sarus verify --deep sound:1",
    );
    let parts = ["image.squashfs", "Input/output error", "status 125", "1 listed, 0 left"];
    assert_said(&output, &parts);
    assert_said(&output, &["sound:1: sound"]);
}

#[test]
fn a_read_only_file_system_can_be_listed_and_says_what_it_is() {
    let output = script(
        "sarus pull --quiet \"$SMALL\"
         mount --bind \"$STORE\" \"$STORE\"; mount -o remount,bind,ro \"$STORE\"
         fails sarus pull --quiet \"$LARGE\"
         fails sarus rmi \"$SMALL\"
         echo \"$(listed) listed\"
         sarus inspect \"$SMALL\" | grep squashfsDigest",
    );
    let hint = "hint: the file system is mounted read-only";
    assert_said(&output, &["Read-only file system", hint, "status 125", "1 listed", "sha256:"]);
}

#[test]
fn a_store_on_two_file_systems_is_called_that() {
    let output = script(
        "sarus pull --quiet \"$SMALL\"
         mkdir \"$HOME/other\"; mount -t tmpfs none \"$HOME/other\"
         mount --bind \"$HOME/other\" \"$STORE/images/v1\"
         fails sarus pull --quiet \"$LARGE\"
         umount \"$STORE/images/v1\"
         echo \"$(listed) listed, $(ls \"$STORE/tmp\" | wc -l) left\"",
    );
    let parts = ["cross-device link", "must be on one file system", "status 125"];
    assert_said(&output, &parts);
    assert_said(&output, &["1 listed, 0 left"]);
}
