//! The launch request: what the engine asks of `sarus-shim`, and the plan that explains a run.
//!
//! The engine decides *what* is to run and writes a [`Request`] as JSON on a descriptor; the shim
//! reads it, adds what the site's configuration says, and derives a plan in which each variable
//! and mount has an origin. Neither half does I/O: this crate is rules only.

mod environment;
mod raw;
mod record;
mod request;
mod users;

pub use environment::{DEFAULT_PATH, Origin, Sources, TASKS, Variable, Variables, variables};
pub use raw::RawString;
pub use record::{EXEC_VERSION, ExecRequest, RECORD_NAME, RECORD_SIZE_MAX, RECORD_VERSION, Record};
pub use request::{
    AccountNames, Command, Device, DeviceAccess, Image, Mount, MountSource, Namespaces,
    REQUEST_SIZE_MAX, REQUEST_VERSION, Request, RequestError, is_container_name,
};
pub use users::{Account, merge_group, merge_passwd};
