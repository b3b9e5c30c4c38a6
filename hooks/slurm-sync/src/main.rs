//! slurm-sync: no container of a Slurm step starts before all tasks of the step have theirs.
//!
//! Tasks of a node meet at an abstract socket; one of them, the leader, speaks for the node to the
//! leader of the step's first node, over TCP. Everybody waits for one answer, asleep; a process
//! that ends takes its sockets along, so nothing is left to remove.
//!
//! `docs/hooks/slurm-sync.md` says what administrators set.

mod key;
mod leader;
mod local;
mod meet;
mod peer;
mod remote;
mod step;
mod wire;

use std::process::ExitCode;

use sarus_hook::{Container, Failure, Plan};

use crate::meet::Settings;
use crate::step::Found;

/// The hook's name in messages; the annotation and the directory have the longer one of Sarus 1.7.
const NAME: &str = "slurm-sync";

fn main() -> ExitCode {
    sarus_hook::run(NAME, plan)
}

fn plan(container: &Container) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    let settings = Settings::from(|name| std::env::var(name).ok())?;
    let step = match step::find(container.variables())? {
        Found::Nobody(reason) => {
            plan.note(format!("waits for nobody: {reason}"));
            return Ok(plan);
        }
        Found::Step(step) => step,
    };
    let what = format!(
        "wait until all {} tasks of the step {} have their containers, at most {} s",
        step.tasks,
        step.id,
        settings.limit.as_secs()
    );
    let why = "what the tasks start with, such as connections by ssh, needs all containers";
    let (person, user) = (container.person(), sarus_hook::host_user(container));
    plan.act(what, why, move || {
        sarus_hook::give_up_rights(&person)?;
        meet::meet(&step, &settings, user)
    });
    Ok(plan)
}
