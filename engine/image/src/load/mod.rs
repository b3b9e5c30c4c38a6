//! Load: from a file, a directory or a stream to images in the store.
//!
//! What it is is told by its content. Documents and layers are verified against every digest that
//! there is; nothing is unpacked, and no name of an archive's member ever becomes a path. What
//! has no manifest gets one made from its content, so that the same content is the same image.

mod ahead;
mod archived;
mod checked;
mod convert;
mod docker;
mod error;
mod files;
mod format;
mod input;
mod layout;
mod location;
mod made;
pub(crate) mod names;
pub(crate) mod settings;
pub(crate) mod sif;
mod spool;
mod storage;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sarus_oci::{Platform, Reference};
use sarus_policy::{Admission, Evidence, Policy, Subject, Transport};
use sarus_squash::{ToTarError, write_tar};
use sarus_store::{Image, Reason, Store, StoreError};

pub use error::LoadError;
pub use format::Format;
pub use location::{Location, Place};
pub use sif::SifError;

use crate::{ImageError, Observer, PullSettings, Timing};
use convert::{Job, Stored};
use input::{Opened, Opening};

/// Bytes that a squashfs image is passed on in.
const PIPE_BUFFER: usize = 256 << 10;
/// Bytes that wait between reading it and converting it: what the kernel gives every user.
const PIPE_SIZE: usize = 1 << 20;

/// What is to be loaded.
#[derive(Debug, Clone)]
pub struct LoadRequest {
    /// Where it is.
    pub location: Location,
    /// What its one image is to be called; none: as the archive says, else after the file.
    pub name: Option<Reference>,
    /// What it is, where its content shall not decide.
    pub format: Option<Format>,
    /// The platform that images must be for.
    pub platform: Platform,
    /// Directory of this node for what must be kept until it is whole.
    pub spool: PathBuf,
}

/// An image that was loaded.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// Its names, at least one.
    pub names: Vec<Reference>,
    /// The store had it before.
    pub up_to_date: bool,
    /// Where the time went; `total` begins where the image before it ended.
    pub timing: Timing,
}

/// Makes sure that `store` has the images of an archive under their names. `input` is standard
/// input, which is read only where the request names it.
///
/// # Errors
///
/// [`ImageError`]; the store is as it was, but for the images of an archive that came before the
/// one that failed.
pub fn load(
    request: &LoadRequest,
    input: Option<File>,
    store: &Store,
    settings: &PullSettings,
    observer: &dyn Observer,
) -> Result<Vec<Loaded>, ImageError> {
    if store.is_read_only() {
        return Err(StoreError::ReadOnly { root: store.root().to_owned() }.into());
    }
    let begun = Instant::now();
    let location = &request.location;
    let name = name(request)?;
    let from = location.label();
    let opening = Opening {
        location,
        format: request.format.or(location.format),
        platform: &request.platform,
        spool: &request.spool,
        from: from.clone(),
    };
    let job = Job { store, settings, platform: &request.platform, observer };
    let opened = opening.open(input)?;
    let format = match &opened {
        Opened::Images(format, _) | Opened::Squashfs { format, .. } => *format,
        Opened::Root(_) => Format::RootTar,
    };
    let admission = admit(request, format, &settings.policy)?;
    let admission = Reason::new(&admission);
    let loading = Loading { job, from: &from, admission, since: Cell::new(begun) };
    match opened {
        Opened::Images(_, archived) => {
            let called: Vec<&[String]> =
                archived.iter().map(|image| image.names.as_slice()).collect();
            let names = names::names(location, name.as_ref(), &called)?;
            let images = archived.iter().zip(names);
            images
                .map(|(image, names)| loading.finish(names, &|| job.image(&from, image)))
                .collect()
        }
        // These are read once: no second attempt is possible, nor needed.
        Opened::Root(stream) => {
            let names = names::names(location, name.as_ref(), &[&[]])?.swap_remove(0);
            let platform = &request.platform;
            let stored =
                job.root(&from, (stream, &serde_json::json!({})), platform, &mut || Ok(()))?;
            Ok(vec![loading.tag(names, stored)?])
        }
        Opened::Squashfs { file, offset, platform, .. } => {
            let names = names::names(location, name.as_ref(), &[&[]])?.swap_remove(0);
            let platform = loading.platform(platform)?;
            let squashfs = || loading.squashfs(&file, offset, &platform);
            Ok(vec![loading.finish(names, &squashfs)?])
        }
    }
}

/// Asks the signature policy, before anything of the image is converted. What is in a file has no
/// signatures, so a rule that wants one refuses it.
fn admit(request: &LoadRequest, format: Format, policy: &Policy) -> Result<Admission, ImageError> {
    let storage;
    let path;
    let subject = match &request.location.place {
        Place::Storage(name) => {
            storage = Reference::parse(name)?;
            Subject::ContainersStorage { storage: None, reference: &storage }
        }
        Place::Input => Subject::File(transport(format), None),
        Place::Path(given) => {
            path = resolve(given)?;
            Subject::File(transport(format), path.as_deref())
        }
    };
    Ok(policy.rule(&subject).admit(&subject, &Evidence::default())?)
}

/// The path that policies know a file by. A pipe without a name (`/dev/fd/63`) has none, as standard
/// input.
fn resolve(given: &Path) -> Result<Option<PathBuf>, LoadError> {
    match std::fs::canonicalize(given) {
        Ok(path) => Ok(Some(path)),
        Err(_) if given.metadata().is_ok_and(|found| found.file_type().is_fifo()) => Ok(None),
        Err(source) => Err(LoadError::Open { path: given.to_owned(), source }),
    }
}

/// A format as policies have it.
fn transport(format: Format) -> Transport {
    match format {
        Format::DockerArchive => Transport::DockerArchive,
        Format::OciArchive => Transport::OciArchive,
        Format::OciDirectory => Transport::Oci,
        Format::RootTar => Transport::Tarball,
        Format::Squashfs => Transport::Squashfs,
        Format::Sif => Transport::Sif,
    }
}

/// The name that was given, or that of the storage's image.
fn name(request: &LoadRequest) -> Result<Option<Reference>, ImageError> {
    let name = match (&request.name, &request.location.place) {
        // An id is what the storage calls the image, and no name for it.
        (None, Place::Storage(name)) if crate::Stores::is_id(name) => {
            return Err(LoadError::NoName { from: request.location.label() }.into());
        }
        (None, Place::Storage(name)) => Some(Reference::parse(name)?),
        (name, _) => name.clone(),
    };
    match name {
        Some(name) if name.digest().is_some() => {
            Err(LoadError::NameWithDigest { name: name.to_string() }.into())
        }
        name => Ok(name),
    }
}

struct Loading<'a> {
    job: Job<'a>,
    from: &'a str,
    /// Why the policy lets it in, for the names' records.
    admission: Option<Reason>,
    /// When the image that is loaded now was begun.
    since: Cell<Instant>,
}

impl Loading<'_> {
    /// Stores an image and names it.
    fn finish(
        &self,
        names: Vec<Reference>,
        store: &dyn Fn() -> Result<Stored, ImageError>,
    ) -> Result<Loaded, ImageError> {
        match self.tag(names.clone(), store()?) {
            // A removal on another node took it away between two steps: it was not up to date.
            Err(ImageError::Store(StoreError::Vanished { .. })) => self.tag(names, store()?),
            other => other,
        }
    }

    fn tag(&self, names: Vec<Reference>, stored: Stored) -> Result<Loaded, ImageError> {
        let Stored { image, was_there, phases } = stored;
        for name in &names {
            let named = (name, self.job.platform);
            self.job.store.tag_admitted(named, &image.digest, self.admission.clone())?;
        }
        let total = self.since.replace(Instant::now()).elapsed();
        Ok(Loaded { image, names, up_to_date: was_there, timing: Timing { total, phases } })
    }

    /// The platform of a SIF file; where it says none, the one asked for.
    fn platform(&self, found: Option<Platform>) -> Result<Platform, LoadError> {
        let wanted = self.job.platform;
        match found {
            Some(found) if !wanted.accepts(&found) => {
                let (wanted, available) = (wanted.clone(), vec![found]);
                Err(LoadError::Document {
                    from: self.from.to_owned(),
                    member: "the SIF header".to_owned(),
                    source: sarus_oci::DocumentError::NoPlatform { wanted, available },
                })
            }
            found => Ok(found.unwrap_or_else(|| wanted.clone())),
        }
    }

    /// Converts a squashfs image that another program wrote: what the store has is written by us
    /// alone, so that the kernel can be let read it.
    fn squashfs(
        &self,
        file: &Arc<File>,
        offset: u64,
        platform: &Platform,
    ) -> Result<Stored, ImageError> {
        let failed = |source: io::Error| LoadError::Read { from: self.from.to_owned(), source };
        let settings = settings::read(file, offset).map_err(|source| {
            let source = ToTarError::Image(source);
            LoadError::Squashfs { from: self.from.to_owned(), source }
        })?;
        let (reader, writer) = io::pipe().map_err(failed)?;
        if let Err(error) = rustix::pipe::fcntl_setpipe_size(&writer, PIPE_SIZE) {
            log::debug!("the pipe stays small: {error}");
        }
        std::thread::scope(|scope| {
            let reading = scope.spawn(move || {
                let mut output = BufWriter::with_capacity(PIPE_BUFFER, writer);
                write_tar(file, offset, &mut output)?;
                io::Write::flush(&mut output).map_err(ToTarError::from)
            });
            let mut reading = Some(reading);
            let mut complete = || match reading.take().map(std::thread::ScopedJoinHandle::join) {
                None | Some(Ok(Ok(()))) => Ok(()),
                // The conversion stopped to read, and says why.
                Some(Ok(Err(ToTarError::Write(error)))) => {
                    log::debug!("the image is not read any more: {error}");
                    Ok(())
                }
                Some(Ok(Err(source))) => {
                    Err(LoadError::Squashfs { from: self.from.to_owned(), source })
                }
                Some(Err(panic)) => std::panic::resume_unwind(panic),
            };
            let execution = execution(&settings);
            let stream: Box<dyn Read + Send> = Box::new(reader);
            self.job.root(self.from, (stream, &execution), platform, &mut complete)
        })
    }
}

/// Settings as an image's configuration has them.
fn execution(settings: &sarus_oci::Execution) -> serde_json::Value {
    let mut fields = serde_json::Map::new();
    if !settings.env.is_empty() {
        fields.insert("Env".to_owned(), settings.env.as_slice().into());
    }
    if let Some(command) = &settings.cmd {
        fields.insert("Cmd".to_owned(), command.as_slice().into());
    }
    fields.into()
}
