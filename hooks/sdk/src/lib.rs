//! What an OCI hook needs, so that a hook is a function from a container to a plan.
//!
//! ```no_run
//! use sarus_hook::{Container, Failure, Plan, Step};
//!
//! fn plan(container: &Container) -> Result<Plan, Failure> {
//!     let mut plan = Plan::default();
//!     if container.annotation("com.example.licence") == Some("true") {
//!         plan.step(Step::bind("/etc/licence", "/etc/licence"), "the annotation asks for it");
//!     }
//!     Ok(plan)
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     sarus_hook::run("licence", plan)
//! }
//! ```
//!
//! The same program serves every stage that changes a container. What it reads on standard input
//! tells which: the state of the runtime specification (`createRuntime`, `createContainer`,
//! `prestart`, ...), or the configuration of a bundle (`precreate`), which comes back edited on
//! standard output. With the argument `--plan` it prints as JSON what it would do and why, and does
//! nothing; at `precreate` the configuration as it would be comes with it (`configuration`).
//!
//! A hook of this kind works under Sarus, Podman and a plain runtime. It may run as root on behalf
//! of a user whose image is hostile: paths in the container are resolved by the kernel inside its
//! root ([`Container::root`]), and whatever parses a file of the image does so in
//! [`Container::survey`], in a process without privileges.
//!
//! Specifications: <https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md#posix-platform-hooks>,
//! `oci-hooks(5)` for `precreate`.

mod account;
mod apart;
mod apply;
mod container;
mod edit;
pub mod elf;
mod enter;
mod failure;
mod input;
pub mod ld_cache;
pub mod libraries;
mod logging;
mod plan;
pub mod site;
mod survey;

use std::io::Write;
use std::process::ExitCode;

pub use account::{Account, give_up_rights, host_user};
pub use container::{Container, Person};
pub use failure::Failure;
pub use input::{INPUT_SIZE_MAX, State};
pub use plan::{Access, Plan, Planned, Step};
pub use sarus_sys::root::Root;

/// The exit status of a hook that failed or refused.
const FAILED: u8 = 1;

/// Runs a hook: reads what the caller says on standard input, plans, and applies the plan, or
/// prints it where the program was started with `--plan`.
///
/// The exit status is 0, or 1 after an error that was said on standard error. After a failure
/// while a plan is applied, what was mounted stays mounted: the runtime gives the container up.
pub fn run(name: &str, plan: impl FnOnce(&Container) -> Result<Plan, Failure>) -> ExitCode {
    match attempt(name, plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            logging::complain(name, &failure);
            ExitCode::from(FAILED)
        }
    }
}

fn attempt(
    name: &str,
    plan: impl FnOnce(&Container) -> Result<Plan, Failure>,
) -> Result<(), Failure> {
    // crun starts hooks with all signals blocked: then nothing but SIGKILL ends them.
    sarus_sys::signals::set_mask(sarus_sys::signals::SignalMask(0))
        .map_err(|error| Failure::new("cannot unblock signals").because(error))?;
    let only_plan = std::env::args_os().skip(1).any(|argument| argument == "--plan");
    let container = Container::from_stdin()?;
    logging::start(name, &container);
    let mut plan = plan(&container)?;
    for planned in &plan.steps {
        log::info!("{}: {}", planned.step, planned.reason);
    }
    for note in &plan.notes {
        log::info!("{note}");
    }
    for warning in &plan.warnings {
        log::warn!("{warning}");
    }
    if only_plan {
        let mut shown = plan.to_json(name);
        if container.is_precreate() {
            shown["configuration"] = edit::configuration(&container, &plan)?;
        }
        return say(&shown);
    }
    if container.is_precreate() {
        let edited = edit::configuration(&container, &plan)?;
        apply::apply(&container, &mut plan)?;
        return say(&edited);
    }
    apply::apply(&container, &mut plan)
}

fn say(value: &serde_json::Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new("cannot write to standard output").because(error))
}
