//! Cuts a program into stages that run one after another, for passes that compute their values twice instead of keeping
//! them.

use super::Program;
use crate::slot::Slot;
use crate::value::ValueId;

impl Program {
    /// The list cut in front of every `layers`-th layer, but the first; in one piece without a number. A stage knows which values it is
    /// [given](Program::given) by earlier stages, and which it [hands](Program::handed) to later ones.
    pub(crate) fn stages(self, layers: Option<usize>) -> Vec<Self> {
        let Some(layers) = layers else { return vec![self] };
        let of_layer = |layer: usize| {
            let is_of = |slot: Slot| matches!(slot, Slot::Layer(of, _) if of == layer);
            self.ops.iter().position(|op| op.parameters().iter().any(|span| is_of(span.first)))
        };
        let cuts: Vec<usize> = (layers..).step_by(layers).map_while(of_layer).collect();
        let maker = |value: ValueId| self.ops.iter().position(|op| op.out == value);
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([self.ops.len()]);
        let stage = |(start, end): (usize, usize)| {
            let mut given: Vec<ValueId> =
                self.ops[start..end].iter().flat_map(|op| &op.inputs).map(|i| i.value).collect();
            given.retain(|value| maker(*value).is_some_and(|maker| maker < start));
            given.sort();
            given.dedup();
            let read_later =
                |value: &ValueId| self.ops[end..].iter().any(|op| op.inputs.iter().any(|input| input.value == *value));
            let handed = self.ops[start..end].iter().map(|op| op.out).filter(read_later).collect();
            Self { values: self.values.clone(), ops: self.ops[start..end].to_vec(), given, handed }
        };
        starts.zip(ends).map(stage).collect()
    }
}
