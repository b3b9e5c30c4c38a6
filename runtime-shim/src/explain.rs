//! `sarus run --explain`: what a run would do, and who decided it, without running it.
//!
//! A process of its own makes what a run makes, in mount namespaces that nobody else joins and that
//! end with it. No runtime is started; of hooks, only those whose files say that they can plan are,
//! with `--plan`, and what they plan to mount is mounted, so that a later one sees it.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Pid;
use sarus_config::hooks::{Decision, Hook, Stage};
use sarus_config::{Runtime as Choice, SeccompProfile};
use sarus_launch::{Origin, Request, Variables};
use sarus_sys::process::{Ended, Fork, PidFd, exit_at_once, fork};
use sarus_sys::root::Root;
use serde_json::{Value, json};

use crate::adopt::{self, Wanted};
use crate::bundle::{self, Contents};
use crate::caller::Caller;
use crate::construct::{self, Plan};
use crate::error::{ShimError, cannot};
use crate::image::Run;
use crate::ledger::Ledger;
use crate::mode::Mode;
use crate::rootfs::{self, Overlay};
use crate::{hooks, setup, start, user_mounts};

/// Parts of names of variables whose values are nobody's business.
const SECRETS: [&str; 9] =
    ["TOKEN", "SECRET", "PASS", "_PWD", "CREDENTIAL", "PRIVATE", "_KEY", "APIKEY", "AUTH"];

/// Longest time, in seconds, that the FUSE server may take to end with its mount.
const PATIENCE: i64 = 10;

/// The explanation, as JSON.
pub(crate) fn run(caller: &Caller, request: &Request) -> Result<Vec<u8>, ShimError> {
    let (image, config, (mode, why)) = start::configure(caller, request)?;
    let (ledger, supervisor) =
        (Ledger::default(), rustix::process::getpid().as_raw_nonzero().get());
    let run = Run { caller, request, config: &config, mode, ledger: &ledger, supervisor };
    let plan = start::plan(run, image)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|e| cannot("become the parent of orphans")(e.into()))?;
    let failed = cannot("make room for the explanation");
    let memory = memfd_create("explanation", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut answer = std::fs::File::from(memory);
    match fork().map_err(cannot("make a process"))? {
        Fork::Child => {
            let told = explain(&plan, &why).and_then(|explained| {
                answer.write_all(explained.to_string().as_bytes()).map_err(&failed)
            });
            let code = told.map_or_else(
                |error| {
                    crate::complain(&crate::error::report(&error));
                    error.exit_code()
                },
                |()| 0,
            );
            exit_at_once(i32::from(code))
        }
        Fork::Parent(child) => {
            if caller.is_setuid() && mode == Mode::Privileged {
                start::give_up_privileges(caller)?;
            }
            let ended = child.wait().map_err(cannot("wait for a process"))?;
            if ended != Ended::Exited(0) {
                let code = u8::try_from(ended.exit_code()).unwrap_or(crate::ENGINE_FAILED);
                return Err(ShimError::Said { code });
            }
            let text = hooks::read_from_start(&mut answer).map_err(&failed)?;
            wait_for_orphans(caller);
            Ok(text)
        }
    }
}

/// The FUSE server ends when the last mount namespace with its mount has ended.
fn wait_for_orphans(caller: &Caller) {
    let is_callers = |pid: &Pid| caller.children.iter().any(|(child, _)| child == pid);
    let children = sarus_sys::process::children().unwrap_or_default();
    for pid in children.into_iter().filter(|pid| !is_callers(pid)) {
        let Ok(process) = PidFd::open(pid) else { continue };
        let mut waited = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        let limit = Timespec { tv_sec: PATIENCE, tv_nsec: 0 };
        let _or_too_late = rustix::io::retry_on_intr(|| poll(&mut waited, Some(&limit)));
        let _reaped = sarus_sys::process::reap_any();
    }
}

fn explain(plan: &Plan<'_>, why: &str) -> Result<Value, ShimError> {
    let run = &plan.run;
    construct::die_with_supervisor(run.supervisor)?;
    if run.mode == Mode::Privileged {
        sarus_sys::identity::become_root().map_err(|source| ShimError::Privileges { source })?;
    }
    let setup = setup::enter_alone(run, &plan.image)?;
    let mounts = user_mounts::open(run, &setup.base)?;
    let own = rootfs::make_own(run, &setup)?;
    let Overlay { root, scratch } = rootfs::overlay(run, &setup, &own)?;
    let root = Root(root.as_fd());
    rootfs::mount_system(run, root)?;
    note_files(run, &crate::prepare::path(&setup.base));
    user_mounts::attach_all(run, mounts, (root, &own.join("rootfs")))?;
    let workdir = construct::make_workdir(run, root)?;
    let variables = construct::container_variables(run);
    let mut annotations = construct::annotations(run, [0, 1, 2]);
    annotations.retain(|name, _| !name.starts_with("com.hooks.logging."));
    let contents = Contents {
        base: &own,
        variables: &variables,
        workdir: &workdir,
        annotations: &annotations,
        hidepid: construct::hidepid(run),
        hooks: hooks::for_bundle(&plan.hooks),
    };
    let spec = bundle::configuration(run, &contents);
    let mut inquiry = Inquiry { run, root, spec, plans: BTreeMap::new(), set_by: BTreeMap::new() };
    // Acting with the caller's rights has undone it: prctl(2), PR_SET_PDEATHSIG.
    construct::die_with_supervisor(run.supervisor)?;
    inquiry.ask_all(plan, &own)?;
    let answer = json!({
        "version": 1,
        "image": {
            "name": run.request.image.name,
            "digest": run.request.image.digest,
            "file": run.request.image.squashfs.to_string_lossy(),
            "mountedBy": mounted_by(run, &setup.lower),
        },
        "mode": { "value": if run.mode == Mode::Privileged { "privileged" } else { "rootless" },
                  "reason": why },
        "runtime": { "path": plan.runtime.path, "reason": runtime_reason(run) },
        "command": annotations.get("com.hooks.command").and_then(|text| serde_json::from_str::<Value>(text).ok()),
        "workdir": workdir,
        "user": { "uid": run.caller.uid, "gid": run.caller.gid, "groups": run.caller.groups },
        "namespaces": namespaces(run),
        "restrictions": restrictions(run),
        "mounts": run.ledger.list(false),
        "devices": run.ledger.list(true),
        "environment": inquiry.environment(&variables),
        "annotations": annotations,
        "hooks": inquiry.hooks()?,
    });
    // Its directory is on disk, and a process that exits at once drops nothing.
    drop((scratch, setup));
    Ok(answer)
}

/// What lies over the image's own files for every container of the user.
fn note_files(run: &Run<'_>, over: &Path) {
    for (name, source, reason) in [
        ("hosts", "/etc/hosts", "names are those of the node"),
        ("resolv.conf", "/etc/resolv.conf", "names are those of the node"),
        ("passwd", "the image's, and the user's line", "programs ask who the user is"),
        ("group", "the image's, and the user's groups", "programs ask for the groups' names"),
    ] {
        if over.join("etc").join(name).exists() {
            let entry = crate::ledger::Entry::own(&format!("/etc/{name}"), source, reason);
            run.ledger.note(entry);
        }
    }
}

fn mounted_by(run: &Run<'_>, lower: &crate::image::Lower) -> String {
    match (run.mode, lower.server, &lower.scratch) {
        (Mode::Privileged, ..) => {
            "the kernel, on a loop device shared by all runs of the image".into()
        }
        (_, Some(_), _) => "a FUSE server, shared by the user's runs of a job on the node".into(),
        (_, None, Some(directory)) => {
            format!(
                "nobody: unpacked in `{}`, since the node has no FUSE",
                directory.path().display()
            )
        }
        _ => "nobody: unpacked".into(),
    }
}

fn runtime_reason(run: &Run<'_>) -> String {
    match &run.request.runtime {
        Some(given) => format!("`--runtime {given}`"),
        None => match &run.config.runtime {
            Choice::Auto => {
                "the first of crun and runc that the node has; crun starts faster".into()
            }
            Choice::Runc | Choice::Crun | Choice::Path(_) => "`runtime` in sarus.json".into(),
        },
    }
}

fn namespaces(run: &Run<'_>) -> Value {
    let own_pids = run.request.namespaces.pid;
    let user = match run.mode {
        Mode::Rootless => json!({"kind": "user", "value": "shared",
            "reason": "rootless: one for all runs of the user in the job or session on the node, so that MPI's processes can copy from each other"}),
        Mode::Privileged => json!({"kind": "user", "value": "host", "reason": "privileged"}),
    };
    json!([
        {"kind": "mount", "value": "new", "reason": "a container has its own files"},
        user,
        {"kind": "pid", "value": if own_pids { "new" } else { "host" },
         "reason": if own_pids { "`--pid=private`, or `--ssh`" } else { "MPI and debuggers see the processes of the node" }},
        {"kind": "network", "value": "host", "reason": "the fabric is the host's"},
        {"kind": "ipc", "value": "host", "reason": "MPI's processes on a node share memory"},
        {"kind": "uts", "value": "host", "reason": "the name is the node's"},
        {"kind": "cgroup", "value": "host", "reason": "processes stay where the launcher put them"},
    ])
}

fn restrictions(run: &Run<'_>) -> Value {
    let config = run.config;
    json!({
        "capabilities": [],
        "noNewPrivileges": true,
        "seccomp": match &config.seccomp_profile {
            SeccompProfile::Default => json!("the built-in profile"),
            SeccompProfile::Unconfined => json!("none: `seccompProfile` is `unconfined`"),
            SeccompProfile::Path(path) => json!(format!("the profile `{}`", path.display())),
        },
        "apparmorProfile": config.apparmor_profile,
        "selinuxLabel": config.selinux_label,
        "readOnlyRoot": run.request.read_only,
    })
}

/// Asks hooks what they would do, one after the other, each on what the ones before it planned.
struct Inquiry<'a> {
    run: &'a Run<'a>,
    root: Root<'a>,
    spec: Value,
    /// What a hook answered, by its file's name.
    plans: BTreeMap<String, Result<Value, String>>,
    /// Which hook set a variable.
    set_by: BTreeMap<String, String>,
}

impl Inquiry<'_> {
    fn ask_all(&mut self, plan: &Plan<'_>, own: &Path) -> Result<(), ShimError> {
        let asked = |hook: &&Hook, stages: &[Stage]| {
            hook.plans && stages.iter().any(|stage| hook.stages.contains(stage))
        };
        for hook in plan.hooks.iter().filter(|hook| asked(hook, &[Stage::Precreate])) {
            self.ask_precreate(hook);
        }
        construct::write_bundle(own, &self.spec)?;
        let state = json!({
            "ociVersion": "1.0.2",
            "id": plan.id,
            "status": "creating",
            "pid": rustix::process::getpid().as_raw_nonzero().get(),
            "bundle": own.join("bundle"),
            "annotations": self.spec["annotations"],
        });
        // In the order in which a runtime calls them; all are asked in the container's namespace.
        for stage in [Stage::Prestart, Stage::CreateRuntime, Stage::CreateContainer] {
            for hook in plan.hooks.iter().filter(|hook| asked(hook, &[stage])) {
                let planned = hooks::ask(hook, &state);
                if let Ok(planned) = &planned {
                    self.mount(hook, planned);
                }
                self.plans.insert(name_of(hook), planned);
            }
        }
        Ok(())
    }

    fn ask_precreate(&mut self, hook: &Hook) {
        let mut planned = hooks::ask(hook, &self.spec).and_then(|plan| {
            let edited = plan.get("configuration");
            edited.map_or(Ok(()), adopt::check).map(|()| plan)
        });
        let configuration = planned.as_mut().ok().and_then(Value::as_object_mut);
        if let Some(mut after) = configuration.and_then(|plan| plan.remove("configuration")) {
            let known = entries(&self.spec);
            for entry in entries(&after).iter().filter(|entry| !known.contains(*entry)) {
                if let Some((name, _)) = entry.split_once('=') {
                    self.set_by.insert(name.to_owned(), name_of(hook));
                }
            }
            // The steps say why; what the configuration says besides them is taken out of it.
            if let Ok(planned) = &planned {
                self.mount(hook, planned);
            }
            adopt::drop_adopted(&self.spec, &mut after);
            self.spec = after;
        }
        self.plans.insert(name_of(hook), planned);
    }

    /// Mounts what a plan's steps name.
    fn mount(&mut self, hook: &Hook, planned: &Value) {
        let mut problems = Vec::new();
        for step in planned["steps"].as_array().into_iter().flatten() {
            let kind = step["do"].as_str().unwrap_or_default();
            let path = |name: &str| step[name].as_str().map(std::path::PathBuf::from);
            let (Some(source), Some(destination)) = (path("source"), path("destination")) else {
                continue;
            };
            if kind != "bind" && kind != "device" {
                continue;
            }
            let reason = step["reason"].as_str().unwrap_or("it does not say why");
            let wanted = Wanted {
                source,
                destination,
                read_only: step["readOnly"].as_bool().unwrap_or(false),
                is_device: kind == "device",
                reason: format!("hook {}: {reason}", name_of(hook)),
            };
            if let Err(error) = adopt::attach(self.run, self.root, &wanted) {
                problems.push(crate::error::report(&error));
            }
        }
        for problem in problems {
            log::warn!("{problem}");
        }
    }

    fn environment(&self, variables: &Variables) -> Value {
        let of = |entry: String| {
            let (name, value) = entry.split_once('=')?;
            let known = variables.iter().find(|(known, _)| known.as_str() == Some(name));
            let is_secret = SECRETS.iter().any(|part| name.to_ascii_uppercase().contains(part));
            let mut shown = json!({
                "name": name,
                "value": if is_secret { "(hidden: by its name it is a secret)" } else { value },
                "origin": known.map_or(Origin::Hook, |(_, variable)| variable.origin),
            });
            if let Some(hook) = self.set_by.get(name) {
                shown["origin"] = json!(Origin::Hook);
                shown["hook"] = json!(hook);
            }
            Some(shown)
        };
        entries(&self.spec).into_iter().filter_map(of).collect()
    }

    fn hooks(&self) -> Result<Value, ShimError> {
        let examined = hooks::examine(self.run)?;
        Ok(examined.iter().map(|(hook, decision)| self.hook(hook, decision)).collect())
    }

    fn hook(&self, hook: &Hook, decision: &Decision) -> Value {
        let mut shown = json!({
            "name": name_of(hook),
            "file": hook.file,
            "program": hook.path,
            "stages": hook.stages.iter().map(|stage| stage.name()).collect::<Vec<_>>(),
            "runs": decision.runs,
            "reason": decision.reason,
        });
        match self.plans.get(&name_of(hook)) {
            Some(Ok(plan)) => shown["plan"] = plan.clone(),
            Some(Err(problem)) => shown["problem"] = json!(problem),
            None if decision.runs && !hook.plans => {
                shown["note"] = json!("not asked: its file does not say that it can plan");
            }
            None if decision.runs => {
                shown["note"] = json!("not asked: it runs inside, or after the start");
            }
            None => {}
        }
        shown
    }
}

fn name_of(hook: &Hook) -> String {
    hook.file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The variables of a configuration.
fn entries(spec: &Value) -> Vec<String> {
    let listed = spec["process"]["env"].as_array().into_iter().flatten();
    listed.filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
}
