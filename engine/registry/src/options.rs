//! How a client behaves: time limits, retries, and whom it tells what it does.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sarus_oci::Digest;

use crate::Environment;

/// Settings of a [`crate::Client`].
#[derive(Clone)]
pub struct Options {
    /// Where configuration is looked up.
    pub environment: Environment,
    /// The site's registries.d, in the place of the system's.
    pub registries_d: Option<PathBuf>,
    /// Longest time to make a connection, TLS not included.
    pub connect_timeout: Duration,
    /// Longest time without a byte from the server, once connected.
    pub stall_timeout: Duration,
    /// When to try again.
    pub retry: Retry,
    /// How to wait before trying again.
    pub sleeper: Arc<dyn Sleeper>,
    /// Called, from any thread, with what the user should know and nobody returns.
    pub notify: Arc<dyn Fn(&Notice) + Send + Sync>,
}

/// How often and after which waits a request is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Repetitions after the first try; for a blob, repetitions without 64 KiB of progress.
    pub times: u32,
    /// Wait before the first repetition; each further one is twice as long.
    pub first_wait: Duration,
    /// The longest wait. A server that asks for more is not waited for.
    pub longest_wait: Duration,
}

/// Waits. A trait so that tests need not.
pub trait Sleeper: Send + Sync {
    /// Blocks for about `time`.
    fn sleep(&self, time: Duration);
}

/// Something a user should know although nothing failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A registry is used without TLS, as the configuration allows.
    PlainHttp {
        /// The registry.
        host: String,
    },
    /// registries.conf has a key that means nothing here.
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with the tables it is in.
        key: String,
    },
    /// The client waits before it tries again.
    Waiting {
        /// The registry.
        host: String,
        /// For how long.
        time: Duration,
        /// Why, as an error would say it.
        reason: String,
    },
    /// A mirror failed, and the next place is tried.
    MirrorFailed {
        /// The mirror.
        mirror: String,
        /// Why, as an error would say it.
        reason: String,
    },
    /// A download broke and goes on where it was.
    Resumed {
        /// The blob.
        digest: Digest,
        /// Bytes that were there already.
        at: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey { path, key } => {
                write!(f, "`{}`: the key `{key}` is unknown and passed over", path.display())
            }
            Self::PlainHttp { host } => write!(f, "using `{host}` over HTTP, without encryption"),
            Self::Waiting { host, time, reason } => {
                write!(f, "trying `{host}` again in {} s: {reason}", time.as_secs_f32().ceil())
            }
            Self::MirrorFailed { mirror, reason } => {
                write!(f, "mirror `{mirror}` failed: {reason}")
            }
            Self::Resumed { digest, at } => {
                write!(f, "download of `{digest}` goes on after {at} bytes")
            }
        }
    }
}

/// Waits in real time, up to a quarter longer than asked: the ranks of a job that were turned
/// away together shall not come back together.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemSleeper;

impl Sleeper for SystemSleeper {
    fn sleep(&self, time: Duration) {
        use std::hash::{BuildHasher, RandomState};
        let random = u32::try_from(RandomState::new().hash_one(0) % 256).unwrap_or(0);
        let end = Instant::now() + time + time * random / 1024;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { times: 4, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(60) }
    }
}

impl Retry {
    /// Wait before repetition `n`, counted from 0, if the server asked for none.
    pub(crate) fn wait(&self, n: u32) -> Duration {
        self.first_wait.saturating_mul(1 << n.min(16)).min(self.longest_wait)
    }
}

impl Default for Options {
    /// The process's environment, limits that suit slow networks, and a silent `notify`.
    fn default() -> Self {
        Self::new(Environment::of_process())
    }
}

impl Options {
    /// As [`Options::default`], in this environment.
    pub fn new(environment: Environment) -> Self {
        Self {
            environment,
            registries_d: None,
            connect_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(60),
            retry: Retry::default(),
            sleeper: Arc::new(SystemSleeper),
            notify: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("environment", &self.environment)
            .field("connect_timeout", &self.connect_timeout)
            .field("stall_timeout", &self.stall_timeout)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
