//! ssh: a server and a client of the user's own in their containers, so that a program in one
//! container starts programs in those of other nodes.
//!
//! At `createRuntime` it lays dropbear of the host with all its libraries into the container, and
//! starts the server in the container's namespaces with the user's rights. The server ends with the
//! container's PID namespace. `sarus-hook-ssh keygen` makes the user's keys.
//!
//! `docs/hooks/ssh.md` says what administrators set.

mod daemon;
mod install;
mod keys;
mod scripts;
mod settings;
mod software;

use std::process::ExitCode;

use sarus_hook::{Account, Container, Failure, Plan};
use sarus_sys::identity::{Person, with_rights_of};
use sarus_sys::namespace;

use crate::install::Installation;
use crate::settings::Settings;

/// The hook's name, in messages and as the directory of the user's keys.
const NAME: &str = "ssh";

/// Where everything of the hook's is in the container.
const PLACE: &str = "/opt/oci-hooks/ssh";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        Some("keygen") => keys::command(&words[1..]),
        _ => sarus_hook::run(NAME, plan),
    }
}

fn plan(container: &Container) -> Result<Plan, Failure> {
    let settings = Settings::of(container, |name| std::env::var(name).ok())?;
    match container.state() {
        Some(state) if state.status == "stopped" => Ok(plan_end(container, &settings)),
        Some(_) => plan_start(container, &settings),
        None => Err(Failure::new("cannot start an ssh server before there is a container")
            .hint("name the stages `createRuntime` and `poststop` in the hook's file")),
    }
}

fn plan_start(container: &Container, settings: &Settings) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    let pid = container.state().and_then(|state| state.pid).unwrap_or_default();
    if !has_own_processes(pid)? {
        return Err(Failure::new(
            "the container has no PID namespace of its own, with which the \
             ssh server would end",
        )
        .hint("`sarus run --ssh` gives it one; else add `--pid=private`"));
    }
    let account = Account::of(container)?;
    if account.uid == 0 {
        // It changes groups for each session, which the container's root may not.
        return Err(Failure::new("cannot start an ssh server for root")
            .because("dropbear serves root with privileges only, and a container has none"));
    }
    let person = person(container);
    let directory = account.directory(NAME).join("keys");
    let keys = as_user(person, || keys::load(&directory))??;
    let authorized = as_user(person, || settings.authorized(&keys))??;
    let software = software::find(settings.dropbear.as_deref())?;
    plan.note(format!("the server is `{}`", software.server.display()));
    let (port, tree) = (settings.port, format!("`{PLACE}` in the container"));
    let what = format!("show dropbear, its libraries and the user's keys at {tree}");
    let has_loader = software.loader.is_some();
    let start = daemon::Start::of(container, settings, (person, pid), has_loader)?;
    let installation = Installation {
        root: container
            .root()?
            .0
            .try_clone_to_owned()
            .map_err(|error| Failure::new("cannot open the container's root").because(error))?,
        person,
        software,
        authorized,
        session: scripts::session(container.variables()),
        client: scripts::client(settings.port, &keys.host_public),
        keys,
        home: account.home,
        hides_home: settings.hides_home,
    };
    let why = "the image need not have an ssh server that fits";
    plan.act(what, why, move || installation.install());
    let what = format!("start the ssh server on port {port}, as the user");
    plan.act(what, "the container was started with `--ssh`", move || start.start());
    Ok(plan)
}

/// The server has ended with the container's namespace; its file outside is left.
fn plan_end(container: &Container, settings: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(path) = settings.pidfile_host.clone() else { return plan };
    if container.configuration().is_null() {
        plan.note("the container's configuration is gone, and with it whose container it was");
        return plan;
    }
    let person = person(container);
    plan.act(format!("remove `{}`", path.display()), "the server has ended", move || {
        as_user(person, || daemon::remove_pidfile(&path))?
    });
    plan
}

fn has_own_processes(pid: i32) -> Result<bool, Failure> {
    let failed = |error| Failure::new("cannot look at the container's namespaces").because(error);
    let theirs = namespace::of(&pid.to_string(), "pid").and_then(namespace::number);
    Ok(theirs.map_err(failed)? != namespace::own_number("pid").map_err(failed)?)
}

fn person(container: &Container) -> Person {
    let person = container.person();
    Person { uid: person.uid, gid: person.gid }
}

/// Does something with the rights of the container's user.
fn as_user<T>(person: Person, act: impl FnOnce() -> T) -> Result<T, Failure> {
    with_rights_of(person, act)
        .map_err(|error| Failure::new("cannot act with the user's rights").because(error))
}
