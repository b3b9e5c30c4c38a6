//! What the tests of the built programs stand on: temporary users, registries, images made to
//! order, and a look at what a test left behind.
//!
//! Knows `sarus` as its users do: a program with arguments, output and an exit code. Imports no
//! crate of the project.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test's ground that gives way ends the test"
)]

mod cluster;
mod command;
mod fake;
mod http;
mod image;
mod leftovers;
mod mpi;
mod processes;
mod programs;
mod recorded;
mod registry;
mod session;
mod strace;
mod tarball;
mod terminal;
mod user;

pub use cluster::{Cluster, NODE_CPUS, NODE_GPUS};
pub use command::{Invocation, Output, Running};
pub use fake::{FakeRegistry, Held, Reply, answer};
pub use http::{Request, free_port};
pub use image::{Dialect, Image, Packed, Packing, debian, debian_with, sha256};
pub use leftovers::Leftovers;
pub use mpi::{Mpi, copy_stack};
pub use processes::{children, descendants, kill, named, wait_gone, wait_until};
pub use programs::Programs;
pub use recorded::{Recorded, Spared, Tree, restore};
pub use registry::{Access, Registry};
pub use session::{Runtime, Session, Who};
pub use strace::{Call, calls};
pub use tarball::Tar;
pub use terminal::Terminal;
pub use user::User;
