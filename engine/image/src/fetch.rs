//! Gets the blobs of an image, several at once, into the store's cache, while they are read.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use sarus_oci::manifest::Descriptor;
use sarus_oci::{Hasher, Reference};
use sarus_registry::RegistryError;
use sarus_squash::thread_time;
use sarus_store::{PartialBlob, Report, Store, StoreError};

use crate::flow::{Flow, FlowReader};
use crate::keeper::{Held, Keeper};
use crate::turn::{self, Turn, Work};
use crate::{ImageError, Observer, Origin, Other, Source};

/// Bytes hashed at once of what is in the cache already.
const BUFFER: usize = 256 << 10;

/// Most layers that are fetched and not yet converted: what is on disk for them is bounded, and the
/// network has enough to do.
const AHEAD: usize = 8;

/// No blob is to be stopped.
const GO_ON: usize = usize::MAX;
/// All are.
const STOP_ALL: usize = usize::MAX - 1;

/// What tells others what this pull does.
#[derive(Clone, Copy)]
pub(crate) struct Leases<'a> {
    pub(crate) store: &'a Store,
    pub(crate) keeper: &'a Keeper,
    /// The lease of the whole image, which shows how far the pull is.
    pub(crate) image: &'a Held,
}

/// The blobs of one image.
pub(crate) struct Fetch<'a, S: ?Sized> {
    source: &'a S,
    /// The complete name under which the image was found.
    reference: &'a Reference,
    leases: Leases<'a>,
    /// The layers, oldest first.
    layers: &'a [Descriptor],
    observer: &'a dyn Observer,
    /// One for each layer; a blob that occurs twice is fetched for its first place.
    flows: Vec<Flow>,
    next: AtomicUsize,
    /// Layers that were read to their end.
    read: Mutex<usize>,
    read_on: Condvar,
    /// [`GO_ON`], [`STOP_ALL`], or the one layer that is to be finished.
    only: AtomicUsize,
    /// A cached beginning was used that may have been damaged.
    continued: AtomicBool,
    failure: Mutex<Option<ImageError>>,
}

impl<'a, S: Source + ?Sized> Fetch<'a, S> {
    pub(crate) fn new(
        (source, reference): (&'a S, &'a Reference),
        leases: Leases<'a>,
        layers: &'a [Descriptor],
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            source,
            reference,
            leases,
            layers,
            observer,
            flows: layers.iter().map(|_| Flow::default()).collect(),
            next: AtomicUsize::new(0),
            read: Mutex::new(0),
            read_on: Condvar::new(),
            only: AtomicUsize::new(GO_ON),
            continued: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    /// A reader of a layer, which follows the download.
    pub(crate) fn reader(&self, layer: usize) -> FlowReader<'_> {
        self.flows[self.first_place(layer)].reader()
    }

    /// Fetches one layer after the other until none is left; to be called by each worker. The time of
    /// processors that it took.
    pub(crate) fn work(&self) -> Duration {
        loop {
            let layer = self.next.fetch_add(1, Ordering::Relaxed);
            if layer >= self.layers.len() {
                return thread_time();
            }
            if self.first_place(layer) != layer {
                continue;
            }
            self.wait_for_turn(layer);
            match self.fetch(layer) {
                Ok(()) => {}
                Err(error) if self.is_wanted(layer) => self.fail(error),
                Err(error) => {
                    log::debug!("download stopped: {error}");
                    self.flows[layer].give_up();
                }
            }
        }
    }

    /// A layer was read to its end: its blob goes at once where the cache holds more than `limit`
    /// bytes, so that a pull's temporary room does not grow with its layers.
    pub(crate) fn release(&self, layer: usize, limit: u64) {
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = layer + 1;
        self.read_on.notify_all();
        let digest = &self.layers[layer].digest;
        if self.layers[layer + 1..].iter().any(|later| later.digest == *digest) {
            return;
        }
        if let Err(error) = self.leases.store.blobs().release(digest, limit) {
            log::debug!("`{digest}` stays in the cache for now: {error}");
        }
    }

    /// Ends all downloads but that of `layer`, and waits for it: only its digest tells whether
    /// what was wrong with its content is the download's fault.
    pub(crate) fn finish_only(&self, layer: usize) {
        let layer = self.first_place(layer);
        self.change_wanted(layer);
        self.flows[layer].wait_for_end();
        self.stop();
    }

    /// Ends all downloads; what came so far stays in the cache.
    pub(crate) fn stop(&self) {
        self.change_wanted(STOP_ALL);
        self.flows.iter().for_each(Flow::give_up);
    }

    fn change_wanted(&self, only: usize) {
        // Under the lock, so that nobody is between looking and waiting.
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        self.only.store(only, Ordering::Relaxed);
        drop(read);
        self.read_on.notify_all();
    }

    /// Waits until at most [`AHEAD`] layers are under way before this one, or it is not wanted.
    fn wait_for_turn(&self, layer: usize) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        while layer >= *read + AHEAD && self.only.load(Ordering::Relaxed) == GO_ON {
            read = self.read_on.wait(read).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first failure of a download, once.
    pub(crate) fn take_failure(&self) -> Option<ImageError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether a failed verification may be the fault of what an earlier pull left.
    pub(crate) fn used_old_beginning(&self) -> bool {
        self.continued.load(Ordering::Relaxed)
    }

    fn fail(&self, error: ImageError) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
        drop(failure);
        self.stop();
    }

    fn first_place(&self, layer: usize) -> usize {
        let digest = &self.layers[layer].digest;
        self.layers.iter().position(|other| other.digest == *digest).unwrap_or(layer)
    }

    fn fetch(&self, layer: usize) -> Result<(), ImageError> {
        let (descriptor, flow) = (&self.layers[layer], &self.flows[layer]);
        if !self.is_wanted(layer) {
            flow.give_up();
            return Ok(());
        }
        let blob = Blob { fetch: self, layer };
        let held = match turn::take(self.leases.store, &descriptor.digest, &blob)? {
            Turn::Done(file) => {
                flow.begin(Arc::new(file), descriptor.size);
                flow.complete();
                self.leases.image.add(descriptor.size);
                self.observer.layer_done(layer, Origin::Cache);
                return Ok(());
            }
            Turn::Unwanted => {
                flow.give_up();
                return Ok(());
            }
            Turn::Ours(lease, report) => {
                self.leases.keeper.keep(lease, Report { total: descriptor.size, ..report })
            }
            // Of a blob no failure is left, so there is none to be shared.
            Turn::Alone | Turn::Failed(..) => Held::nothing(),
        };
        self.download(layer, &held)
    }

    /// Fetches what the cache does not have of a layer.
    fn download(&self, layer: usize, held: &Held) -> Result<(), ImageError> {
        let (descriptor, flow) = (&self.layers[layer], &self.flows[layer]);
        let (mut partial, hasher) = self.begin(descriptor)?;
        flow.begin(partial.file(), partial.len());
        self.leases.image.add(partial.len());
        self.observer.fetched(layer, partial.len());
        // A manifest may say of any blob that it is empty.
        let is_whole =
            partial.len() == descriptor.size && hasher.clone().finish() == descriptor.digest;
        let downloaded = if is_whole {
            Ok(())
        } else {
            let mut sink = Sink { fetch: self, layer, partial: &mut partial, held, failure: None };
            let done = self.source.download(self.reference, descriptor, hasher, &mut sink);
            let failure = sink.failure.take();
            done.map_err(|error| failure.map_or_else(|| error.into(), ImageError::from))
        };
        match downloaded {
            Ok(()) => {
                partial.finish()?;
                flow.complete();
                self.observer.layer_done(layer, Origin::Registry);
                Ok(())
            }
            Err(error) => {
                if is_altered(&error) {
                    partial.discard();
                }
                Err(error)
            }
        }
    }

    /// A blob of the cache that still has its digest; one that has not is removed. One of another
    /// length than the descriptor says is left alone: it may be the descriptor that is wrong.
    fn cached(&self, descriptor: &Descriptor) -> Result<Option<File>, ImageError> {
        let Some(file) = self.leases.store.blobs().open(&descriptor.digest)? else {
            return Ok(None);
        };
        let mut hasher = Hasher::for_digest(&descriptor.digest);
        let hashed = hash(&file, u64::MAX, &mut hasher);
        let length = hasher.bytes();
        if hashed.is_ok() && hasher.finish() == descriptor.digest {
            return Ok((length == descriptor.size).then_some(file));
        }
        log::debug!("`{}` is damaged in the cache, and fetched again", descriptor.digest);
        self.leases.store.blobs().remove(&descriptor.digest)?;
        Ok(None)
    }

    /// What an earlier pull left of a blob, hashed.
    fn begin(&self, descriptor: &Descriptor) -> Result<(PartialBlob, Hasher), ImageError> {
        let mut partial = self.leases.store.blobs().begin(&descriptor.digest)?;
        let mut hasher = Hasher::for_digest(&descriptor.digest);
        let length = partial.len();
        let usable = length <= descriptor.size
            && hash(&partial.file(), length, &mut hasher).is_ok()
            && hasher.bytes() == length
            && (length < descriptor.size || hasher.clone().finish() == descriptor.digest);
        if !usable {
            partial.clear()?;
            return Ok((partial, Hasher::for_digest(&descriptor.digest)));
        }
        if length > 0 {
            log::debug!("`{}` goes on after {length} bytes", descriptor.digest);
            self.continued.store(true, Ordering::Relaxed);
        }
        Ok((partial, hasher))
    }

    fn is_wanted(&self, layer: usize) -> bool {
        let only = self.only.load(Ordering::Relaxed);
        only == GO_ON || only == layer
    }
}

/// The work on one blob, which another image's pull may be doing.
struct Blob<'a, 'f, S: ?Sized> {
    fetch: &'a Fetch<'f, S>,
    layer: usize,
}

impl<S: Source + ?Sized> Work for Blob<'_, '_, S> {
    type Product = File;

    fn product(&self) -> Result<Option<File>, ImageError> {
        self.fetch.cached(&self.fetch.layers[self.layer])
    }

    fn is_wanted(&self) -> bool {
        self.fetch.is_wanted(self.layer)
    }

    fn waiting(&self, other: &Other) {
        self.fetch.observer.fetched(self.layer, other.fetched);
    }

    fn abandoned(&self, other: &Other) {
        log::debug!("{other} stopped fetching `{}`", self.fetch.layers[self.layer].digest);
    }
}

/// Stores what comes of one layer, and tells those who wait for it.
struct Sink<'a, 'f, S: ?Sized> {
    fetch: &'a Fetch<'f, S>,
    layer: usize,
    partial: &'a mut PartialBlob,
    held: &'a Held,
    failure: Option<StoreError>,
}

impl<S: Source + ?Sized> Write for Sink<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.fetch.is_wanted(self.layer) {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
        }
        if let Err(error) = self.partial.append(bytes) {
            self.failure = Some(error);
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        let stored = self.partial.len();
        self.held.add(bytes.len() as u64);
        self.fetch.leases.image.add(bytes.len() as u64);
        self.fetch.flows[self.layer].advance(stored);
        self.fetch.observer.fetched(self.layer, stored);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the bytes that came are not the blob's.
pub(crate) fn is_altered(error: &ImageError) -> bool {
    matches!(error, ImageError::Registry(RegistryError::Digest { .. } | RegistryError::Size { .. }))
}

/// Hashes at most the first `limit` bytes.
fn hash(file: &File, limit: u64, hasher: &mut Hasher) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while hasher.bytes() < limit {
        let left = usize::try_from(limit - hasher.bytes()).unwrap_or(BUFFER).min(BUFFER);
        match file.read_at(&mut buffer[..left], hasher.bytes())? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(())
}
