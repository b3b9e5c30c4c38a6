//! From the first look around to the answer.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sarus_hook::{Account, Failure};

use crate::leader::{Above, Leader};
use crate::local::{self, Role};
use crate::step::Step;
use crate::wire::{Answer, Bytes};
use crate::{key, remote};

/// Name of the hook's directory, as with Sarus 1.7.
const DIRECTORY: &str = "slurm-global-sync";

/// Pause before one looks again for a leader, who is just coming or going.
const PAUSE: Duration = Duration::from_millis(5);

/// The hook's settings, from the variables in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `SYNC_TIMEOUT`: the longest that the first node's leader waits for all tasks; seconds.
    pub(crate) limit: Duration,
    /// `SYNC_PORTS`: where the first node's leader may listen.
    pub(crate) ports: RangeInclusive<u16>,
}

impl Settings {
    /// Reads them; `variable` gives a variable's value.
    ///
    /// # Errors
    ///
    /// A value that is none.
    pub(crate) fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let wrong = |name: &str, value: &str, expected: &str| {
            let because = format!("`{name}` is `{value}`, expected {expected}");
            Failure::new("cannot use the variables in the hook's file").because(because)
        };
        let mut settings = Self { limit: Duration::from_secs(60), ports: 61_000..=65_535 };
        if let Some(text) = variable("SYNC_TIMEOUT") {
            let seconds = text.parse().ok().filter(|seconds| *seconds > 0);
            let seconds = seconds.ok_or_else(|| wrong("SYNC_TIMEOUT", &text, "whole seconds"))?;
            settings.limit = Duration::from_secs(seconds);
        }
        if let Some(text) = variable("SYNC_PORTS") {
            let range = text.split_once('-').unwrap_or((&text, &text));
            let (Ok(first), Ok(last)) = (range.0.parse(), range.1.parse()) else {
                return Err(wrong("SYNC_PORTS", &text, "FIRST-LAST"));
            };
            if first == 0 || first > last {
                return Err(wrong("SYNC_PORTS", &text, "FIRST-LAST"));
            }
            settings.ports = first..=last;
        }
        Ok(settings)
    }
}

/// Waits until all tasks of the step are here. `user` is the user's id on the host.
///
/// # Errors
///
/// Where they are not in time, which are missing; where it cannot be known, why.
pub(crate) fn meet(step: &Step, settings: &Settings, user: u32) -> Result<(), Failure> {
    let until = Instant::now() + settings.limit;
    loop {
        let role = local::enter(step, user).map_err(|error| {
            Failure::new("cannot meet the other tasks on this node").because(error)
        })?;
        let answer = match role {
            Some(Role::Guest(stream)) => local::ask(&stream, step.rank),
            Some(Role::Leader(listener)) => {
                let leader = Leader::new(step, listener).map_err(|error| {
                    Failure::new("cannot meet the other tasks on this node").because(error)
                })?;
                Some(lead(leader, step, settings, (user, until))?)
            }
            None => None,
        };
        match answer {
            Some(answer) => return conclude(step, settings, answer),
            None if Instant::now() >= until => {
                let words = "the task that spoke for this node ended without a word".to_owned();
                return conclude(step, settings, Answer::Failed(words));
            }
            None => pause(PAUSE),
        }
    }
}

/// Nothing tells that a name at which one is about to listen is listened at.
#[expect(clippy::disallowed_methods, reason = "there is no event to wait for")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn lead(
    mut leader: Leader<'_>,
    step: &Step,
    settings: &Settings,
    (user, until): (u32, Instant),
) -> Result<Answer, Failure> {
    log_role(step);
    let answer = find_answer(&mut leader, step, settings, (user, until));
    match answer {
        Ok(answer) => {
            leader.tell(&answer);
            Ok(answer)
        }
        // Every task says it in the same words; the hint is one's own.
        Err(failure) => {
            leader.tell(&Answer::Failed(failure.sentence()));
            Err(failure)
        }
    }
}

fn find_answer(
    leader: &mut Leader<'_>,
    step: &Step,
    settings: &Settings,
    (user, until): (u32, Instant),
) -> Result<Answer, Failure> {
    if step.nodes == 1 {
        return answer_of(leader.gather(&mut Above::Nobody, until)?);
    }
    let directory = Account::with_id(user)?.directory(DIRECTORY);
    let key = key::load(&directory)?;
    let ports = remote::ports(&settings.ports, user, &step.id);
    if step.node == 0 {
        admit_many();
        let listener = remote::listen(&ports)?;
        let mut above = Above::Others { listener, key: &key };
        return answer_of(leader.gather(&mut above, until)?);
    }
    ask_first(leader, step, (&ports, &key), until)
}

fn ask_first(
    leader: &mut Leader<'_>,
    step: &Step,
    (ports, key): (&[u16], &Bytes),
    until: Instant,
) -> Result<Answer, Failure> {
    loop {
        let first = remote::reach(step, ports, key, until)?;
        if let Some(answer) = leader.gather(&mut Above::First(first), until)? {
            return Ok(answer);
        }
    }
}

/// Who asks nobody always has an answer.
fn answer_of(answer: Option<Answer>) -> Result<Answer, Failure> {
    answer.ok_or_else(|| Failure::new("cannot wait for the other tasks"))
}

/// A connection for each node, where the shell's limit is 1024 descriptors.
fn admit_many() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it stays, it suffices for fewer nodes.
    let _unchanged = setrlimit(Resource::Nofile, wanted);
}

fn log_role(step: &Step) {
    log::debug!("task {} speaks for node {} of step {}", step.rank, step.node, step.id);
}

fn conclude(step: &Step, settings: &Settings, answer: Answer) -> Result<(), Failure> {
    match answer {
        Answer::Go => Ok(()),
        Answer::Missing(list) => {
            let limit = settings.limit.as_secs();
            let what =
                format!("not all tasks of step {} had a container within {limit} s", step.id);
            let because = format!("missing of {} tasks: {list}", step.tasks);
            Err(Failure::new(what).because(because).hint(
                "every task of the step must run `sarus run` with this hook; `SYNC_TIMEOUT` in the \
                 hook's file is how long it waits",
            ))
        }
        Answer::Failed(words) => {
            Err(Failure::new(format!("cannot wait for the tasks of step {}", step.id))
                .because(words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_or_refused() {
        let with = |name: &'static str, value: &'static str| {
            Settings::from(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(with("", "").unwrap().limit, Duration::from_secs(60));
        assert_eq!(with("SYNC_TIMEOUT", "5").unwrap().limit, Duration::from_secs(5));
        assert_eq!(with("SYNC_PORTS", "7000-7010").unwrap().ports, 7000..=7010);
        assert_eq!(with("SYNC_PORTS", "7000").unwrap().ports, 7000..=7000);
        for (name, value) in [
            ("SYNC_TIMEOUT", "0"),
            ("SYNC_TIMEOUT", "1.5"),
            ("SYNC_PORTS", "9-8"),
            ("SYNC_PORTS", "0-8"),
            ("SYNC_PORTS", "x"),
        ] {
            let failure = with(name, value).unwrap_err().to_string();
            assert!(failure.contains(name) && failure.contains(value), "{failure}");
        }
    }
}
