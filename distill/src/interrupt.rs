//! Ctrl-C: the first signal stops the work at the next safe point, the second ends the program at once.
//!
//! Files are written atomically, so neither leaves a half-written one.

use crate::ui;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit status after Ctrl-C, by convention of shells.
pub(crate) const EXIT_CODE: u8 = 130;

/// The work was stopped by a signal; `main` exits with [`EXIT_CODE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts listening for SIGINT, SIGTERM and SIGHUP. Called once, before any work.
pub(crate) fn listen() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            process::exit(EXIT_CODE.into());
        }
        if ui::on_terminal() {
            ui::say("stopping at the next safe point; Ctrl-C again stops at once");
        }
    })
}

/// Whether the work should stop. Cheap enough to be called in every step.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// [`requested`] as an error, for `?`.
pub(crate) fn check() -> Result<(), Interrupted> {
    if requested() { Err(Interrupted) } else { Ok(()) }
}
