//! Lines on stderr, printed above progress bars.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;

use indicatif::MultiProgress;

/// The bars on the screen; lines are printed above them.
pub(crate) static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Whether stderr is a terminal, where bars are drawn.
pub(crate) fn on_terminal() -> bool {
    static ON_TERMINAL: LazyLock<bool> = LazyLock::new(|| io::stderr().is_terminal());
    *ON_TERMINAL
}

/// Prints a line on stderr, above the bars. Write errors are ignored.
pub(crate) fn say(line: impl fmt::Display) {
    above_bars(|| {
        let _ = writeln!(io::stderr(), "{line}");
    });
}

/// Runs something that prints, with the bars out of its way.
pub(super) fn above_bars<R>(print: impl FnOnce() -> R) -> R {
    if on_terminal() { BARS.suspend(print) } else { print() }
}

/// A writer to stderr that leaves bars whole, for logs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StderrAboveBars;

impl Write for StderrAboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        above_bars(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
