//! Tests of the built programs, with real registries, runtimes and users. They run as root; what
//! they need is installed by `ci/install-deps test`, and what is missing fails.

#![allow(
    clippy::unwrap_used,
    reason = "clippy allows it in test functions; what they share ends the test the same way"
)]

mod bad_input;
mod containers;
mod convert;
mod explain;
mod glibc_image;
mod guides;
mod hook_fabric;
mod hook_failures;
mod hook_gpu;
mod hook_mount;
mod hook_mpi;
mod hook_mpi_slurm;
mod hook_site;
mod hook_slurm_sync;
mod hook_ssh;
mod hook_timestamp;
mod hooks;
mod hooks_elsewhere;
mod hooks_guide;
mod hooks_setuid;
mod images;
mod install;
mod life_cycle;
mod load;
mod privilege;
mod pull;
mod pull_bounds;
mod registries;
mod resume;
mod run;
mod run_options;
mod seccomp;
mod setuid;
mod setuid_attacks;
mod sharing;
mod signatures;
mod slurm;
mod slurm_speed;
mod store_calls;
mod store_crash;
mod store_full;
mod store_kills;
mod store_shared;

use sarus_integration_tests::{Image, Packed, Registry, Runtime, Session, Who};

/// A session in which one image, `image`, was pulled, and how it is to be run.
struct Ground {
    session: Session,
    image: String,
    runtime: Runtime,
}

impl Ground {
    fn with(who: Who, runtime: Runtime, image: &Packed) -> Self {
        let registry = Registry::start();
        let session = Session::new(who);
        session.trust(&[registry.host()]);
        let image = registry.push("app:1", image);
        session.sarus(["pull", "--quiet", &image]).run().ok();
        Self { session, image, runtime }
    }

    /// With BusyBox as the image.
    fn new(who: Who, runtime: Runtime) -> Self {
        Self::with(who, runtime, &Image::busybox().pack())
    }

    /// `sarus run OPTIONS IMAGE COMMAND`.
    fn run_with(&self, options: &[&str], command: &[&str]) -> sarus_integration_tests::Invocation {
        self.session
            .sarus(["run", "--runtime", self.runtime.name()])
            .args(options)
            .args([&self.image])
            .args(command)
    }

    /// `sarus run IMAGE COMMAND`.
    fn run(&self, command: &[&str]) -> sarus_integration_tests::Invocation {
        self.run_with(&[], command)
    }

    /// `sarus run IMAGE sh -c SCRIPT`.
    fn shell(&self, script: &str) -> sarus_integration_tests::Invocation {
        self.run(&["sh", "-c", script])
    }
}

/// Makes a test of each function for both ways to run and both runtimes.
macro_rules! in_every_mode {
    ($($claim:ident),* $(,)?) => {
        crate::in_mode!(as_user_runc, User, Runc, $($claim),*);
        crate::in_mode!(as_user_crun, User, Crun, $($claim),*);
        crate::in_mode!(as_root_runc, Root, Runc, $($claim),*);
        crate::in_mode!(as_root_crun, Root, Crun, $($claim),*);
    };
}

macro_rules! in_mode {
    ($mode:ident, $who:ident, $runtime:ident, $($claim:ident),*) => {
        mod $mode {
            use sarus_integration_tests::{Runtime, Who};
            $(#[test]
            fn $claim() {
                super::$claim(Who::$who, Runtime::$runtime);
            })*
        }
    };
}

use {in_every_mode, in_mode};
