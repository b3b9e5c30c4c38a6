//! The step of a Slurm job that a container belongs to, from the container's variables. Pure.

use std::collections::{BTreeMap, BTreeSet};

use sarus_hook::Failure;

/// A step with more than one task, and this task's place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// `JOB.STEP`
    pub(crate) id: String,
    /// Number of tasks.
    pub(crate) tasks: u32,
    /// This task's number, from 0.
    pub(crate) rank: u32,
    /// Number of nodes.
    pub(crate) nodes: u32,
    /// This node's number in the step, from 0.
    pub(crate) node: u32,
    /// Names and addresses of the node with number 0, the likeliest first.
    pub(crate) first_node: Vec<String>,
}

/// What the variables say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// There is nobody to wait for, and why.
    Nobody(&'static str),
    /// There is.
    Step(Step),
}

/// Finds the step in the container's variables.
///
/// # Errors
///
/// A variable that is no number, or numbers that contradict each other.
pub(crate) fn find(variables: &BTreeMap<String, String>) -> Result<Found, Failure> {
    let text = |names: &[&'static str]| {
        names.iter().find_map(|name| Some((*name, variables.get(*name)?.as_str())))
    };
    let (Some((_, job)), Some((_, step))) =
        (text(&["SLURM_JOB_ID", "SLURM_JOBID"]), text(&["SLURM_STEP_ID", "SLURM_STEPID"]))
    else {
        return Ok(Found::Nobody("the container is in no step of a Slurm job"));
    };
    let number = |names: &[&'static str]| match text(names) {
        None => Ok(None),
        Some((name, value)) => value.parse::<u32>().map(Some).map_err(|_no_number| {
            Failure::new("cannot read the step's variables")
                .because(format!("`{name}` is `{value}`, expected a number"))
        }),
    };
    let tasks = number(&["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"])?;
    let (Some(tasks), Some(rank)) = (tasks, number(&["SLURM_PROCID"])?) else {
        return Ok(Found::Nobody("the variables name no task of a step"));
    };
    if tasks <= 1 {
        return Ok(Found::Nobody("the step has one task"));
    }
    let nodes = number(&["SLURM_STEP_NUM_NODES", "SLURM_NNODES"])?.unwrap_or(1);
    let node = number(&["SLURM_NODEID"])?.unwrap_or(0);
    if rank >= tasks || node >= nodes {
        let because = format!("task {rank} of {tasks} on node {node} of {nodes}");
        return Err(Failure::new("the step's variables contradict each other").because(because));
    }
    let list = text(&["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"]);
    let first = list.map(|(_, list)| first_host(list));
    // A job script on the first node is where `srun` runs, mostly; who answers there is checked.
    let others = ["SLURM_LAUNCH_NODE_IPADDR"].into_iter().filter_map(|name| variables.get(name));
    let first_node = first.into_iter().chain(others.cloned()).filter(|name| !name.is_empty());
    Ok(Found::Step(Step {
        id: format!("{job}.{step}"),
        tasks,
        rank,
        nodes,
        node,
        first_node: first_node.collect(),
    }))
}

/// The first name of a list of hosts as Slurm writes it: `nid[001-004,7]x,other`.
fn first_host(list: &str) -> String {
    let mut name = String::new();
    let mut rest = list.trim();
    while let Some(next) = rest.chars().next() {
        match next {
            ',' => break,
            '[' => {
                let (inside, after) = rest[1..].split_once(']').unwrap_or((&rest[1..], ""));
                name += inside.split(['-', ',']).next().unwrap_or_default();
                rest = after;
            }
            other => {
                name.push(other);
                rest = &rest[other.len_utf8()..];
            }
        }
    }
    name
}

/// The tasks that are not in `here`, as ranges: `0-2,7`.
pub(crate) fn missing(tasks: u32, here: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for rank in (0..tasks).filter(|rank| !here.contains(rank)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == rank => *last = rank,
            _ => ranges.push((rank, rank)),
        }
    }
    let text = |(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split_whitespace().filter_map(|word| word.split_once('='));
        pairs.map(|(name, value)| (format!("SLURM_{name}"), value.to_owned())).collect()
    }

    #[test]
    fn a_step_is_found_in_the_variables() {
        let given = "JOB_ID=4711 STEP_ID=2 NTASKS=8 STEP_NUM_TASKS=6 PROCID=5 NNODES=9
            STEP_NUM_NODES=3 NODEID=2 STEP_NODELIST=nid[0010-0012] LAUNCH_NODE_IPADDR=192.0.2.1";
        let want = Step {
            id: "4711.2".into(),
            tasks: 6,
            rank: 5,
            nodes: 3,
            node: 2,
            first_node: vec!["nid0010".into(), "192.0.2.1".into()],
        };
        assert_eq!(find(&variables(given)).unwrap(), Found::Step(want));
    }

    #[test]
    fn without_other_tasks_there_is_nobody_to_wait_for() {
        for given in [
            "",
            "JOB_ID=1 NTASKS=4 PROCID=0",
            "JOB_ID=1 STEP_ID=0 NTASKS=1 PROCID=0",
            "JOB_ID=1 STEP_ID=0 PROCID=0",
        ] {
            assert!(matches!(find(&variables(given)), Ok(Found::Nobody(_))), "{given}");
        }
    }

    #[test]
    fn variables_that_make_no_sense_are_named() {
        for (given, part) in [
            ("JOB_ID=1 STEP_ID=0 NTASKS=x PROCID=0", "`SLURM_NTASKS` is `x`"),
            ("JOB_ID=1 STEP_ID=0 NTASKS=2 PROCID=2", "task 2 of 2"),
            ("JOB_ID=1 STEP_ID=0 NTASKS=2 PROCID=1 NNODES=2 NODEID=2", "node 2 of 2"),
        ] {
            let failure = find(&variables(given)).unwrap_err().to_string();
            assert!(failure.contains(part), "{failure}");
        }
    }

    #[test]
    fn the_first_host_of_a_list_is_found() {
        for (list, want) in [
            ("n1", "n1"),
            ("n1,n2", "n1"),
            ("nid[001-004,7]", "nid001"),
            ("rack[2,4]-n[08-09].example,x", "rack2-n08.example"),
            ("", ""),
            ("n[", "n"),
        ] {
            assert_eq!(first_host(list), want, "{list}");
        }
    }

    #[test]
    fn missing_tasks_are_ranges() {
        let here = BTreeSet::from([0, 4, 6]);
        assert_eq!(missing(9, &here), "1-3,5,7-8");
        assert_eq!(missing(1, &here), "");
    }
}
