//! Matrix products on one thread, as the CPU engine computes them: for losses on what a model computes.

pub use crate::cpu::product::{Into, View, product};
