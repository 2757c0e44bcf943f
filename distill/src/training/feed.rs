//! The steps of a training, put together by threads of their own ahead of the ones that take them, so that neither the
//! teacher's stored answers nor the texts are waited for.
//!
//! Each thread makes every so-manieth step, and a few of them wait to be taken: memory is bounded, the order is the
//! training's, and what a step holds does not depend on the threads.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use datasets::Sampler;

use super::step::{Examples, Prepared};

/// Threads that put steps together.
const WORKERS: usize = 2;

/// Steps of each that wait to be taken.
const WAITING: usize = 4;

/// Steps in their order.
pub(crate) struct Feed {
    workers: Vec<Receiver<anyhow::Result<Vec<Prepared>>>>,
    next: usize,
    waited: Duration,
}

/// Runs `body` while the steps from `first` up to `end` are put together beside it.
pub(crate) fn with_feed<T>(
    sampler: &Sampler,
    examples: &Examples<'_>,
    first: usize,
    end: usize,
    body: impl FnOnce(Feed) -> T,
) -> T {
    thread::scope(|scope| {
        let workers = (0..WORKERS).map(|worker| {
            let (sender, receiver) = sync_channel(WAITING);
            scope.spawn(move || {
                let mut epoch = None;
                for step in (first + worker..end).step_by(WORKERS) {
                    let pass = (step / sampler.steps_per_epoch()) as u64;
                    if epoch.as_ref().is_none_or(|(of, _)| *of != pass) {
                        epoch = Some((pass, sampler.epoch(pass)));
                    }
                    let Some((_, epoch)) = &epoch else { return };
                    let prepared = examples.prepare(pass, &epoch.step(step % sampler.steps_per_epoch()));
                    // Nobody takes more after an error, here or there.
                    let failed = prepared.is_err();
                    if sender.send(prepared).is_err() || failed {
                        return;
                    }
                }
            });
            receiver
        });
        let workers = workers.collect();
        body(Feed { workers, next: 0, waited: Duration::ZERO })
    })
}

impl Feed {
    /// The next step's micro-batches.
    pub(crate) fn step(&mut self) -> anyhow::Result<Vec<Prepared>> {
        let clock = Instant::now();
        let worker = &self.workers[self.next % WORKERS];
        self.next += 1;
        let prepared = worker.recv().context("the thread that puts steps together ended")?;
        // The first one of each has nothing to run ahead of.
        if self.next > WORKERS {
            self.waited += clock.elapsed();
        }
        prepared
    }

    /// How long steps were waited for, the first ones aside.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}
