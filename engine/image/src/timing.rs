//! Where the time of a pull or a load went.

use std::time::{Duration, Instant};

use sarus_squash::{Converted, thread_time};

/// The phases of what converted an image, and how long it took as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// From the first request, or the archive's opening, to the image's name in the store.
    pub total: Duration,
    /// In the order of the data's way. `download` to `compress` go on at the same time.
    pub phases: Vec<Phase>,
}

/// A part of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// `resolve`, `download`, `inflate`, `merge`, `compress`, `finish`, `store`.
    pub name: &'static str,
    /// Threads that did it.
    pub threads: usize,
    /// Time that went by, where the phase has a beginning and an end of its own.
    pub wall: Option<Duration>,
    /// Time of processors that this process took for it, the kernel's part included.
    pub cpu: Duration,
    /// Bytes that went through it, counted where they come out; none where that says nothing.
    pub bytes: Option<u64>,
}

/// Measures a phase that one thread does.
pub(crate) struct Stopwatch(Instant, Duration);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now(), thread_time())
    }

    pub(crate) fn stop(self, name: &'static str, bytes: Option<u64>) -> Phase {
        let cpu = thread_time().saturating_sub(self.1);
        Phase { name, threads: 1, wall: Some(self.0.elapsed()), cpu, bytes }
    }
}

/// The phases of a conversion.
pub(crate) fn of_conversion(converted: &Converted, threads: usize) -> [Phase; 4] {
    let times = converted.times;
    let phase = |name, threads, cpu, bytes| Phase { name, threads, wall: None, cpu, bytes };
    [
        phase("inflate", 1, times.inflating, Some(converted.tar_bytes)),
        phase("merge", 1, times.merging, Some(converted.unpacked_bytes)),
        phase("compress", threads, times.compressing, Some(converted.bytes)),
        phase("finish", 1, times.finishing, None),
    ]
}
