//! Jobs on data files: what they hold, and making better ones of them.

mod blocks;
pub(crate) mod clean;
pub(crate) mod inputs;
pub(crate) mod inspect;
mod prepared;

pub(crate) use prepared::{CLEAN, prepared};
