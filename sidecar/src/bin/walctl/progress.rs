//! Progress on standard error: only on a terminal, and only when something takes longer than two seconds.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is over by then needs no bar.
const QUIET: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Progress {
    started: Instant,
    unit: &'static str,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    terminal: bool,
}

impl Progress {
    /// Counts `unit`s, up to `total` where it is known.
    pub(crate) fn new(unit: &'static str, total: Option<u64>) -> Self {
        Self { started: Instant::now(), unit, total, bar: None, terminal: std::io::stderr().is_terminal() }
    }

    /// Whether somebody sees it.
    pub(crate) const fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// How many are done now, of how many.
    pub(crate) fn of(&mut self, done: u64, total: u64) {
        self.total = Some(total);
        self.at(done);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }

    /// How many are done now.
    pub(crate) fn at(&mut self, done: u64) {
        if !self.terminal || (self.bar.is_none() && self.started.elapsed() < QUIET) {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::with_draw_target(self.total, ProgressDrawTarget::stderr_with_hz(5));
            let style = match self.total {
                Some(_) => ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}, {per_sec}, {eta} left"),
                None => ProgressStyle::with_template("{spinner} {pos} {msg}, {per_sec}"),
            };
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.with_message(self.unit).with_elapsed(self.started.elapsed())
        });
        bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
