//! Where a backward pass can end, if some parameters are frozen.

use super::Program;
use crate::parameters::Layout;
use crate::slot::Span;

/// How far a backward pass goes back through a stage.
pub(crate) struct BackwardEnd {
    /// The first operation that it goes back to.
    pub(crate) first: usize,
    /// Whether it goes on through earlier stages.
    pub(crate) earlier: bool,
}

/// Of each stage of a pass, how far back it has a trained parameter, or an earlier one has; `None` where nothing is left to
/// do. A parameter whose factor is 0 is frozen; without factors none is.
pub(crate) fn backward_ends<'a>(
    stages: impl Iterator<Item = &'a Program>,
    layout: &Layout,
    rate_factors: &[f64],
) -> Vec<Option<BackwardEnd>> {
    let mut earlier = false;
    let of_stage = |program: &Program| {
        let end = match (earlier, program.first_trained(layout, rate_factors)) {
            (true, _) => Some(BackwardEnd { first: 0, earlier }),
            (false, first) => first.map(|first| BackwardEnd { first, earlier }),
        };
        earlier |= end.is_some();
        end
    };
    stages.map(of_stage).collect()
}

impl Program {
    /// The first operation that has a trained parameter: a backward pass has nothing to do before it.
    fn first_trained(&self, layout: &Layout, rate_factors: &[f64]) -> Option<usize> {
        if rate_factors.is_empty() {
            return Some(0);
        }
        let is_trained = |span: &Span| {
            let entries = layout.index(span.first)..=layout.index(span.last);
            rate_factors[entries].iter().any(|factor| *factor != 0.0)
        };
        self.ops.iter().position(|op| op.parameters().iter().any(is_trained))
    }
}
