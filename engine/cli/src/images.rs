//! `sarus images`, `rmi` and `inspect`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use sarus_image::{Extent, Name, Removal, Removed, ShortNames, Store, Summary};
use sarus_oci::{Digest, Reference};
use serde::Serialize;

use crate::args::{Format, ImagesArgs, InspectArgs, RmiArgs};
use crate::error::{CliError, report};
use crate::output::{self, ago, short_id, size, table};
use crate::settings::Settings;
use crate::to_stderr;

/// One line of the list: an image under one of its names.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Registry and repository, as Docker shortens them.
    pub repository: String,
    /// Tag; none for a name with a digest only.
    pub tag: Option<String>,
    /// Digest of the platform's manifest.
    pub digest: Digest,
    /// Digest of the configuration.
    pub image_id: Digest,
    /// The platform.
    pub platform: String,
    /// When the image was made, RFC 3339.
    pub created: Option<String>,
    /// When the name was last given, seconds since 1970.
    pub pulled: Option<u64>,
    /// Length of the squashfs file in bytes.
    pub size: u64,
    /// The registry.
    pub server: String,
}

impl Line {
    /// A line for an image and one of its names, or none.
    pub fn new(digest: &Digest, image: &Summary, name: Option<&Name>) -> Self {
        let reference = name.map(|name| &name.reference);
        Self {
            repository: reference.map_or_else(|| "<none>".to_owned(), short_repository),
            tag: reference.and_then(|reference| reference.tag()).map(str::to_owned),
            digest: digest.clone(),
            image_id: image.config_digest.clone(),
            platform: name.map_or(&image.platform, |name| &name.platform).to_string(),
            created: image.created.clone(),
            pulled: name.map(|name| name.pulled),
            size: image.bytes,
            server: reference.map_or("<none>", Reference::registry).to_owned(),
        }
    }
}

/// What users call the repository: without the default registry and its namespace.
fn short_repository(reference: &Reference) -> String {
    let repository = reference.repository();
    if reference.registry() != sarus_oci::DEFAULT_REGISTRY {
        return reference.name();
    }
    repository.strip_prefix("library/").unwrap_or(repository).to_owned()
}

/// Whether the repository as a line has it, with the name's tag and digest, means another image here.
fn is_anothers(elsewhere: &ShortNames, repository: &str, name: &Name) -> bool {
    let (tag, digest) = (name.reference.tag(), name.reference.digest());
    let mut text = repository.to_owned();
    text.extend(tag.map(|tag| format!(":{tag}")));
    text.extend(digest.map(|digest| format!("@{digest}")));
    Reference::parse(&text).is_ok_and(|short| elsewhere.contains(&short, &name.platform))
}

/// `sarus images`
pub(crate) fn images(args: &ImagesArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let mut lines = Vec::new();
    for store in settings.stores(args.store.centralized_repository)?.iter() {
        lines.extend(lines_of(store, settings.config.removal_grace)?);
    }
    if args.quiet {
        return output::text(&ids(&lines, args.no_trunc));
    }
    match args.format {
        Format::Json => output::json(&lines),
        Format::Table => {
            let now = jiff::Timestamp::now().as_second();
            output::text(&images_table(&lines, args.digests, args.no_trunc, now))
        }
    }
}

/// The lines of a store, which is tidied where it can be written.
fn lines_of(store: &Store, grace: Duration) -> Result<Vec<Line>, CliError> {
    let listing = store.sweep_and_list(grace).map_err(sarus_image::ImageError::from)?;
    for damage in &listing.damaged {
        to_stderr(&format!("warning: {damage}\n"));
    }
    let elsewhere = store.short_names().map_err(sarus_image::ImageError::from)?;
    let mut named: HashSet<&Digest> = HashSet::new();
    let mut lines = Vec::new();
    for name in &listing.names {
        // A name whose image is gone is not listed.
        if let Some(image) = listing.images.get(&name.digest) {
            named.insert(&name.digest);
            let mut line = Line::new(&name.digest, image, Some(name));
            if is_anothers(&elsewhere, &line.repository, name) {
                line.repository = name.reference.name();
            }
            lines.push(line);
        }
    }
    let unnamed = listing.images.iter().filter(|(digest, _)| !named.contains(digest));
    lines.extend(unnamed.map(|(digest, image)| Line::new(digest, image, None)));
    Ok(lines)
}

fn ids(lines: &[Line], whole: bool) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&id(&line.image_id, whole));
        text.push('\n');
    }
    text
}

fn id(digest: &Digest, whole: bool) -> Cow<'_, str> {
    if whole { digest.to_string().into() } else { short_id(digest.hex()).into() }
}

/// The table that people see. `now` in seconds since 1970.
#[expect(clippy::fn_params_excessive_bools, reason = "the two options of the table, as given")]
pub fn images_table(lines: &[Line], digests: bool, no_trunc: bool, now: i64) -> String {
    let mut header = vec!["REPOSITORY", "TAG"];
    if digests {
        header.push("DIGEST");
    }
    header.extend(["IMAGE ID", "CREATED", "SIZE", "SERVER"]);
    let rows: Vec<Vec<Cow<'_, str>>> = lines
        .iter()
        .map(|line| {
            let mut row = Vec::with_capacity(header.len());
            row.push(line.repository.as_str().into());
            row.push(line.tag.as_deref().unwrap_or("<none>").into());
            if digests {
                row.push(line.digest.to_string().into());
            }
            row.push(id(&line.image_id, no_trunc));
            row.push(created(line, now).into());
            row.push(size(line.size).into());
            row.push(line.server.as_str().into());
            row
        })
        .collect();
    table(&header, &rows)
}

fn created(line: &Line, now: i64) -> String {
    let time = line.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or_else(|| "N/A".to_owned(), |time| ago(now - time.as_second()))
}

/// `sarus rmi`
pub(crate) fn rmi(args: &RmiArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let store = settings.store(args.place.centralized_repository)?;
    let grace = settings.config.removal_grace;
    let extent = if args.force { Extent::Forced } else { Extent::Careful(grace) };
    let mut failed = None;
    for given in &args.images {
        let removed = match sarus_image::remove(&store, given, &args.place.platform(), extent) {
            Ok(removed) => removed,
            // The others are removed all the same.
            Err(error) => {
                if let Some(before) = failed.replace(error) {
                    to_stderr(&report(&before, before.hint().as_deref()));
                }
                continue;
            }
        };
        output::text(&removal_lines(&removed))?;
        if let Removal::Deferred(grace) = removed.removal {
            to_stderr(&format!(
                "the file of `{given}` is kept for {} for jobs that use it; `sarus rmi --force` \
                 deletes it now\n",
                duration(grace)
            ));
        }
    }
    // Forced, also what earlier commands kept.
    tidy(&store, if args.force { Duration::ZERO } else { grace });
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Docker's words.
fn removal_lines(removed: &Removed) -> String {
    let names = removed.names.iter().map(|name| format!("Untagged: {name}\n"));
    let image = removed.image.iter().map(|digest| format!("Deleted: {digest}\n"));
    names.chain(image).collect()
}

/// A grace period for people.
pub(crate) fn duration(time: Duration) -> String {
    let hours = time.as_secs().div_ceil(3600);
    match hours {
        0..48 => format!("{hours} h"),
        _ => format!("{} days", hours / 24),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    names: Vec<String>,
    admissions: Vec<AdmissionLine>,
    squashfs: String,
    store: String,
    #[serde(flatten)]
    metadata: &'a sarus_image::Metadata,
}

/// Why the image was let in under one of its names.
#[derive(Serialize)]
struct AdmissionLine {
    name: String,
    #[serde(flatten)]
    admission: serde_json::Value,
}

/// `sarus inspect`
pub(crate) fn inspect(args: &InspectArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let stores = settings.stores(args.place.centralized_repository)?;
    let platform = args.place.platform();
    let found = args
        .images
        .iter()
        .map(|given| stores.find(given, &platform))
        .collect::<Result<Vec<_>, _>>()?;
    let records: Vec<Record<'_>> = found
        .iter()
        .map(|found| Record {
            names: found.names.iter().map(|name| name.reference.to_string()).collect(),
            admissions: found.names.iter().filter_map(admission).collect(),
            squashfs: found.image.squashfs.to_string_lossy().into_owned(),
            store: found.store.root().to_string_lossy().into_owned(),
            metadata: &found.image.metadata,
        })
        .collect();
    output::json(&records)
}

/// Nothing where an earlier version, which kept none, gave the name.
fn admission(name: &Name) -> Option<AdmissionLine> {
    let admission = name.admission.as_ref()?.value();
    if !admission.is_object() {
        return None;
    }
    Some(AdmissionLine { name: name.reference.to_string(), admission })
}

/// Removes what killed commands left. A store that cannot be written is only read.
pub(crate) fn tidy(store: &Store, grace: Duration) {
    if store.is_read_only() {
        return;
    }
    if let Err(error) = store.sweep(grace) {
        log::debug!("what killed commands left stays: {error}");
    }
}
