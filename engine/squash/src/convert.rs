//! Layers to one squashfs file, as a pipeline.
//!
//! The calling thread pulls layers and inflates them into chunks; a second one parses and merges;
//! the [`Writer`] compresses on threads of its own. Chunks are recycled and their number is fixed,
//! so whoever is slowest sets the pace, and memory does not grow with the layers.

mod chunks;
mod error;

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

pub use error::ConvertError;

use crate::decompress::{self, Allowance, Format};
use crate::merge::{ContentSink, MergeError, Merger};
use crate::settings::Settings;
use crate::tar::{Archive, TarError};
use crate::timing::{Times, thread_time};
use crate::tree::{ContentId, Tree};
use crate::writer::{WriteError, Writer};
use chunks::{Chunks, Message, Stream};

/// One layer of an image: a tar archive, plain or compressed with gzip or zstd.
pub struct Layer<'a> {
    /// What messages call it: its digest.
    pub name: String,
    /// The blob's bytes; read to the end, so that what counts or verifies them sees all.
    pub reader: Box<dyn Read + Send + 'a>,
}

impl fmt::Debug for Layer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How far a layer is merged; reported for every chunk of some 256 KiB and at the layer's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The layer, counted from 0.
    pub layer: usize,
    /// Entries of it merged.
    pub entries: u64,
    /// Bytes of its tar stream taken.
    pub bytes: u64,
    /// Those of all layers so far.
    pub total: u64,
}

/// What a conversion made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Size of the squashfs file.
    pub bytes: u64,
    /// The image's own user and group IDs by index; the file's own table holds zeros.
    pub ids: Vec<u32>,
    /// Entries in all layers, whiteouts included.
    pub entries: u64,
    /// Bytes of file data in all layers, holes included.
    pub unpacked_bytes: u64,
    /// Bytes of all tar streams.
    pub tar_bytes: u64,
    /// Where the time went.
    pub times: Times,
}

/// A tree merged from layers, and where its data went.
#[derive(Debug)]
pub struct Merged<S> {
    /// What the image holds.
    pub tree: Tree,
    /// The sink with the data, that of overwritten files included.
    pub sink: S,
    /// Entries in all layers, whiteouts included.
    pub entries: u64,
    /// Bytes of file data in all layers, holes included.
    pub unpacked_bytes: u64,
    /// Bytes of all tar streams.
    pub tar_bytes: u64,
    /// Where the time went; what the sink does on other threads is not in it.
    pub times: Times,
}

/// Merges layers, oldest first, into a squashfs file. The same layers and settings give the same
/// bytes, whatever the number of threads.
///
/// Blocks until all is written. `layers` is asked for the next one while the previous is still
/// being merged.
///
/// # Errors
///
/// [`ConvertError`]; what an iterator item says is passed through. `output` is then incomplete.
pub fn convert<'a, E>(
    layers: impl Iterator<Item = Result<Layer<'a>, E>>,
    output: File,
    settings: &Settings,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Converted, ConvertError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let writer = Writer::new(output, settings)?;
    let merged = merge_layers(layers, writer, settings.time, progress)?;
    let before = thread_time();
    let written = merged.sink.finish(&merged.tree)?;
    let finishing = thread_time() - before;
    Ok(Converted {
        bytes: written.bytes,
        ids: written.ids,
        entries: merged.entries,
        unpacked_bytes: merged.unpacked_bytes,
        tar_bytes: merged.tar_bytes,
        times: Times { compressing: written.compressing, finishing, ..merged.times },
    })
}

/// The first half of [`convert`], for any sink: [`Merger`] over all layers, with inflation on the
/// calling thread. `time` is that of directories which no entry describes.
///
/// # Errors
///
/// As [`convert`].
pub fn merge_layers<'a, S, E>(
    layers: impl Iterator<Item = Result<Layer<'a>, E>>,
    sink: S,
    time: u32,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Merged<S>, ConvertError>
where
    S: ContentSink + Send,
    ConvertError: From<S::Error>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let (chunks, messages, empties) = chunks::channel();
    let entry = AtomicU64::new(0);
    let current = &entry;
    thread::scope(|scope| {
        let merging = scope.spawn(move || {
            let merger = Merger::new(sink, time);
            merge_all(merger, Stream::new(messages, empties, progress), current)
        });
        let before = thread_time();
        let sent = inflate_all(layers, &chunks);
        let inflating = thread_time() - before;
        drop(chunks);
        let mut merged = merging.join().unwrap_or_else(|panic| resume_unwind(panic));
        if let Ok(merged) = &mut merged {
            merged.times.inflating = inflating;
        }
        match (sent, merged) {
            // The merging thread has seen all that came before this error, and found it good.
            (Err(error), Err(ConvertError::Abandoned)) => {
                Err(error.at_entry(current.load(Ordering::Relaxed)))
            }
            (_, merged) => merged,
        }
    })
}

/// Sends all layers, until there are no more or the merging thread has gone.
fn inflate_all<'a, E>(
    layers: impl Iterator<Item = Result<Layer<'a>, E>>,
    chunks: &Chunks,
) -> Result<(), ConvertError>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    for layer in layers {
        let Layer { name, reader } = layer.map_err(|error| ConvertError::Layers(error.into()))?;
        let (format, mut stream) = decompress::open(reader, Allowance::LAYER)
            .map_err(|source| ConvertError::Read { layer: name.clone(), source })?;
        if !chunks.send(Message::Layer { name: name.clone(), format }) {
            return Ok(());
        }
        let sent = chunks.send_all(&mut stream);
        if let Some(limit) = stream.exceeded() {
            // The merging thread knows the entry.
            return Err(ConvertError::Inflated { layer: name, entry: 0, limit });
        }
        let all = sent.map_err(|source| ConvertError::Read { layer: name, source })?;
        if !all || !chunks.send(Message::EndOfLayer) {
            return Ok(());
        }
    }
    chunks.send(Message::EndOfLayers);
    Ok(())
}

fn merge_all<S>(
    mut merger: Merger<S>,
    mut stream: Stream<'_>,
    current: &AtomicU64,
) -> Result<Merged<S>, ConvertError>
where
    S: ContentSink,
    ConvertError: From<S::Error>,
{
    let (mut total, mut tar_bytes) = (0, 0);
    while let Some((name, format)) = stream.next_layer()? {
        merger.begin_layer();
        let count = Cell::new(0);
        if let Err(fault) = merge_layer(&mut merger, &mut stream, &count) {
            if stream.is_abandoned() {
                current.store(count.get(), Ordering::Relaxed);
                return Err(ConvertError::Abandoned);
            }
            return Err(fault.named(name, format, count.get()));
        }
        total += count.get();
        tar_bytes += stream.tar_bytes();
    }
    let unpacked_bytes = merger.unpacked_bytes();
    let (tree, sink) = merger.finish();
    let times = Times { merging: thread_time(), ..Times::default() };
    Ok(Merged { tree, sink, entries: total, unpacked_bytes, tar_bytes, times })
}

/// What went wrong within a layer.
enum Fault<S> {
    Archive { offset: u64, source: TarError },
    Entry { path: Vec<u8>, offset: u64, source: MergeError<S> },
}

impl<S> Fault<S>
where
    ConvertError: From<S>,
{
    fn named(self, layer: String, format: Format, entries: u64) -> ConvertError {
        match (self, format) {
            (Self::Entry { source: MergeError::Sink(source), .. }, _) => source.into(),
            (Self::Entry { source: MergeError::Entry(source), path, .. }, _) => {
                let path = crate::tar::shown(&path);
                ConvertError::Entry { layer, entry: entries, path, source }
            }
            (Self::Archive { source, .. }, format) if entries == 0 && source.is_foreign() => {
                match format {
                    Format::Foreign(compression) => {
                        ConvertError::Compression { layer, compression }
                    }
                    _ => ConvertError::NoArchive { layer, source },
                }
            }
            (Self::Archive { offset, source }, _) => {
                ConvertError::Archive { layer, entry: entries + 1, offset, source }
            }
            (Self::Entry { source: MergeError::Tar(source), offset, .. }, _) => {
                ConvertError::Archive { layer, entry: entries, offset, source }
            }
        }
    }
}

fn merge_layer<S: ContentSink>(
    merger: &mut Merger<S>,
    stream: &mut Stream<'_>,
    count: &Cell<u64>,
) -> Result<(), Fault<S::Error>> {
    let mut archive = Archive::new(&mut *stream);
    loop {
        let next = archive.next_entry();
        let offset = archive.offset();
        let Some(entry) = next.map_err(|source| Fault::Archive { offset, source })? else { break };
        count.set(count.get() + 1);
        archive.stream().merged = count.get();
        merger.apply(&entry, &mut archive).map_err(|source| {
            let offset = archive.offset();
            Fault::Entry { path: entry.path, offset, source }
        })?;
    }
    let drained = archive.drain();
    let offset = archive.offset();
    drained.map_err(|source| Fault::Archive { offset, source })?;
    stream.report();
    Ok(())
}

impl ContentSink for Writer {
    type Error = WriteError;

    fn start_file(&mut self) -> Result<(), WriteError> {
        Self::start_file(self)
    }

    fn append(&mut self, data: &[u8]) -> Result<(), WriteError> {
        Self::append(self, data)
    }

    fn append_zeros(&mut self, length: u64) -> Result<(), WriteError> {
        Self::append_zeros(self, length)
    }

    fn end_file(&mut self) -> Result<ContentId, WriteError> {
        Self::end_file(self)
    }
}
