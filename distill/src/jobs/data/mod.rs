//! Jobs on data files: what they hold, and making better ones of them.

pub(crate) mod augment;
mod blocks;
pub(crate) mod clean;
pub(crate) mod inputs;
pub(crate) mod inspect;
mod prepared;
pub(crate) mod select;
mod writing;

pub(crate) use prepared::{CLEAN, prepared};
