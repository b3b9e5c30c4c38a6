//! What could give privilege gives none: in the real Debian image, where all of it is wide open.

use sarus_integration_tests::{Runtime, Who, debian};

use crate::{Ground, in_every_mode};

in_every_mode!(
    nothing_in_the_image_gives_privilege,
    nothing_of_the_host_is_reached_that_was_not_asked_for,
);

fn nothing_in_the_image_gives_privilege(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian());
    let uid = ground.session.uid();
    let capabilities = "grep -h '^Cap' /proc/self/status";
    // A set-user-id program stays the user.
    assert_eq!(ground.shell("/usr/local/bin/setuid-id -u").run().ok(), format!("{uid}\n"));
    // A file with capabilities is either refused, or starts without them.
    let output = ground.shell("/usr/local/bin/capable-capsh --has-p=cap_sys_admin").run();
    assert_ne!(output.code(), Some(0), "{output}");
    for script in ["su -c 'mount -t tmpfs none /mnt'", "sudo -n mount -t tmpfs none /mnt"] {
        let output = ground.shell(script).run();
        assert_ne!(output.code(), Some(0), "{script}: {output}");
    }
    if who == Who::User {
        for script in ["su -c 'id -u'", "sudo -n id -u"] {
            let output = ground.shell(script).run();
            assert_ne!(output.stdout, "0\n", "{script}: {output}");
        }
    }
    for script in [capabilities, &format!("su -c \"{capabilities}\"")] {
        let output = ground.shell(script).run();
        for line in output.stdout.lines() {
            assert!(line.ends_with("\t0000000000000000"), "{script}: {output}");
        }
    }
    assert_eq!(ground.shell(capabilities).run().ok().lines().count(), 5);
}

fn nothing_of_the_host_is_reached_that_was_not_asked_for(who: Who, runtime: Runtime) {
    let ground = Ground::with(who, runtime, &debian());
    for script in [
        "mount -t tmpfs none /mnt",
        "umount /proc",
        "mknod /tmp/device b 7 0",
        "mount -o remount,rw /sys",
        "echo 1 > /proc/sys/kernel/printk",
        "chroot / true",
        "nsenter --target 1 --mount true",
        "ls /home/researcher/../../var/tmp/sarus-it* 2>/dev/null | grep .",
    ] {
        let output = ground.shell(script).run();
        assert_ne!(output.code(), Some(0), "{script}: {output}");
    }
}
