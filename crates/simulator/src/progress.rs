//! How far the devices are, on the terminal.
//!
//! Devices only add to counters ([`Meter`]); one task looks at them now and then, so that a
//! thousand devices do not fight for the terminal.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::options::Progress;

/// From so many devices on there is one bar for all.
const ONE_BAR_EACH: usize = 16;
const BAR_EVERY: Duration = Duration::from_millis(100);
const LINE_EVERY: Duration = Duration::from_secs(2);

/// How far one device is.
#[derive(Default)]
pub(crate) struct Meter {
    chunks: AtomicU32,
    stored: AtomicU32,
    blocks: AtomicU64,
    /// 0: on its way, 1: has its image, 2: failed.
    ending: AtomicU32,
}

impl Meter {
    pub(crate) fn started(&self, chunks: u32) {
        self.chunks.store(chunks, Relaxed);
        self.stored.store(0, Relaxed);
    }

    pub(crate) fn stored(&self, chunks: u32) {
        self.stored.store(chunks, Relaxed);
    }

    pub(crate) fn received(&self, blocks: u64) {
        self.blocks.store(blocks, Relaxed);
    }

    pub(crate) fn rebooted(&self) {
        self.stored.store(0, Relaxed);
    }

    pub(crate) fn completed(&self) {
        self.stored.store(self.chunks.load(Relaxed), Relaxed);
    }

    pub(crate) fn ended(&self, ok: bool) {
        self.ending.store(if ok { 1 } else { 2 }, Relaxed);
    }
}

/// All meters at one moment.
struct Totals {
    chunks: u64,
    stored: u64,
    blocks: u64,
    ok: usize,
    failed: usize,
    devices: usize,
}

impl Totals {
    fn of(meters: &[Arc<Meter>]) -> Self {
        let ended = |how| meters.iter().filter(|meter| meter.ending.load(Relaxed) == how).count();
        Self {
            chunks: meters.iter().map(|meter| u64::from(meter.chunks.load(Relaxed))).sum(),
            stored: meters.iter().map(|meter| u64::from(meter.stored.load(Relaxed))).sum(),
            blocks: meters.iter().map(|meter| meter.blocks.load(Relaxed)).sum(),
            ok: ended(1),
            failed: ended(2),
            devices: meters.len(),
        }
    }

    fn line(&self) -> String {
        let Self { chunks, stored, blocks, ok, failed, devices } = self;
        format!(
            "{ok} ok, {failed} failed of {devices} devices; {stored} of {chunks} chunks, {blocks} blocks received"
        )
    }
}

/// Shows the meters until it is cancelled; `names` are the devices' names, in the same order.
pub(crate) async fn show(how: Progress, names: Vec<String>, meters: Vec<Arc<Meter>>) {
    match how {
        Progress::Silent => std::future::pending().await,
        Progress::Lines => lines(&meters).await,
        Progress::Bars => bars(&names, &meters).await,
        Progress::Auto if std::io::stderr().is_terminal() => bars(&names, &meters).await,
        Progress::Auto => lines(&meters).await,
    }
}

async fn lines(meters: &[Arc<Meter>]) {
    let mut ticks = tokio::time::interval(LINE_EVERY);
    ticks.tick().await;
    let mut last = String::new();
    loop {
        ticks.tick().await;
        let line = Totals::of(meters).line();
        if line != last {
            eprintln!("{line}");
            last = line;
        }
    }
}

async fn bars(names: &[String], meters: &[Arc<Meter>]) {
    let board = Board::new(names, meters);
    let mut ticks = tokio::time::interval(BAR_EVERY);
    loop {
        ticks.tick().await;
        board.draw(names, meters);
    }
}

/// The bars; dropping it wipes them, also when the task that draws is cancelled.
struct Board {
    all: MultiProgress,
    each: Vec<ProgressBar>,
    total: ProgressBar,
}

impl Board {
    fn new(names: &[String], meters: &[Arc<Meter>]) -> Self {
        let style = |template: &str| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let all = MultiProgress::new();
        let mut each = Vec::new();
        if meters.len() < ONE_BAR_EACH {
            let width = names.iter().map(String::len).max().unwrap_or(0);
            for _ in meters {
                let bar = all.add(ProgressBar::new(0));
                bar.set_style(style(&format!(
                    "{{prefix:{width}}} {{wide_bar}} {{pos}}/{{len}} {{msg}}"
                )));
                each.push(bar);
            }
        }
        let total = all.add(ProgressBar::new(0));
        total.set_style(style("{elapsed_precise} {wide_bar} {pos}/{len} chunks, {per_sec}, {msg}"));
        Self { all, each, total }
    }

    fn draw(&self, names: &[String], meters: &[Arc<Meter>]) {
        for ((bar, name), meter) in self.each.iter().zip(names).zip(meters) {
            bar.set_prefix(name.clone());
            bar.set_length(meter.chunks.load(Relaxed).into());
            bar.set_position(meter.stored.load(Relaxed).into());
            bar.set_message(match (meter.ending.load(Relaxed), meter.chunks.load(Relaxed)) {
                (1, _) => "ok",
                (2, _) => "failed",
                (_, 0) => "waiting",
                _ => "",
            });
        }
        let totals = Totals::of(meters);
        self.total.set_length(totals.chunks);
        self.total.set_position(totals.stored);
        self.total.set_message(format!(
            "{} ok, {} failed of {}",
            totals.ok, totals.failed, totals.devices
        ));
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        // A terminal that is gone needs no wiping.
        let _: Result<_, _> = self.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_of_devices_in_all_states() {
        let meters: Vec<Arc<Meter>> = (0..3).map(|_| Arc::default()).collect();
        meters[0].started(10);
        meters[0].stored(4);
        meters[0].received(5);
        meters[1].started(10);
        meters[1].completed();
        meters[1].ended(true);
        meters[2].ended(false);
        let line = Totals::of(&meters).line();
        assert_eq!(line, "1 ok, 1 failed of 3 devices; 14 of 20 chunks, 5 blocks received");
        meters[0].rebooted();
        assert_eq!(Totals::of(&meters).stored, 10);
    }
}
