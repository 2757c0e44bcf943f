//! Where a backward pass can end, if some parameters are frozen.

use super::Program;
use crate::parameters::Layout;
use crate::slot::Span;

impl Program {
    /// The first operation that has a parameter whose factor is not 0: a backward pass has nothing to do before it. The
    /// length of the list if all parameters are frozen.
    pub(crate) fn first_trained(&self, layout: &Layout, rate_factors: &[f64]) -> usize {
        let is_trained = |span: &Span| {
            let entries = layout.index(span.first)..=layout.index(span.last);
            rate_factors[entries].iter().any(|factor| *factor != 0.0)
        };
        self.ops.iter().position(|op| op.parameters().iter().any(is_trained)).unwrap_or(self.ops.len())
    }
}
