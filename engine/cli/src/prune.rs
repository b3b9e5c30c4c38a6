//! `sarus prune`

use std::collections::BTreeSet;
use std::io::BufRead;

use sarus_image::{ImageError, Kind, Prunable, Pruned, Store};
use sarus_oci::Reference;
use serde::Serialize;

use crate::args::{Format, PruneArgs};
use crate::error::CliError;
use crate::output::{self, short_id, size, table};
use crate::settings::Settings;
use crate::{images, running, to_stderr};

/// `sarus prune`
pub(crate) fn prune(args: &PruneArgs) -> Result<(), CliError> {
    let settings = Settings::load()?;
    let store = settings.store(args.store.centralized_repository)?;
    let grace = settings.config.removal_grace;
    if !args.dry_run && !args.force && !is_confirmed(args.all)? {
        return Ok(());
    }
    let unused = if args.all { unused(&store)? } else { Vec::new() };
    if !args.dry_run {
        for image in &unused {
            let digest = sarus_oci::Digest::parse(&image.name).ok();
            let removed = digest.map(|digest| store.remove_image(&digest, grace)).transpose();
            removed.map_err(ImageError::from)?;
        }
    }
    let mut pruned = store.prune(grace, args.dry_run).map_err(ImageError::from)?;
    let mut later = Vec::new();
    if grace.is_zero() {
        pruned.items.extend(unused);
    } else {
        later = unused;
    }
    if pruned.pulling {
        to_stderr("note: a pull is going on, so the cached layers that it may use stay\n");
    }
    if !later.is_empty() {
        let (count, bytes) = (later.len(), later.iter().map(|image| image.bytes).sum());
        let time = images::duration(grace);
        to_stderr(&format!(
            "note: {count} images, {}, are freed after {time}, for jobs that use them; \
             `sarus rmi --force` deletes them now\n",
            size(bytes)
        ));
    }
    match args.format {
        Format::Json => output::json(&Record::new(&pruned, &later, args.dry_run)),
        Format::Table => output::text(&report(&pruned, args.dry_run)),
    }
}

/// Docker's question. Without an answer it is no.
fn is_confirmed(all: bool) -> Result<bool, CliError> {
    let also = if all { ", and every image that no container of yours here uses" } else { "" };
    to_stderr(&format!(
        "WARNING! This removes cached layers, what killed commands left, images without a name{also}.\n\
         Are you sure you want to continue? [y/N] "
    ));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.map_err(|source| CliError::Input { what: "the answer", source })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES"))
}

/// The images that have a name and that no running container of the caller on this node has.
fn unused(store: &Store) -> Result<Vec<Prunable>, CliError> {
    let listing = store.list().map_err(ImageError::from)?;
    let records = running::records();
    let running: Vec<Reference> =
        records.iter().filter_map(|record| Reference::parse(&record.image).ok()).collect();
    let used: BTreeSet<_> = listing
        .names
        .iter()
        .filter(|name| {
            let by_digest =
                |other: &Reference| other.digest().is_some_and(|digest| *digest == name.digest);
            running.iter().any(|other| *other == name.reference || by_digest(other))
        })
        .map(|name| &name.digest)
        .collect();
    let images = listing.images.iter().filter(|(digest, _)| !used.contains(digest));
    Ok(images
        .map(|(digest, image)| Prunable {
            kind: Kind::Image,
            name: digest.to_string(),
            bytes: image.bytes,
        })
        .collect())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    dry_run: bool,
    freed: &'a [Prunable],
    bytes: u64,
    later: &'a [Prunable],
    pulling: bool,
}

impl<'a> Record<'a> {
    fn new(pruned: &'a Pruned, later: &'a [Prunable], dry_run: bool) -> Self {
        let (freed, bytes) = (pruned.items.as_slice(), pruned.bytes());
        Self { dry_run, freed, bytes, later, pulling: pruned.pulling }
    }
}

fn report(pruned: &Pruned, dry_run: bool) -> String {
    let rows: Vec<Vec<String>> = pruned
        .items
        .iter()
        .map(|item| {
            let name = item.name.strip_prefix("sha256:").map_or(item.name.as_str(), short_id);
            vec![kind(item.kind).to_owned(), name.to_owned(), size(item.bytes)]
        })
        .collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text = table(&["KIND", "NAME", "SIZE"], &rows);
    }
    let total = if dry_run { "Total space to be reclaimed" } else { "Total reclaimed space" };
    text.push_str(&format!("{total}: {}\n", size(pruned.bytes())));
    text
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Blob => "layer",
        Kind::Partial => "part of a layer",
        Kind::Temporary => "leftover",
        Kind::Image => "image",
    }
}
