//! `sarus verify`

use std::ffi::{OsStr, OsString};
use std::path::Path;

use sarus_image::squash::browse::Checked;
use sarus_image::{Depth, Image, ImageError, Soundness, Target, Verified, verify as verify_image};
use sarus_oci::Digest;
use serde::Serialize;

use crate::args::{Format, VerifyArgs};
use crate::error::{CliError, report};
use crate::output;
use crate::settings::Settings;
use crate::to_stderr;

/// What was found out of one image.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    image: String,
    sound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
    /// What of the file was compared with what the store wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `sarus verify`: looks at all images, also behind one that is not sound.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let stores = settings.stores(args.place.centralized_repository)?;
    let depth = if args.deep { Depth::Deep } else { Depth::Digest };
    let mut records = Vec::new();
    for given in &args.images {
        records.push(match file_of(given)? {
            Some(path) => settle(given, None, sarus_image::verify_file(path).map(of_file)),
            None => {
                let name = given.to_string_lossy();
                match stores.find(&name, &args.place.platform()) {
                    Ok(found) => of_store(given, &found.image, depth),
                    // Nothing was verified where there is nothing.
                    Err(error @ ImageError::Store(_)) => settle(given, None, Err(error)),
                    Err(error) => return Err(error.into()),
                }
            }
        });
    }
    for store in stores.iter().filter(|_| args.all) {
        let listing = store.list().map_err(ImageError::from)?;
        for digest in listing.images.keys() {
            let name = listing.names.iter().find(|name| name.digest == *digest);
            let name = name.map_or_else(|| digest.to_string(), |name| name.reference.to_string());
            let name = OsStr::new(&name);
            match store.image(digest) {
                Ok(image) => records.extend(image.map(|image| of_store(name, &image, depth))),
                Err(damage) => records.push(settle(name, None, Err(damage.into()))),
            }
        }
        for name in listing.names.iter().filter(|it| !listing.images.contains_key(&it.digest)) {
            // Of a damaged one is told below.
            if !matches!(store.image(&name.digest), Ok(None)) {
                continue;
            }
            let given = name.reference.to_string();
            let gone = ImageError::Missing { given: given.clone() };
            records.push(settle(OsStr::new(&given), Some(name.digest.clone()), Err(gone)));
        }
        for damage in listing.damaged {
            let root = store.root().as_os_str();
            records.push(settle(root, None, Err(ImageError::from(damage))));
        }
    }
    print(args.format, &records)?;
    match records.iter().filter(|record| !record.sound).count() {
        0 => Ok(()),
        count => Err(CliError::NotSound { count, total: records.len() }),
    }
}

/// The path, where it is the one of a file.
fn file_of(given: &OsString) -> Result<Option<&Path>, ImageError> {
    match Target::find(given) {
        Ok(Target::File(_)) => Ok(Some(Path::new(given))),
        // The same error comes again when it is read.
        Err(ImageError::NotSquashfs { .. }) => Ok(Some(Path::new(given))),
        Err(error @ (ImageError::NotAFile { .. } | ImageError::OpenFile { .. })) => Err(error),
        _ => Ok(None),
    }
}

fn of_store(given: &OsStr, image: &Image, depth: Depth) -> Record {
    let verified = verify_image(image, depth);
    settle(
        given,
        Some(image.digest.clone()),
        verified.map(|it: Soundness| (Some(it.file), it.content)),
    )
}

fn of_file(checked: Checked) -> (Option<Verified>, Option<Checked>) {
    (None, Some(checked))
}

type Verdict = Result<(Option<Verified>, Option<Checked>), ImageError>;

/// A fault is told at once, with causes and hint.
fn settle(given: &OsStr, digest: Option<Digest>, verdict: Verdict) -> Record {
    let image = given.to_string_lossy().into_owned();
    let mut record = Record {
        image,
        sound: true,
        digest,
        compared: None,
        entries: None,
        bytes: None,
        error: None,
    };
    match verdict {
        Ok((file, content)) => {
            record.compared = file.map(|file| match file {
                Verified::Digest => "digest",
                Verified::Length => "length",
            });
            record.entries = content.map(|content| content.entries);
            record.bytes = content.map(|content| content.bytes);
        }
        Err(error) => {
            to_stderr(&report(&error, error.hint().as_deref()));
            record.sound = false;
            record.error = Some(one_line(&error));
        }
    }
    record
}

fn one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn print(format: Format, records: &[Record]) -> Result<(), CliError> {
    if format == Format::Json {
        return output::json(&records);
    }
    let mut text = String::new();
    for record in records {
        let verdict = match (record.sound, record.compared) {
            (false, _) => "NOT SOUND".to_owned(),
            (true, None) => "sound".to_owned(),
            (true, Some("length")) => "sound (length only: no digest was stored)".to_owned(),
            (true, Some(_)) => "sound".to_owned(),
        };
        let read = record.entries.map(|entries| format!(", {entries} entries read"));
        text.push_str(&format!("{}: {verdict}{}\n", record.image, read.unwrap_or_default()));
    }
    output::text(&text)
}
