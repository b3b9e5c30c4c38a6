//! Acting as the container's user, where files of that user are touched outside the container.

use crate::{Failure, Person, survey};

impl Person {
    /// Calls `act` in a process of its own that has this person's ids, groups and no capability,
    /// and returns its answer: so a hook that runs as root opens no file that the person could
    /// not. In a user namespace the process keeps the caller's ids, which are the person's outside.
    /// The process has 1 GiB of memory and 30 s.
    ///
    /// # Errors
    ///
    /// Where the process ended without an answer.
    pub fn apart<T>(&self, act: impl FnOnce() -> T) -> Result<T, Failure>
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        survey::apart(self, act)
    }
}

#[cfg(test)]
mod tests {
    use crate::Person;

    #[test]
    fn what_is_done_apart_is_done_as_the_person() {
        let person = Person { uid: 65534, gid: 65534, groups: vec![65533] };
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let ids = person
            .apart(|| {
                let groups = rustix::process::getgroups().unwrap_or_default();
                let groups: Vec<u32> = groups.into_iter().map(|gid| gid.as_raw()).collect();
                (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw(), groups)
            })
            .unwrap();
        assert_eq!(ids, (65534, 65534, vec![65533]));
    }
}
