//! Error messages: what went wrong and why on one line, and a hint on another, if there is one.

use std::fmt;

/// A hint on how to fix an error, as anyhow context: `load(..).hint("give --revision")?`. `main` prints it on its own
/// line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hint(pub(crate) String);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HINT}{}", self.0)
    }
}

/// Marks a hint among the causes of an error.
const HINT: &str = "hint: ";

/// Adds a hint to an error.
pub(crate) trait HintExt<T> {
    /// On failure, adds the hint.
    fn hint(self, way_out: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> HintExt<T> for Result<T, E> {
    fn hint(self, way_out: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| error.into().context(Hint(way_out.into())))
    }
}

/// An error and its causes on one line, outermost first, then each hint on its own line.
/// A cause that the preceding message already contains is not repeated.
pub(crate) fn describe(error: &anyhow::Error) -> String {
    let (mut message, mut hints) = (String::new(), String::new());
    for text in error.chain().map(ToString::to_string) {
        if text.starts_with(HINT) {
            hints += &format!("\n{text}");
        } else if message.is_empty() {
            message = text;
        } else if !message.contains(&text) {
            message += &format!(": {text}");
        }
    }
    format!("error: {message}{hints}")
}

/// The hints of an error, each on its own line.
pub(crate) fn hints(error: &anyhow::Error) -> Vec<String> {
    error.chain().map(ToString::to_string).filter(|text| text.starts_with(HINT)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use std::io;

    fn failing() -> io::Result<()> {
        Err(io::Error::other("device on fire"))
    }

    #[test]
    fn causes_follow_on_one_line() {
        let error = failing().context("cannot read a.tsv").context("cannot cache").expect_err("fails");
        assert_eq!(describe(&error), "error: cannot cache: cannot read a.tsv: device on fire");
    }

    #[test]
    fn hints_stand_on_their_own_lines_wherever_they_were_added() {
        let error = failing().hint("use water").context("cannot read a.tsv").hint("give --data").expect_err("fails");
        assert_eq!(describe(&error), "error: cannot read a.tsv: device on fire\nhint: give --data\nhint: use water");
        assert_eq!(hints(&error), ["hint: give --data", "hint: use water"]);
    }

    #[test]
    fn a_quoted_cause_is_not_said_twice() {
        let error = failing().context("cannot read a.tsv: device on fire").expect_err("fails");
        assert_eq!(describe(&error), "error: cannot read a.tsv: device on fire");
    }

    #[test]
    fn the_cause_is_still_found_under_a_hint() {
        let error = Err::<(), _>(crate::interrupt::Interrupted).hint("resume it").expect_err("fails");
        assert!(error.downcast_ref::<crate::interrupt::Interrupted>().is_some());
    }
}
