//! `sarus diff`

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use sarus_image::Looked;
use sarus_image::squash::browse::{
    Aspect, Change, CompareError, CompareOptions, Difference, compare,
};
use sarus_launch::RawString;
use serde::Serialize;

use crate::args::{DiffArgs, Format};
use crate::error::CliError;
use crate::output::{Lines, Records};
use crate::settings::Settings;

/// A difference for programs.
#[derive(Serialize)]
struct Record {
    path: RawString,
    change: &'static str,
    /// What of an entry changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    what: Vec<&'static str>,
}

/// `sarus diff`
pub(crate) fn diff(args: &DiffArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let stores = settings.stores(args.place.centralized_repository)?;
    let platform = args.place.platform();
    let a = Looked::open(&stores, &args.a, &platform)?;
    let b = Looked::open(&stores, &args.b, &platform)?;
    let (in_a, in_b) = (a.squashfs()?, b.squashfs()?);
    let (subject_a, subject_b) = (a.subject(&in_a), b.subject(&in_b));
    let options = CompareOptions { times: args.times };
    let compared = match args.format {
        Format::Table => {
            let mut lines = Lines::default();
            let compared =
                compare(subject_a, subject_b, options, |difference| line(&mut lines, &difference));
            lines.end()?;
            compared
        }
        Format::Json => {
            let mut records = Records::default();
            let compared =
                compare(subject_a, subject_b, options, |found| records.put(&record(found)));
            if compared.is_ok() {
                records.end()?;
            }
            compared
        }
    };
    compared.map_err(|error| match error {
        CompareError::A(source) => a.failure(source).into(),
        CompareError::B(source) => b.failure(source).into(),
        CompareError::Visit(error) => error,
    })
}

/// As `docker diff` has it.
fn line(lines: &mut Lines, difference: &Difference) -> Result<(), CliError> {
    lines.put(match difference.change {
        Change::Added => "A ",
        Change::Changed(_) => "C ",
        Change::Deleted => "D ",
    })?;
    lines.name(&difference.path)?;
    lines.put("\n")
}

fn record(difference: Difference) -> Record {
    let (change, what) = match difference.change {
        Change::Added => ("added", Vec::new()),
        Change::Changed(aspects) => ("changed", aspects.into_iter().map(word).collect()),
        Change::Deleted => ("deleted", Vec::new()),
    };
    Record { path: OsString::from_vec(difference.path).into(), change, what }
}

fn word(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Type => "type",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Size => "size",
        Aspect::Content => "content",
        Aspect::Target => "target",
        Aspect::Device => "device",
        Aspect::Attributes => "xattrs",
        Aspect::Time => "time",
    }
}
