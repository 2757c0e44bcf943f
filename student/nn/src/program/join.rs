//! Joins linear maps of the same input into one product.

use super::Program;
use crate::op::{Kind, Linear, Op};
use crate::parameters::Layout;
use crate::slot::Span;
use crate::value::{Columns, Value, ValueId};

impl Program {
    /// Joins linear maps of the same input whose weights are adjacent in the layout and whose outputs `joins` accepts.
    pub(crate) fn join(&mut self, layout: &Layout, joins: impl Fn(&Self, ValueId) -> bool) {
        let mut at = 0;
        while at < self.ops.len() {
            let mut group = vec![at];
            while let Some(next) = self.ops.get(group[group.len() - 1] + 1)
                && let (Kind::Linear(a), Kind::Linear(b)) = (&self.ops[at].kind, &next.kind)
                && (self.ops[at].inputs == next.inputs && a.bias.is_some() == b.bias.is_some())
                && group
                    .iter()
                    .map(|&index| &self.ops[index])
                    .chain([next])
                    .all(|op| self.can_join(op.out) && joins(self, op.out))
            {
                group.push(group[group.len() - 1] + 1);
            }
            at += 1;
            if let [_, _, ..] = group[..] {
                self.join_group(layout, group);
            }
        }
    }

    /// Whether all readers of a value can read columns of a wider value instead.
    fn can_join(&self, value: ValueId) -> bool {
        let mut readers = self.ops.iter().filter(|op| op.inputs.iter().any(|input| input.value == value));
        readers.all(|op| matches!(op.kind, Kind::Attention(_) | Kind::Tap(_)))
    }

    fn join_group(&mut self, layout: &Layout, mut group: Vec<usize>) {
        let linear = |op: &Op| if let Kind::Linear(linear) = &op.kind { Some(linear.clone()) } else { None };
        let place = self.ops[group[0]].clone();
        group.sort_by_key(|&index| linear(&self.ops[index]).map(|linear| layout.span(linear.weight).start));
        let members: Vec<(ValueId, Linear)> =
            group.iter().filter_map(|&index| Some((self.ops[index].out, linear(&self.ops[index])?))).collect();
        let touch = |a: Span, b: Span| layout.span(a).end == layout.span(b).start;
        let side_by_side = members.windows(2).all(|pair| {
            let biases = pair[0].1.bias.zip(pair[1].1.bias);
            touch(pair[0].1.weight, pair[1].1.weight) && biases.is_none_or(|(a, b)| touch(a, b))
        });
        let [(_, first), .., (_, last)] = &members[..] else { return };
        if !side_by_side {
            return;
        }
        let out = ValueId(self.values.len());
        let mut width = 0;
        for (member, _) in &members {
            let columns = self.values[member.0].width;
            for input in self.ops.iter_mut().flat_map(|op| &mut op.inputs).filter(|input| input.value == *member) {
                *input = Columns { value: out, first: width + input.first, width: input.width };
            }
            width += columns;
        }
        self.values.push(Value { width, ..self.values[place.out.0] });
        let kind = Kind::Linear(Linear {
            weight: first.weight.to(last.weight),
            bias: first.bias.zip(last.bias).map(|(first, last)| first.to(last)),
            inner: first.inner,
        });
        group.sort();
        self.ops.splice(group[0]..=group[group.len() - 1], [Op { kind, inputs: place.inputs, out }]);
    }
}
