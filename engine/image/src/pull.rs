//! Pull: from a reference to an image in the store.
//!
//! Layers are downloaded, verified, inflated, merged and compressed at the same time; the image
//! becomes part of the store only when every blob had its digest. A failure leaves the store as
//! it was, and in the blob cache what is worth keeping.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sarus_oci::{ImageConfig, Platform, Reference};
use sarus_policy::{Admission, Policy};
use sarus_registry::Resolved;
use sarus_squash::{ConvertError, Converted};
use sarus_store::{Image, Pending, Reason, Store, StoreError};

use crate::admit::admit;
use crate::documents::Documents;
use crate::error::Reported;
use crate::fetch::{Fetch, Leases, is_altered};
use crate::keeper::{Held, Keeper};
use crate::timing::{self, Stopwatch};
use crate::turn::{self, ATTEMPTS, Turn, Work};
use crate::{ImageError, LayerSize, Observer, Other, Phase, Source, Timing};

/// Downloads at once where nothing else is said: enough to hide latency, as many as Docker's.
pub const PARALLEL_DEFAULT: NonZeroUsize = match NonZeroUsize::new(3) {
    Some(three) => three,
    None => NonZeroUsize::MIN,
};

/// How a pull works.
#[derive(Debug, Clone)]
pub struct PullSettings {
    /// How the squashfs file is written; its time is overridden by the image's when `time` says
    /// nothing.
    pub squash: sarus_squash::Settings,
    /// `SOURCE_DATE_EPOCH`: the file system's time; without it when the image was made, else 0.
    pub time: Option<u32>,
    /// Downloads at once.
    pub parallel: NonZeroUsize,
    /// Bound of the blob cache in bytes.
    pub blob_cache_bytes: u64,
    /// Time for which an image without a name is kept.
    pub removal_grace: Duration,
    /// Which images are let in.
    pub policy: Policy,
}

/// What a pull came to.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// The complete name under which the image was found.
    pub found_as: Reference,
    /// The store had it before; nothing but the name was written.
    pub up_to_date: bool,
    /// Where the time went.
    pub timing: Timing,
    /// Why the policy let it in.
    pub admission: Admission,
}

/// Makes sure that `store` has the image that `reference` means on `platform` now, and that the
/// full name under which it was found is a name of it; a short reference means that name from now on. The signature policy decides first, also about an image that is
/// in the store already: the name is what makes it one to run. Its decision is kept with the name.
///
/// # Errors
///
/// [`ImageError`]; the store is as it was.
pub fn pull<S: Source + ?Sized>(
    source: &S,
    store: &Store,
    (reference, platform): (&Reference, &Platform),
    settings: &PullSettings,
    observer: &dyn Observer,
) -> Result<Pulled, ImageError> {
    if store.is_read_only() {
        return Err(StoreError::ReadOnly { root: store.root().to_owned() }.into());
    }
    let watch = Stopwatch::start();
    let begun = Instant::now();
    let resolved = source.resolve(reference, platform)?;
    let mut phases = vec![watch.stop("resolve", None)];
    let admission = admit(source, &resolved, &settings.policy)?;
    let record = Reason::new(&admission);
    let found_as = &resolved.reference;
    observer.found(found_as);
    let tag = |image: &Image| {
        store.tag_admitted((found_as, platform), &image.digest, record.clone())?;
        store.remember_short((reference, platform), found_as)
    };
    let keeper = Keeper::start();
    let job = Job { source, store, resolved: &resolved, settings, observer, keeper };
    let (image, up_to_date) = job.ensure(&mut phases)?;
    let done = |image, up_to_date, phases| {
        let timing = Timing { total: begun.elapsed(), phases };
        Pulled { image, found_as: found_as.clone(), up_to_date, timing, admission }
    };
    match tag(&image) {
        Ok(()) => Ok(done(image, up_to_date, phases)),
        // A removal on another node took it away between two steps: it was not up to date then.
        Err(StoreError::Vanished { .. }) if up_to_date => {
            let (image, _) = job.ensure(&mut phases)?;
            tag(&image)?;
            Ok(done(image, false, phases))
        }
        Err(error) => Err(error.into()),
    }
}

struct Job<'a, S: ?Sized> {
    source: &'a S,
    store: &'a Store,
    resolved: &'a Resolved,
    settings: &'a PullSettings,
    observer: &'a dyn Observer,
    keeper: Keeper,
}

impl<S: ?Sized> Work for Job<'_, S> {
    type Product = Image;

    fn product(&self) -> Result<Option<Image>, ImageError> {
        match self.store.image(&self.resolved.digest) {
            Err(error) if error.is_damage() => {
                log::debug!("converted anew: {error}");
                Ok(None)
            }
            other => Ok(other?),
        }
    }

    fn is_wanted(&self) -> bool {
        true
    }

    fn waiting(&self, other: &Other) {
        self.observer.waiting(other);
    }

    fn abandoned(&self, other: &Other) {
        self.observer.taking_over(other);
    }
}

impl<S: Source + ?Sized> Job<'_, S> {
    /// The image, and whether it was there, or another process has pulled it meanwhile.
    fn ensure(&self, phases: &mut Vec<Phase>) -> Result<(Image, bool), ImageError> {
        let digest = &self.resolved.digest;
        let held = match turn::take(self.store, digest, self)? {
            Turn::Done(image) => return Ok((image, true)),
            Turn::Ours(lease, report) => self.keeper.keep(lease, report),
            Turn::Alone | Turn::Unwanted => Held::nothing(),
            Turn::Failed(other, text) => {
                let image = self.resolved.reference.to_string();
                return Err(ImageError::Elsewhere { image, other, source: Reported(text) });
            }
        };
        match self.convert(&held, phases) {
            Ok(image) => Ok((image, false)),
            Err(error) => {
                let attempt = error.is_everywhere().then_some(ATTEMPTS);
                held.fail(error.in_one_line(), attempt);
                Err(error)
            }
        }
    }

    fn convert(&self, held: &Held, phases: &mut Vec<Phase>) -> Result<Image, ImageError> {
        if let Err(error) = self.store.sweep(self.settings.removal_grace) {
            log::debug!("what killed processes left stays for now: {error}");
        }
        let converted = match self.convert_once(held, phases) {
            Err(Attempt { error, again: true }) => {
                log::debug!("trying once more, from the start: {error}");
                self.convert_once(held, phases)
            }
            other => other,
        };
        if let Err(error) = self.store.blobs().trim(self.settings.blob_cache_bytes) {
            log::debug!("the blob cache is not trimmed: {error}");
        }
        converted.map_err(|attempt| attempt.error)
    }

    fn convert_once(&self, held: &Held, phases: &mut Vec<Phase>) -> Result<Image, Attempt> {
        let config = ImageConfig::parse(&self.resolved.config_bytes).map_err(|source| {
            ImageError::Config { image: self.resolved.reference.to_string(), source }
        })?;
        let layers = &self.resolved.manifest.layers;
        let sizes: Vec<LayerSize> = layers
            .iter()
            .map(|layer| LayerSize { digest: layer.digest.clone(), size: layer.size })
            .collect();
        self.observer.begin(&sizes);
        held.set(0, sizes.iter().map(|layer| layer.size).sum());
        let pending = self.store.begin(&self.resolved.digest).map_err(ImageError::from)?;
        let mut squash = self.settings.squash;
        squash.time = self.settings.time.unwrap_or_else(|| made_at(&config));
        let (converted, download) = self.stream(&pending, &squash, held)?;
        phases.push(download);
        phases.extend(timing::of_conversion(&converted, squash.threads.get()));
        self.observer.storing();
        let watch = Stopwatch::start();
        let platform = &self.resolved.platform;
        let metadata = self.documents(config).metadata(converted, &squash, platform);
        let image = pending.commit(&metadata).map_err(ImageError::from)?;
        phases.push(watch.stop("store", None));
        Ok(image)
    }

    /// Downloads and converts at the same time.
    fn stream(
        &self,
        pending: &Pending<'_>,
        squash: &sarus_squash::Settings,
        held: &Held,
    ) -> Result<(Converted, Phase), Attempt> {
        let layers = &self.resolved.manifest.layers;
        let reference = &self.resolved.reference;
        let leases = Leases { store: self.store, keeper: &self.keeper, image: held };
        let fetch = Fetch::new((self.source, reference), leases, layers, self.observer);
        let output =
            pending.file().try_clone().map_err(|source| ImageError::Duplicate { source })?;
        let current = AtomicUsize::new(0);
        let (begun, mut cpu) = (Instant::now(), Duration::ZERO);
        let threads = self.settings.parallel.get().min(layers.len());
        let converted = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| fetch.work())).collect();
            let readers = layers.iter().enumerate().map(|(number, layer)| {
                current.store(number, Ordering::Relaxed);
                if let Some(done) = number.checked_sub(1) {
                    fetch.release(done, self.settings.blob_cache_bytes);
                }
                let name = layer.digest.to_string();
                let reader = Box::new(fetch.reader(number));
                Ok::<_, io::Error>(sarus_squash::Layer { name, reader })
            });
            let progress = |progress: sarus_squash::Progress| {
                pending.advance(progress.total);
                self.observer.converted(progress);
            };
            let converted = sarus_squash::convert(readers, output, squash, &progress);
            match &converted {
                Ok(_) => {}
                Err(error) => match failed_layer(error) {
                    Some(name) => {
                        let place = layers.iter().position(|l| l.digest.to_string() == *name);
                        let read = current.load(Ordering::Relaxed);
                        fetch.finish_only(place.unwrap_or(read));
                    }
                    None => fetch.stop(),
                },
            }
            // Also for layers that the conversion read to their end: their digests count.
            for worker in workers {
                cpu += worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            }
            converted
        });
        if let Some(error) = fetch.take_failure() {
            let again = is_altered(&error) && fetch.used_old_beginning();
            return Err(Attempt { error, again });
        }
        let image = reference.to_string();
        let bytes = Some(layers.iter().map(|layer| layer.size).sum());
        let wall = Some(begun.elapsed());
        let download = Phase { name: "download", threads, wall, cpu, bytes };
        Ok((converted.map_err(|source| ImageError::Convert { image, source })?, download))
    }

    fn documents(&self, config: ImageConfig) -> Documents {
        let manifest = &self.resolved.manifest;
        let layers = manifest.layers.iter().map(|layer| sarus_store::Layer {
            digest: layer.digest.clone(),
            size: layer.size,
            media_type: layer.media_type.clone(),
        });
        Documents {
            digest: self.resolved.digest.clone(),
            config_digest: manifest.config.digest.clone(),
            config,
            layers: layers.collect(),
        }
    }
}

/// Why a conversion failed, and whether a second try may do better.
struct Attempt {
    error: ImageError,
    again: bool,
}

impl From<ImageError> for Attempt {
    fn from(error: ImageError) -> Self {
        Self { error, again: false }
    }
}

/// The layer whose content stopped the conversion, if it was one.
pub(crate) fn failed_layer(error: &ConvertError) -> Option<&String> {
    match error {
        ConvertError::Read { layer, .. }
        | ConvertError::Compression { layer, .. }
        | ConvertError::NoArchive { layer, .. }
        | ConvertError::Archive { layer, .. }
        | ConvertError::Entry { layer, .. } => Some(layer),
        _ => None,
    }
}

/// Seconds since 1970 when the image was made; 0 when it does not say, or before.
pub(crate) fn made_at(config: &ImageConfig) -> u32 {
    let created = config.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    created.and_then(|time| u32::try_from(time.as_second()).ok()).unwrap_or(0)
}
