//! A pseudo-terminal with the test at its outer end.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Nothing on a terminal of a test takes longer to appear.
const LIMIT: Duration = Duration::from_secs(60);

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    outer: File,
    inner: File,
    seen: String,
}

impl Terminal {
    /// Opens a terminal of a size.
    pub fn open(rows: u16, columns: u16) -> Self {
        let outer: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&outer).expect("a terminal");
        unlockpt(&outer).expect("a terminal");
        let name = ptsname(&outer, Vec::new()).expect("a terminal").into_string().expect("text");
        let inner = OpenOptions::new().read(true).write(true).open(name).expect("a terminal");
        // Any user's command may be given it.
        rustix::fs::fchmod(&inner, rustix::fs::Mode::from_raw_mode(0o666)).expect("ours");
        let terminal = Self { outer: outer.into(), inner, seen: String::new() };
        terminal.resize(rows, columns);
        terminal
    }

    /// Changes the size, as a window does.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.outer, size).expect("a terminal");
    }

    /// Types.
    pub fn write(&mut self, text: &str) {
        self.outer.write_all(text.as_bytes()).expect("a terminal");
    }

    /// Reads until `text` appeared; returns what appeared since the last call, up to its end.
    pub fn read_until(&mut self, text: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).expect("a short time");
            let ready = poll(&mut [PollFd::new(&self.outer, PollFlags::IN)], Some(&left));
            assert!(ready.is_ok_and(|count| count > 0), "no {text:?} in {:?}", self.seen);
            let mut chunk = [0; 4096];
            let length = self.outer.read(&mut chunk).expect("the inner end is open");
            self.seen.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    }

    /// The inner end, for a command's streams.
    pub(crate) fn inner(&self) -> Stdio {
        self.inner.as_fd().try_clone_to_owned().expect("a descriptor").into()
    }
}
