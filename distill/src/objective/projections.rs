//! The projections of an objective's terms, trained beside the student.

use nn::Clip;

use super::projection::Projection;

/// One for each term that needs it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Projections {
    of_terms: Vec<Option<Projection>>,
}

impl Projections {
    /// For terms with these names, and the widths of student and teacher where they differ.
    pub(super) fn new(seed: u64, terms: impl Iterator<Item = (&'static str, Option<[usize; 2]>)>) -> Self {
        let projection = |(number, (name, widths)): (usize, (&str, Option<[usize; 2]>))| {
            widths.map(|widths| Projection::new(widths, seed, &format!("projection {number} {name}")))
        };
        Self { of_terms: terms.enumerate().map(projection).collect() }
    }

    /// In the order of the terms.
    pub(super) fn of_terms(&mut self) -> impl Iterator<Item = Option<&mut Projection>> {
        self.of_terms.iter_mut().map(Option::as_mut)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.of_terms.iter().all(Option::is_none)
    }

    /// Takes a step with each, and zeroes their gradients.
    pub(crate) fn step(&mut self, learning_rate: f64, weight_decay: f64, clip: Clip) {
        self.of_terms.iter_mut().flatten().for_each(|projection| projection.step(learning_rate, weight_decay, clip));
    }

    /// Forgets their gradients.
    pub(crate) fn clear(&mut self) {
        self.of_terms.iter_mut().flatten().for_each(Projection::clear);
    }

    /// All that a checkpoint holds of them: the steps of each, and their values one behind the other.
    pub(crate) fn state(&self) -> (Vec<u64>, Vec<f32>) {
        let (steps, values): (Vec<u64>, Vec<Vec<f32>>) = self.of_terms.iter().flatten().map(Projection::state).unzip();
        (steps, values.concat())
    }

    /// The same as they were then. `None` if that was of others.
    pub(crate) fn restored(mut self, steps: &[u64], values: &[f32]) -> Option<Self> {
        let mut left = values;
        let mut steps = steps.iter();
        for projection in self.of_terms.iter_mut().flatten() {
            left = projection.restore(*steps.next()?, left)?;
        }
        (left.is_empty() && steps.next().is_none()).then_some(self)
    }
}
