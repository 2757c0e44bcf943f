//! The program from outside: the built binary on a tiny task, as a person at a shell or a script would use it.
//!
//! One binary for all of it, a module a subject. What is right in numbers is proved in the crates; here it is what a
//! command promises: its files, its JSON, its refusals, what a stop leaves behind.

mod arrows;
mod bad_input;
mod bench;
mod cache;
mod cache_commands;
mod cache_damage;
mod cache_forms;
mod cache_refresh;
mod cache_stops;
mod cache_tools;
mod commands;
mod data;
mod determinism;
mod full_disk;
mod help;
mod imports;
mod labels;
mod masked_lm;
mod recipes;
mod resume;
mod students;
mod support;
