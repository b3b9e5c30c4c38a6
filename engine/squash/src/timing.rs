//! Where the time of a conversion goes.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time of processors that each part of a conversion took. The parts run at the same time, but
/// `finishing`, which comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// Reading and inflating layers, on one thread.
    pub inflating: Duration,
    /// Parsing, merging and appending to the image, on one thread.
    pub merging: Duration,
    /// Compressing blocks, on all threads together.
    pub compressing: Duration,
    /// Squeezing the image and writing its tables, on one thread.
    pub finishing: Duration,
}

/// Time of processors that the calling thread has taken (`CLOCK_THREAD_CPUTIME_ID`).
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
