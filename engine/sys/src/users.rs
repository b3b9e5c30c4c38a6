//! Users and groups by id, from wherever the host has them (files, LDAP, SSSD).

use std::ffi::{CStr, CString};

/// Largest record read, in bytes: a group of a whole site has many members.
const RECORD_SIZE_MAX: usize = 1 << 20;

/// A user, as `passwd(5)` has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The login name.
    pub name: String,
    /// Full name and such.
    pub gecos: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// The user with that id, unless the host does not know it (or cannot say).
#[expect(unsafe_code, reason = "getpwuid_r(3)")]
pub fn user(uid: u32) -> Option<User> {
    with_buffer(|buffer| {
        // SAFETY: an all-zero passwd is a valid value of the C structure.
        let mut record: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all four places are live, and the buffer is as long as said.
        let result = unsafe {
            let (start, size) = (buffer.as_mut_ptr().cast(), buffer.len());
            libc::getpwuid_r(uid, &raw mut record, start, size, &raw mut found)
        };
        let user = || User {
            name: text(record.pw_name),
            gecos: text(record.pw_gecos),
            home: text(record.pw_dir),
            shell: text(record.pw_shell),
        };
        (result, (!found.is_null()).then(user))
    })
}

/// The name of the group with that id, unless the host does not know it (or cannot say).
#[expect(unsafe_code, reason = "getgrgid_r(3)")]
pub fn group_name(gid: u32) -> Option<String> {
    with_buffer(|buffer| {
        // SAFETY: an all-zero group is a valid value of the C structure.
        let mut record: libc::group = unsafe { std::mem::zeroed() };
        let mut found = std::ptr::null_mut();
        // SAFETY: all four places are live, and the buffer is as long as said.
        let result = unsafe {
            let (start, size) = (buffer.as_mut_ptr().cast(), buffer.len());
            libc::getgrgid_r(gid, &raw mut record, start, size, &raw mut found)
        };
        (result, (!found.is_null()).then(|| text(record.gr_name)))
    })
}

/// Calls with a larger buffer as long as the record does not fit.
fn with_buffer<T>(mut call: impl FnMut(&mut [u8]) -> (i32, Option<T>)) -> Option<T> {
    let mut size = 1024;
    while size <= RECORD_SIZE_MAX {
        let mut buffer = vec![0_u8; size];
        match call(&mut buffer) {
            (libc::ERANGE, _) => size *= 4,
            (_, found) => return found,
        }
    }
    None
}

/// The text of a field; what is not Unicode is replaced, for the field is for people.
#[expect(unsafe_code, reason = "a C string from the C library")]
fn text(field: *const libc::c_char) -> String {
    if field.is_null() {
        return String::new();
    }
    // SAFETY: the C library closed the field by a NUL byte in the buffer that is still alive.
    let field: CString = unsafe { CStr::from_ptr(field) }.to_owned();
    field.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_an_unused_id_is_not() {
        assert_eq!(
            user(0).map(|user| (user.name, user.home)),
            Some(("root".into(), "/root".into()))
        );
        assert_eq!(group_name(0).as_deref(), Some("root"));
        assert_eq!(user(4_000_000_123), None);
        assert_eq!(group_name(4_000_000_123), None);
    }
}
