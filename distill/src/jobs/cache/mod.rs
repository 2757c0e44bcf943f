//! One file for each subcommand of `cache`.

pub(crate) mod average;
pub(crate) mod estimate;
pub(crate) mod export;
pub(crate) mod gc;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod merge;
pub(crate) mod verify;
mod writing;
