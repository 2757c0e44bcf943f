//! What ships: a small encoder that is trained, and the ways in which it starts.
//!
//! [`start`] makes a student's first weights from chosen layers of a teacher or at random; [`prune`] cuts its vocabulary.
//! A student runs as any [`nn::Model`] does.

mod narrow;
pub mod prune;
pub mod start;
