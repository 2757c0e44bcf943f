//! A cache from outside: what was put in comes out, after any kill, and whatever is wrong is refused by name.

#![allow(clippy::unwrap_used, reason = "a test panics")]

mod damage;
mod forms;
mod kills;
mod malformed;
mod manifest;
mod merging;
mod model;
mod python;
mod refusals;
mod support;
mod upkeep;
