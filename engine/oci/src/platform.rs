//! Platforms (`linux/arm64/v8`): the host's, the user's, and how well an image's fits one.
//!
//! Names are Go's GOOS and GOARCH, as the OCI image index demands; the common other spellings
//! (`x86_64`, `aarch64`) are understood. A platform never falls back to another architecture
//! (32-bit Arm programs do not run on many 64-bit Arm servers), only to an older variant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An operating system, an architecture and perhaps a variant of it, in normal form.
///
/// In normal form a variant that the architecture implies anyway is absent: `arm64/v8` and
/// `amd64/v1` have none; `arm` always has one, `v7` when nothing was said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

/// A text is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is no platform: expected OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, as in `linux/amd64` or `linux/arm64`"
)]
pub struct PlatformError {
    given: String,
}

impl Platform {
    /// The platform of the machine this program was built for.
    ///
    /// Never has a variant of `amd64`: nodes of different generations share a store, and what
    /// one of them pulled must run on the others.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            "x86" => "386",
            other => other,
        };
        Self::new(std::env::consts::OS, architecture, None)
    }

    /// A platform of these parts, brought into normal form.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let lower = architecture.to_ascii_lowercase();
        let given = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (lower.as_str(), given.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
            ("aarch64" | "arm64", None | Some("8" | "v8" | "v8.0")) => ("arm64", None),
            ("aarch64" | "arm64", other) => ("arm64", other),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            ("i386" | "i486" | "i586" | "i686" | "386", other) => ("386", other),
            (other, variant) => (other, variant),
        };
        Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }

    /// Parses `OS/ARCHITECTURE[/VARIANT]`.
    ///
    /// # Errors
    ///
    /// If there are fewer than two or more than three parts, or one is empty or holds anything
    /// but letters, digits, `.`, `_` and `-`.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let valid = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None)
                if valid(os) && valid(architecture) && variant.is_none_or(valid) =>
            {
                Ok(Self::new(os, architecture, variant))
            }
            _ => Err(PlatformError { given: text.to_owned() }),
        }
    }

    /// The operating system, `linux`.
    pub fn os(&self) -> &str {
        &self.os
    }

    /// The architecture, `amd64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The variant, if it is not the one that the architecture implies.
    pub fn variant(&self) -> Option<&str> {
        self.variant.as_deref()
    }

    /// How far `candidate` is from this platform: 0 is the very same, `None` will not run here.
    ///
    /// An older variant of the same architecture runs, and the newest of them is nearest.
    pub fn distance(&self, candidate: &Self) -> Option<u32> {
        if self.os != candidate.os || self.architecture != candidate.architecture {
            return None;
        }
        if self.variant == candidate.variant {
            return Some(0);
        }
        self.level()?.checked_sub(candidate.level()?)
    }

    /// Whether an image for `candidate` runs on this platform.
    pub fn accepts(&self, candidate: &Self) -> bool {
        self.distance(candidate).is_some()
    }

    /// The variant as a number, if variants of this architecture are levels one above the other.
    fn level(&self) -> Option<u32> {
        let implied = match self.architecture.as_str() {
            "amd64" => "v1",
            "arm64" => "v8",
            "arm" => "v7",
            _ => return None,
        };
        let variant = self.variant.as_deref().unwrap_or(implied);
        let (major, minor) = variant
            .strip_prefix('v')?
            .split_once('.')
            .unwrap_or_else(|| (variant.strip_prefix('v').unwrap_or_default(), "0"));
        let major: u32 = major.parse().ok()?;
        let minor: u32 = minor.parse().ok()?;
        major.checked_mul(100)?.checked_add(minor)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        Self::parse(text)
    }
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::text::deserialize(deserializer)
    }
}
