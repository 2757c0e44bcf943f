//! Prepares training steps ahead of the loop, on threads of their own, so that it need not wait for rows or cached
//! outputs.
//!
//! With `n` threads, each prepares every n-th step, and a few steps ahead: memory is bounded, the order is that of
//! training, and the content of a step does not depend on the threads.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use datasets::Sampler;
use tracing::debug_span;

use super::step::{Examples, Prepared};

/// Number of threads that prepare steps.
const WORKERS: usize = 2;

/// Prepared steps in the queue of each thread.
const WAITING: usize = 4;

/// The prepared steps, in order.
pub(crate) struct Feed {
    workers: Vec<Receiver<anyhow::Result<Vec<Prepared>>>>,
    next: usize,
    waited: Duration,
}

/// Runs `body` while other threads prepare the steps `first..end`.
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
                    let prepare = || examples.prepare(pass, &epoch.step(step % sampler.steps_per_epoch()));
                    let prepared = debug_span!("prepare step", step = step + 1).in_scope(prepare);
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
        let _span = debug_span!("wait for step").entered();
        let prepared = worker.recv().context("the thread that puts steps together ended")?;
        // The first one of each has nothing to run ahead of.
        if self.next > WORKERS {
            self.waited += clock.elapsed();
        }
        prepared
    }

    /// Time spent waiting for steps, except for the first ones.
    pub(crate) fn waited(&self) -> Duration {
        self.waited
    }
}
