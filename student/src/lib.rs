//! Initial weights of a student.
//!
//! [`start`] makes them from chosen layers of a teacher or at random; [`prune`] cuts the word embeddings to a pruned
//! vocabulary. A student then runs and trains like any [`nn::Model`].

mod factorise;
mod narrow;
pub mod prune;
pub mod start;
