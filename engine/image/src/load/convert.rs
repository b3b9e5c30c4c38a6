//! From layers that are at hand to an image in the store.
//!
//! As a pull, without downloads: layers are read, verified, inflated, merged and compressed at
//! the same time, and the image becomes part of the store when all were what they must be.

use std::io::{self, Read};
use std::sync::Arc;

use sarus_oci::{Digest, ImageConfig, Platform};
use sarus_squash::{Allowance, Converted, Layer, inflate};
use sarus_store::{Image, Pending, Store};

use super::LoadError;
use super::ahead::Ahead;
use super::archived::{Archived, ArchivedLayer, Expected};
use super::checked::{Checked, Seen};
use super::made::{self, PLAIN_LAYER, PlainLayer};
use crate::documents::Documents;
use crate::pull::{failed_layer, made_at};
use crate::timing::{self, Stopwatch};
use crate::{ImageError, LayerSize, Observer, Origin, Phase, PullSettings};

/// A load, with what it needs besides images.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub(super) store: &'a Store,
    pub(super) settings: &'a PullSettings,
    pub(super) platform: &'a Platform,
    pub(super) observer: &'a dyn Observer,
}

/// An image of the store.
pub(super) struct Stored {
    pub(super) image: Image,
    /// It was there before.
    pub(super) was_there: bool,
    /// Of its conversion; none when there was nothing to do.
    pub(super) phases: Vec<Phase>,
}

impl Job<'_> {
    /// Makes sure that the store has an image of an archive.
    ///
    /// # Errors
    ///
    /// [`ImageError`]; the store is as it was.
    pub(super) fn image(&self, label: &str, archived: &Archived) -> Result<Stored, ImageError> {
        if let Some(digest) = known_digest(archived)? {
            match self.store.image(&digest) {
                Ok(Some(image)) => {
                    return Ok(Stored { image, was_there: true, phases: Vec::new() });
                }
                Ok(None) => {}
                Err(error) if error.is_damage() => log::debug!("converted anew: {error}"),
                Err(error) => return Err(error.into()),
            }
        }
        self.tidy();
        let layers = &archived.layers;
        let sizes = layers
            .iter()
            .map(|layer| LayerSize { digest: layer.digest().clone(), size: layer.section.size() });
        self.observer.begin(&sizes.collect::<Vec<_>>());
        let seen: Vec<Seen> = layers.iter().map(|_| Seen::default()).collect();
        let readers = layers.iter().enumerate().map(|(number, layer)| {
            let reader = self.reader(number, layer, &seen[number])?;
            Ok::<_, io::Error>(Layer { name: layer.digest().to_string(), reader })
        });
        let time = made_at(&archived.config);
        let pending = self.store.begin(&Digest::sha256_of(label.as_bytes()))?;
        let converted = self.convert(label, readers, (&pending, time));
        let converted = converted.map_err(|error| cause(error, layers))?;
        let documents = documents(archived, &seen);
        self.commit(pending, documents, converted)
    }

    /// Stores a root file system that is a stream, as an image of one layer. `complete` is asked
    /// before the image becomes part of the store.
    ///
    /// # Errors
    ///
    /// [`ImageError`]; the store is as it was.
    pub(super) fn root(
        &self,
        label: &str,
        (stream, execution): (Box<dyn Read + Send>, &serde_json::Value),
        platform: &Platform,
        complete: &mut dyn FnMut() -> Result<(), LoadError>,
    ) -> Result<Stored, ImageError> {
        self.tidy();
        let seen = Seen::default();
        let checked = Checked::new(stream, (label.to_owned(), None), Arc::clone(&seen));
        let failed = |source| LoadError::Read { from: label.to_owned(), source };
        let ahead = Ahead::of(Box::new(checked)).map_err(failed)?;
        let watched = Watched { observer: self.observer, number: 0, bytes: 0, inner: ahead };
        let layer = Layer { name: label.to_owned(), reader: Box::new(watched) };
        let pending = self.store.begin(&Digest::sha256_of(label.as_bytes()))?;
        let layers = std::iter::once(Ok::<_, io::Error>(layer));
        let converted = self.convert(label, layers, (&pending, 0));
        // Its own failure is the cause of the conversion's.
        complete()?;
        let converted = converted?;
        let plain = seen_or_empty(&seen);
        let config_bytes = made::config(platform, execution, &plain.diff_id);
        let config = ImageConfig::parse(&config_bytes)
            .map_err(|source| ImageError::Config { image: label.to_owned(), source })?;
        let documents = Documents {
            digest: made::manifest_digest(&config_bytes, std::slice::from_ref(&plain)),
            config_digest: Digest::sha256_of(&config_bytes),
            config,
            layers: vec![plain_layer(&plain)],
        };
        self.commit(pending, documents, converted)
    }

    fn tidy(&self) {
        if let Err(error) = self.store.sweep(self.settings.removal_grace) {
            log::debug!("what killed processes left stays for now: {error}");
        }
    }

    /// A reader of a layer that verifies it: as it lies there, or inflated.
    fn reader<'r>(
        &'r self,
        number: usize,
        layer: &ArchivedLayer,
        seen: &Seen,
    ) -> io::Result<Box<dyn Read + Send + 'r>> {
        let reader: Box<dyn Read + Send> = match layer.expected {
            Expected::Blob(_) => Box::new(layer.section.reader()),
            Expected::DiffId(_) => plain(layer)?,
        };
        let object = (layer.digest().to_string(), Some(layer.digest().clone()));
        let checked = Checked::new(reader, object, Arc::clone(seen));
        let inner = Ahead::of(Box::new(checked))?;
        Ok(Box::new(Watched { observer: self.observer, number, bytes: 0, inner }))
    }

    fn convert<'l>(
        &self,
        label: &str,
        layers: impl Iterator<Item = io::Result<Layer<'l>>>,
        (pending, time): (&Pending<'_>, u32),
    ) -> Result<Converted, ImageError> {
        let output =
            pending.file().try_clone().map_err(|source| ImageError::Duplicate { source })?;
        let mut squash = self.settings.squash;
        squash.time = self.settings.time.unwrap_or(time);
        let progress = |progress: sarus_squash::Progress| {
            pending.advance(progress.total);
            self.observer.converted(progress);
        };
        sarus_squash::convert(layers, output, &squash, &progress)
            .map_err(|source| ImageError::Convert { image: label.to_owned(), source })
    }

    /// Makes the image part of the store.
    fn commit(
        &self,
        pending: Pending<'_>,
        documents: Documents,
        converted: Converted,
    ) -> Result<Stored, ImageError> {
        self.observer.storing();
        let watch = Stopwatch::start();
        let threads = self.settings.squash.threads.get();
        let mut phases = timing::of_conversion(&converted, threads).to_vec();
        let digest = documents.digest.clone();
        let metadata = documents.metadata(converted, &self.settings.squash, self.platform);
        let was_there = matches!(self.store.image(&digest), Ok(Some(_)));
        let image = pending.with_digest(digest).commit(&metadata)?;
        phases.push(watch.stop("store", None));
        Ok(Stored { image, was_there, phases })
    }
}

/// Tells the observer how far a layer is read, and when all of it is.
struct Watched<'a> {
    observer: &'a dyn Observer,
    number: usize,
    bytes: u64,
    inner: Ahead,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        if count > 0 {
            self.observer.fetched(self.number, self.bytes);
        } else if !buffer.is_empty() {
            self.observer.layer_done(self.number, Origin::Registry);
        }
        Ok(count)
    }
}

/// The image's digest, where it can be told without reading the layers.
fn known_digest(archived: &Archived) -> Result<Option<Digest>, LoadError> {
    if let Some(digest) = &archived.digest {
        return Ok(Some(digest.clone()));
    }
    let mut layers = Vec::new();
    for layer in &archived.layers {
        let mut head = Vec::new();
        let read = layer.section.reader().take(6).read_to_end(&mut head);
        let failed = |source| LoadError::Read { from: layer.digest().to_string(), source };
        read.map_err(failed)?;
        let stream: Box<dyn Read + Send> = Box::new(io::Cursor::new(head));
        let looked = inflate(stream, Allowance::LAYER).map_err(failed)?;
        if looked.was_compressed {
            return Ok(None);
        }
        layers.push(PlainLayer { diff_id: layer.digest().clone(), size: layer.section.size() });
    }
    Ok(Some(made::manifest_digest(&archived.config_bytes, &layers)))
}

fn documents(archived: &Archived, seen: &[Seen]) -> Documents {
    let plain: Vec<PlainLayer> = seen.iter().map(seen_or_empty).collect();
    let layers = archived.layers.iter().zip(&plain).map(|(layer, plain)| match &layer.expected {
        Expected::DiffId(_) => plain_layer(plain),
        Expected::Blob(descriptor) => sarus_store::Layer {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
        },
    });
    let made = || made::manifest_digest(&archived.config_bytes, &plain);
    Documents {
        digest: archived.digest.clone().unwrap_or_else(made),
        config_digest: archived.config_digest.clone(),
        config: archived.config.clone(),
        layers: layers.collect(),
    }
}

/// A conversion that succeeded has read every layer to its end.
fn seen_or_empty(seen: &Seen) -> PlainLayer {
    let empty = || PlainLayer { diff_id: Digest::sha256_of(b""), size: 0 };
    seen.get().cloned().unwrap_or_else(empty)
}

fn plain_layer(plain: &PlainLayer) -> sarus_store::Layer {
    sarus_store::Layer {
        digest: plain.diff_id.clone(),
        size: plain.size,
        media_type: PLAIN_LAYER.to_owned(),
    }
}

/// A layer without its compression.
fn plain(layer: &ArchivedLayer) -> io::Result<Box<dyn Read + Send>> {
    let inflated = inflate(Box::new(layer.section.reader()), Allowance::LAYER)?;
    match inflated.foreign {
        None => Ok(inflated.reader),
        Some(compression) => {
            let object = layer.digest().to_string();
            Err(io::Error::other(LoadError::Compression { object, compression }))
        }
    }
}

/// Content that cannot be read is the archive's fault where the digest is wrong.
fn cause(error: ImageError, layers: &[ArchivedLayer]) -> ImageError {
    let ImageError::Convert { source, .. } = &error else { return error };
    let Some(name) = failed_layer(source) else { return error };
    let failed = layers.iter().find(|layer| layer.digest().to_string() == *name);
    failed.and_then(|layer| read_to_end(layer).err()).map_or(error, ImageError::from)
}

/// Whether a layer is what it must be. Errors other than a wrong digest are the conversion's.
fn read_to_end(layer: &ArchivedLayer) -> Result<(), LoadError> {
    let mut reader: Box<dyn Read + Send> = match layer.expected {
        Expected::Blob(_) => Box::new(layer.section.reader()),
        Expected::DiffId(_) => match plain(layer) {
            Ok(reader) => reader,
            Err(_said_by_the_conversion) => return Ok(()),
        },
    };
    let expected = layer.digest();
    let mut hasher = sarus_oci::Hasher::for_digest(expected);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_said_by_the_conversion) => return Ok(()),
        }
    }
    let (got, object) = (hasher.finish(), expected.to_string());
    if got == *expected {
        return Ok(());
    }
    Err(LoadError::Digest { object, expected: expected.clone(), got })
}
