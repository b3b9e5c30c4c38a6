//! Families of MPI libraries: those whose binary interface is one.
//!
//! <https://www.mpich.org/abi/> for MPICH's, chapter 20 of MPI 5.0 for the standard's own, and
//! Open MPI's `VERSION` file for its. Within a family the major number of the file decides.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A binary interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Family {
    /// MPICH, Intel MPI, Cray MPICH, MVAPICH: `libmpi.so.12` and `libmpich.so.12` are one.
    Mpich,
    /// The interface that MPI 5 defines.
    Standard,
    /// Open MPI.
    OpenMpi,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mpich => "MPICH",
            Self::Standard => "the MPI standard's ABI",
            Self::OpenMpi => "Open MPI",
        })
    }
}

/// What a library of a family is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Role {
    /// MPI itself, for programs in C.
    Core,
    /// Fortran.
    Fortran,
    /// C++.
    Cxx,
    /// Another, by the library's name.
    Other(String),
}

/// Which of the libraries that can stand for each other one is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Kind {
    /// Its binary interface.
    pub(crate) family: Family,
    /// What it is for.
    pub(crate) role: Role,
    /// The number behind `.so.`.
    pub(crate) major: u32,
}

/// Names of MPICH's libraries, by role. All of a role are one.
const MPICH: [(&str, Role); 6] = [
    ("libmpi", Role::Core),
    ("libmpich", Role::Core),
    ("libmpifort", Role::Fortran),
    ("libmpichfort", Role::Fortran),
    ("libmpicxx", Role::Cxx),
    ("libmpichcxx", Role::Cxx),
];

/// The first major number of Open MPI's libraries that MPICH's never had.
const OPEN_MPI_MAJOR_MIN: u32 = 20;

impl Kind {
    /// The kind of a library by its `DT_SONAME`, or its file name where it has none.
    /// `is_open_mpi` is asked where the name does not tell: whether the library is Open MPI's.
    pub(crate) fn of(soname: &str, is_open_mpi: impl FnOnce() -> bool) -> Option<Self> {
        let (stem, version) = soname.split_once(".so.")?;
        let major: u32 = version.split('.').next()?.parse().ok()?;
        let kind = |family, role| Some(Self { family, role, major });
        match stem {
            "libmpi_abi" => return kind(Family::Standard, Role::Core),
            "libmpifort_abi" => return kind(Family::Standard, Role::Fortran),
            // The interface of a library that adapts another one's is not its name's.
            "libmpi_ilp64" | "libmpijava" | "libmpiwrapper" => return None,
            _ => {}
        }
        if !stem.starts_with("libmpi") {
            return None;
        }
        let role = MPICH.into_iter().find_map(|(name, role)| (name == stem).then_some(role));
        let open_mpi = match stem {
            "libmpi" => major >= OPEN_MPI_MAJOR_MIN || is_open_mpi(),
            "libmpi_mpifh"
            | "libmpi_usempif08"
            | "libmpi_usempi_ignore_tkr"
            | "libmpi_usempi"
            | "libmpi_cxx"
            | "libmpi_java" => true,
            _ => false,
        };
        if open_mpi {
            let role = role.unwrap_or_else(|| Role::Other(stem.to_owned()));
            return kind(Family::OpenMpi, role);
        }
        kind(Family::Mpich, role?)
    }

    /// All names by which programs may ask for a library of the kind.
    pub(crate) fn names(&self) -> Vec<String> {
        let stems: Vec<&str> = match (self.family, &self.role) {
            (Family::Mpich, role) => {
                MPICH.iter().filter(|(_, of)| of == role).map(|(name, _)| *name).collect()
            }
            (Family::Standard, Role::Fortran) => vec!["libmpifort_abi"],
            (Family::Standard, _) => vec!["libmpi_abi"],
            (Family::OpenMpi, Role::Other(stem)) => vec![stem],
            (Family::OpenMpi, _) => vec!["libmpi"],
        };
        stems.iter().map(|stem| format!("{stem}.so.{}", self.major)).collect()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.names().first().map_or("", String::as_str))
    }
}

/// The version in a file's name: `libmpich.so.12.1.10` has 12, 1 and 10.
pub(crate) fn version(file_name: &str) -> Vec<u32> {
    let numbers = file_name.split_once(".so.").map_or("", |(_, numbers)| numbers);
    numbers.split('.').map_while(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_can_stand_for_each_other_are_of_one_kind() {
        let of = |name: &str| Kind::of(name, || false);
        for (one, other) in [
            ("libmpi.so.12", "libmpich.so.12"),
            ("libmpifort.so.12", "libmpichfort.so.12"),
            ("libmpicxx.so.12", "libmpichcxx.so.12"),
            ("libmpi.so.12.1.10", "libmpich.so.12.0.0"),
        ] {
            assert!(of(one).is_some(), "{one}");
            assert_eq!(of(one), of(other), "{one} {other}");
        }
        for (one, other) in [
            ("libmpi.so.12", "libmpi.so.40"),
            ("libmpi.so.12", "libmpi_abi.so.1"),
            ("libmpi.so.12", "libmpifort.so.12"),
            ("libmpi.so.40", "libmpi_mpifh.so.40"),
            ("libmpi_mpifh.so.40", "libmpi_usempif08.so.40"),
            ("libmpi.so.12", "libmpi.so.13"),
        ] {
            assert!(of(one).is_some() && of(other).is_some(), "{one} {other}");
            assert_ne!(of(one), of(other), "{one} {other}");
        }
    }

    #[test]
    fn other_libraries_are_of_no_kind() {
        for name in ["libmpi.so", "libc.so.6", "libmpi.so.x", "libmpi_ilp64.so.4", "libmpdec.so.3"]
        {
            assert_eq!(Kind::of(name, || false), None, "{name}");
        }
    }

    #[test]
    fn an_old_open_mpi_with_the_number_of_mpich_is_told_apart() {
        assert_eq!(Kind::of("libmpi.so.12", || true).unwrap().family, Family::OpenMpi);
        assert_eq!(Kind::of("libmpich.so.12", || true).unwrap().family, Family::Mpich);
    }

    #[test]
    fn programs_may_ask_by_either_name() {
        let kind = Kind::of("libmpi.so.12", || false).unwrap();
        assert_eq!(kind.names(), ["libmpi.so.12", "libmpich.so.12"]);
        let kind = Kind::of("libmpi_mpifh.so.40", || false).unwrap();
        assert_eq!(kind.names(), ["libmpi_mpifh.so.40"]);
    }

    #[test]
    fn a_files_name_has_a_version() {
        assert_eq!(version("libmpich.so.12.1.10"), [12, 1, 10]);
        assert_eq!(version("libmpi.so"), [0; 0]);
    }
}
