//! What people see of a pull: bars on a terminal, plain lines in a job log, nothing when quiet.

use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use sarus_image::{Image, LayerSize, Observer, Origin, Other, Pulled};
use sarus_oci::Reference;

use crate::output::{short_id, size};
use crate::to_stderr;

/// Longest time between two plain lines.
const PACE_SLOW: Duration = Duration::from_secs(10);
/// Shortest time between two plain lines, however fast the download is.
const PACE_FAST: Duration = Duration::from_secs(2);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Not at all.
    Quiet,
    /// A line now and then.
    Plain,
    /// Bars that are drawn over.
    Bars,
}

impl Style {
    /// Bars where standard error is a terminal that can move its cursor.
    pub(crate) fn of_stderr() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if std::io::stderr().is_terminal() && !dumb { Self::Bars } else { Self::Plain }
    }
}

/// The progress of one pull.
pub(crate) struct Progress {
    style: Style,
    name: Mutex<String>,
    started: Instant,
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    layers: Vec<LayerState>,
    total: u64,
    /// Layers converted to their beginning, and bytes of tar taken in those before and in this.
    converting: usize,
    converted_before: u64,
    converted: u64,
    total_bar: Option<ProgressBar>,
    conversion_bar: Option<ProgressBar>,
    last_line: Option<(Instant, u64)>,
    waiting: Option<Waiting>,
}

/// Another process that pulls the image.
struct Waiting {
    other: Other,
    bar: Option<ProgressBar>,
}

struct LayerState {
    name: String,
    size: u64,
    fetched: u64,
    bar: Option<ProgressBar>,
}

impl State {
    fn fetched(&self) -> u64 {
        self.layers.iter().map(|layer| layer.fetched).sum()
    }
}

impl Progress {
    pub(crate) fn new(style: Style, name: &str) -> Self {
        let target = match style {
            Style::Bars => ProgressDrawTarget::stderr(),
            Style::Quiet | Style::Plain => ProgressDrawTarget::hidden(),
        };
        Self {
            style,
            name: Mutex::new(name.to_owned()),
            started: Instant::now(),
            bars: MultiProgress::with_draw_target(target),
            state: Mutex::default(),
        }
    }

    fn name(&self) -> String {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A remark between the lines.
    pub(crate) fn say(&self, text: &str) {
        match self.style {
            Style::Quiet => log::info!("{text}"),
            Style::Plain | Style::Bars => self.line(&format!("note: {text}")),
        }
    }

    /// The pull is done.
    pub(crate) fn finish(&self, pulled: &Pulled) {
        self.done(&pulled.image, pulled.up_to_date);
    }

    /// An image is there; `up_to_date`: it was before.
    pub(crate) fn done(&self, image: &Image, up_to_date: bool) {
        self.clear();
        if self.style == Style::Quiet {
            return;
        }
        let name = self.name();
        if up_to_date {
            let text = match &self.lock().waiting {
                Some(waiting) => format!("pulled by {}", waiting.other),
                None => "up to date".to_owned(),
            };
            to_stderr(&format!("{name}: {text}\n"));
            return;
        }
        let conversion = &image.metadata.conversion;
        let seconds = self.started.elapsed().as_secs_f32();
        let (stored, unpacked) = (size(conversion.bytes), size(conversion.unpacked_bytes));
        to_stderr(&format!("{name}: {stored} ({unpacked} unpacked) in {seconds:.1} s\n"));
    }

    /// The pull failed: the bars go, so that the error stands alone.
    pub(crate) fn abandon(&self) {
        self.clear();
    }

    fn clear(&self) {
        let mut state = self.lock();
        for layer in &mut state.layers {
            layer.bar = None;
        }
        state.total_bar = None;
        state.conversion_bar = None;
        if let Some(waiting) = &mut state.waiting {
            waiting.bar = None;
        }
        drop(state);
        if let Err(error) = self.bars.clear() {
            log::debug!("the bars stay: {error}");
        }
    }

    fn line(&self, text: &str) {
        self.bars.suspend(|| to_stderr(&format!("{text}\n")));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A plain line when it is time for one: every ten percent, but not too often, and every ten
    /// seconds.
    fn plain(&self, state: &mut State) {
        let fetched = state.fetched();
        let Some((time, shown)) = state.last_line else { return };
        let waited = time.elapsed();
        let is_tenth = fetched.saturating_sub(shown) >= (state.total / 10).max(1);
        if waited < PACE_FAST || (waited < PACE_SLOW && !is_tenth) {
            return;
        }
        state.last_line = Some((Instant::now(), fetched));
        let seconds = self.started.elapsed().as_secs().max(1);
        let mut text = format!(
            "{}: {} of {}, {}/s",
            self.name(),
            size(fetched),
            size(state.total),
            size(fetched / seconds)
        );
        if let Some(left) = time_left(fetched, state.total, seconds) {
            text.push_str(&format!(", {left} s left"));
        }
        let merged = state.converted_before + state.converted;
        if merged > 0 {
            text.push_str(&format!(
                "; converting layer {} of {}, {} done",
                state.converting + 1,
                state.layers.len(),
                size(merged)
            ));
        }
        to_stderr(&format!("{text}\n"));
    }

    /// Whom a pull waits for, and how far that one is: at once, then as [`Progress::plain`] does.
    fn plain_waiting(&self, state: &mut State, other: &Other, is_new: bool) {
        if !is_new {
            let Some((time, shown)) = state.last_line else { return };
            let is_tenth = other.fetched.saturating_sub(shown) >= (other.total / 10).max(1);
            let waited = time.elapsed();
            if waited < PACE_FAST || (waited < PACE_SLOW && !is_tenth) {
                return;
            }
        }
        state.last_line = Some((Instant::now(), other.fetched));
        to_stderr(&format!("{}: waiting for {}\n", self.name(), waited_for(other)));
    }

    fn bar(&self, length: u64, template: &str) -> ProgressBar {
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_fixed| ProgressStyle::default_bar())
            .progress_chars("=> ");
        ProgressBar::new(length).with_style(style)
    }
}

/// `process 4711 on node17, which pulls it: 23MB of 470MB`
fn waited_for(other: &Other) -> String {
    let progress = match other.total {
        0 => String::new(),
        total => format!(": {} of {}", size(other.fetched), size(total)),
    };
    format!("{other}, which pulls it{progress}")
}

/// Whole seconds until the rest is there, at the pace so far.
fn time_left(fetched: u64, total: u64, seconds: u64) -> Option<u64> {
    let left = total.checked_sub(fetched)?;
    (fetched > 0 && left > 0).then(|| left.saturating_mul(seconds).div_ceil(fetched))
}

impl Observer for Progress {
    fn found(&self, name: &Reference) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name.to_string();
    }

    fn begin(&self, layers: &[LayerSize]) {
        let mut state = self.lock();
        let total = layers.iter().map(|layer| layer.size).sum();
        *state = State {
            layers: layers
                .iter()
                .map(|layer| LayerState {
                    name: short_id(layer.digest.hex()).to_owned(),
                    size: layer.size,
                    fetched: 0,
                    bar: None,
                })
                .collect(),
            total,
            last_line: Some((Instant::now(), 0)),
            ..State::default()
        };
        let count = layers.len();
        let plural = if count == 1 { "" } else { "s" };
        if self.style != Style::Quiet {
            self.line(&format!("{}: {count} layer{plural}, {}", self.name(), size(total)));
        }
        if self.style == Style::Bars {
            let template =
                "{prefix:12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
            let bar = self.bar(total, template).with_prefix("all layers");
            state.total_bar = Some(self.bars.add(bar));
            let bar = self.bar(count as u64, "{prefix:12} {msg}").with_prefix("converting");
            state.conversion_bar = Some(self.bars.add(bar));
        }
    }

    fn fetched(&self, layer: usize, bytes: u64) {
        let mut state = self.lock();
        let Some(found) = state.layers.get_mut(layer) else { return };
        found.fetched = bytes;
        match self.style {
            Style::Quiet => {}
            Style::Plain => self.plain(&mut state),
            Style::Bars => {
                let bar = found.bar.get_or_insert_with(|| {
                    let template = "{prefix:12} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}";
                    let bar = self.bar(found.size, template).with_prefix(found.name.clone());
                    self.bars.insert(0, bar)
                });
                bar.set_position(bytes);
                if let Some(bar) = &state.total_bar {
                    bar.set_position(state.fetched());
                }
            }
        }
    }

    fn layer_done(&self, layer: usize, origin: Origin) {
        let mut state = self.lock();
        let Some(found) = state.layers.get_mut(layer) else { return };
        found.fetched = found.size;
        if let Some(bar) = found.bar.take() {
            bar.finish_and_clear();
        }
        if origin == Origin::Cache {
            log::info!("layer {} comes from the cache", found.name);
        }
        if let Some(bar) = &state.total_bar {
            bar.set_position(state.fetched());
        }
    }

    fn converted(&self, progress: sarus_image::Progress) {
        let mut state = self.lock();
        if progress.layer != state.converting {
            state.converted_before += state.converted;
            state.converting = progress.layer;
        }
        state.converted = progress.bytes;
        match self.style {
            Style::Quiet => {}
            Style::Plain => self.plain(&mut state),
            Style::Bars => {
                let merged = size(state.converted_before + state.converted);
                let (layer, layers) = (state.converting + 1, state.layers.len());
                if let Some(bar) = &state.conversion_bar {
                    bar.set_message(format!("layer {layer} of {layers}, {merged}"));
                }
            }
        }
    }

    fn waiting(&self, other: &Other) {
        let mut state = self.lock();
        let is_new = state.waiting.as_ref().is_none_or(|waiting| {
            (&waiting.other.host, waiting.other.pid) != (&other.host, other.pid)
        });
        let bar = state.waiting.take().and_then(|waiting| waiting.bar);
        state.waiting = Some(Waiting { other: other.clone(), bar });
        match self.style {
            Style::Quiet if is_new => log::info!("waiting for {}", waited_for(other)),
            Style::Quiet => {}
            Style::Plain => self.plain_waiting(&mut state, other, is_new),
            Style::Bars => {
                let Some(waiting) = &mut state.waiting else { return };
                let bar = waiting.bar.get_or_insert_with(|| {
                    let bar = self.bar(0, "{prefix:12} {msg}").with_prefix("waiting");
                    self.bars.add(bar)
                });
                bar.set_message(format!("for {}", waited_for(other)));
            }
        }
    }

    fn taking_over(&self, other: &Other) {
        let mut state = self.lock();
        if let Some(Waiting { bar: Some(bar), .. }) = state.waiting.take() {
            bar.finish_and_clear();
        }
        drop(state);
        self.say(&format!("{other} died or stands still: going on with its pull"));
    }

    fn storing(&self) {
        if let Some(bar) = &self.lock().conversion_bar {
            bar.set_message("storing");
        }
    }
}
