//! A FUSE server for one squashfs image, speaking the kernel's protocol itself.
//!
//! From the bytes of a request to those of its answer ([`Worker::answer`]) nothing but the image
//! is touched, so all of it is tested without a mount; [`serve`] joins that with a connection.
//! Why it is our own, and what it leaves to the kernel: `docs/ARCHITECTURE.md`, "The FUSE server".
//! Knows nothing of mounts or containers.
//!
//! An image may be hostile: whatever its bytes are, a request is answered, with `EIO` where they
//! make no sense. Memory is bounded: caches by [`BLOCKS_KEPT`] and [`LISTINGS_KEPT`], and for each
//! thread what one request needs.

mod ahead;
mod cache;
mod connection;
mod directory;
mod file;
mod listing;
pub mod protocol;
mod reply;
mod server;
mod worker;

pub use connection::serve;
pub use reply::Reply;
pub use server::{BLOCKS_KEPT, LISTINGS_KEPT, Server};
pub use worker::Worker;
