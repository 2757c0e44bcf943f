//! Ctrl-C and SIGTERM: the work stops at the next safe point. A second Ctrl-C ends the program at once.
//!
//! Files are written atomically, so neither leaves a half-written one.

use crate::ui;
use std::cell::Cell;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit status after Ctrl-C, by convention of shells.
const INTERRUPTED: u8 = 130;

/// The exit status after SIGTERM: stopped in order, to be started again. `EX_TEMPFAIL` of sysexits.h.
const TERMINATED: u8 = 75;

/// The work was stopped by a signal; `main` exits with [`exit_code`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Whether the signal was SIGTERM or SIGHUP, which schedulers and closing terminals send.
static TERMINATION: AtomicBool = AtomicBool::new(false);

/// Starts listening for SIGINT, SIGTERM and SIGHUP. Called once, before any work.
pub(crate) fn listen() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            process::exit(INTERRUPTED.into());
        }
        if ui::on_terminal() {
            ui::say("stopping at the next safe point; Ctrl-C again stops at once");
        }
    })?;
    listen_for_termination();
    Ok(())
}

#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "signals have no safe interface in the standard library, and `ctrlc` does not tell them apart"
)]
fn listen_for_termination() {
    extern "C" fn terminate(_: libc::c_int) {
        TERMINATION.store(true, Ordering::SeqCst);
        REQUESTED.store(true, Ordering::SeqCst);
    }
    let handler: extern "C" fn(libc::c_int) = terminate;
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores to atomics and does nothing else, which a handler may do at any moment.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

#[cfg(not(unix))]
fn listen_for_termination() {}

/// The exit status of a program that a signal has stopped.
pub(crate) fn exit_code() -> u8 {
    if TERMINATION.load(Ordering::SeqCst) { TERMINATED } else { INTERRUPTED }
}

/// Whether the work should stop. Cheap enough to be called in every step.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// [`requested`] as an error, for `?`; never within [`without`].
pub(crate) fn check() -> Result<(), Interrupted> {
    if requested() && !HELD.get() { Err(Interrupted) } else { Ok(()) }
}

thread_local! {
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// Does work on this thread that ends before a signal is heeded, since what was done before it would be lost otherwise.
pub(crate) fn without<T>(work: impl FnOnce() -> T) -> T {
    let outer = HELD.replace(true);
    let done = work();
    HELD.set(outer);
    done
}
