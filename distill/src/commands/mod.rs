//! The commands, one file each: from flags to a job, and its report to stdout.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod compare;
pub(crate) mod data;
pub(crate) mod demo;
pub(crate) mod evaluate;
pub(crate) mod export;
pub(crate) mod finetune;
pub(crate) mod plot;
pub(crate) mod predict;
pub(crate) mod propose;
pub(crate) mod run;
pub(crate) mod train;
