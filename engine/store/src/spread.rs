//! The same for many things, by several threads: what takes long is the file system's answer.

use std::num::NonZeroUsize;

/// So few that threads would not pay.
const FEW: usize = 64;

/// Most threads: enough to hide a file server's latency.
const THREADS_MAX: usize = 8;

/// `work` for each item, in order.
pub(crate) fn map<T: Sync, U: Send>(items: &[T], work: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    if items.len() < FEW || processors == 1 {
        return items.iter().map(work).collect();
    }
    let part = items.len().div_ceil(processors.min(THREADS_MAX));
    let work = &work;
    std::thread::scope(|scope| {
        let parts: Vec<_> = items
            .chunks(part)
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<U>>()))
            .collect();
        let joined = parts.into_iter().map(|part| match part.join() {
            Ok(results) => results,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.flatten().collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_come_in_the_order_of_the_items() {
        for count in [0, 1, 63, 64, 1001] {
            let items: Vec<usize> = (0..count).collect();
            let want: Vec<usize> = (0..count).map(|item| item * 2).collect();
            assert_eq!(super::map(&items, |item| item * 2), want);
        }
    }
}
