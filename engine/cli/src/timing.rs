//! `sarus pull --timing` and `sarus load --timing`: where the time went, for people and for programs.

use std::time::Duration;

use sarus_image::Timing;
use sarus_oci::{Digest, Reference};
use serde_json::{Value, json};

use crate::output::{size, table};

/// A row a phase, and the whole. CPU time per second of wall time is what was busy at once.
pub(crate) fn text(timing: &Timing) -> String {
    let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
    let row = |phase: &sarus_image::Phase| {
        let wall = phase.wall.map(seconds).unwrap_or_default();
        let bytes = phase.bytes.map(size).unwrap_or_default();
        vec![phase.name.to_owned(), phase.threads.to_string(), wall, seconds(phase.cpu), bytes]
    };
    let mut rows: Vec<Vec<String>> = timing.phases.iter().map(row).collect();
    let cpu = timing.phases.iter().map(|phase| phase.cpu).sum();
    let total = ["total", "", &seconds(timing.total), &seconds(cpu), ""];
    rows.push(total.map(str::to_owned).into());
    table(&["PHASE", "THREADS", "TIME", "CPU", "BYTES"], &rows)
}

/// The same with times in seconds and counts in bytes.
pub(crate) fn json(
    reference: Option<&Reference>,
    (digest, up_to_date): (&Digest, bool),
    timing: &Timing,
) -> Value {
    let phases: Vec<Value> = timing
        .phases
        .iter()
        .map(|phase| {
            json!({
                "name": phase.name,
                "threads": phase.threads,
                "seconds": phase.wall.map(|wall| wall.as_secs_f64()),
                "cpuSeconds": phase.cpu.as_secs_f64(),
                "bytes": phase.bytes,
            })
        })
        .collect();
    json!({
        "reference": reference.map(ToString::to_string),
        "digest": digest.to_string(),
        "upToDate": up_to_date,
        "seconds": timing.total.as_secs_f64(),
        "phases": phases,
    })
}
