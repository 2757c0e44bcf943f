//! Where the values of a pass stand: places that values, gradients and whatever an operation keeps share one after
//! another, each for as long as somebody reads it.
//!
//! An engine says of each operation what its backward pass reads and what may stand in the place of something else
//! ([`Needs`]); the plan follows from that and from the program alone. Sizes come later, from a batch.

use super::Program;
use crate::op::{Kind, Op};
use crate::value::{Rows, Value, ValueId};

/// What running an operation takes, on one of the engines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// The inputs whose values the backward pass reads.
    pub(crate) keeps: &'static [usize],
    /// Whether the backward pass reads the output.
    pub(crate) keeps_output: bool,
    /// Whether the first input's value is overwritten by the forward pass.
    pub(crate) overwrites: bool,
    /// Whether the output may stand in the place of the input, which is lost.
    pub(crate) in_place: bool,
    /// Where the gradient in each input goes.
    pub(crate) gradients: &'static [Gradient],
    /// Whether weights' gradients are made of the inputs kept and of the gradient in the output, behind everything else.
    pub(crate) weights_last: bool,
    /// What the forward pass leaves for the backward pass besides values.
    pub(crate) states: Vec<Room>,
    /// What the backward pass needs for itself.
    pub(crate) scratch: Vec<Room>,
}

/// Where the gradient in an operation's input goes, if nothing stands there yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gradient {
    /// To a place of its own.
    Own,
    /// It takes over the place of the gradient in the output.
    Takes,
    /// It replaces the input's value.
    Replaces,
}

/// Room for a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Room {
    pub(crate) rows: Rows,
    pub(crate) width: usize,
    /// Bytes of an element.
    pub(crate) bytes: usize,
}

/// An engine's account of the operations.
pub(crate) trait Habits {
    /// What an operation takes.
    fn needs(&self, program: &Program, op: &Op) -> Needs;
    /// Bytes of an element of a value.
    fn value_bytes(&self, program: &Program, value: ValueId) -> usize;
    /// Bytes of an element of a gradient.
    fn gradient_bytes(&self) -> usize;
    /// Whether values that are tapped, and gradients that enter, stand on the engine's side until the host asks.
    fn holds_taps(&self) -> bool;
}

/// A program with a place for everything.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) program: Program,
    /// All that stands in each place at some time; a place is as large as the largest of it.
    pub(crate) places: Vec<Vec<Room>>,
    values: Vec<Option<usize>>,
    gradients: Vec<Option<usize>>,
    /// Of each operation.
    steps: Vec<Step>,
}

#[derive(Clone, Debug, Default)]
struct Step {
    states: Vec<usize>,
    scratch: Vec<usize>,
    /// Whether each input's gradient is added to what stands in its place.
    adds: Vec<bool>,
}

impl Plan {
    /// Of a program that was cut down for its taps.
    pub(crate) fn new(program: Program, habits: &dyn Habits, training: bool) -> Self {
        let mut buffers = Buffers::of(&program, habits, training);
        let places = buffers.share();
        let place = |buffer: Option<usize>| buffer.map(|buffer| buffers.places[buffers.root(buffer)]);
        let each = |all: &[Option<usize>]| all.iter().copied().map(place).collect::<Vec<_>>();
        let some = |all: &[usize]| all.iter().filter_map(|&buffer| place(Some(buffer))).collect();
        let steps = buffers.steps.iter().map(|step| Step {
            states: some(&step.states),
            scratch: some(&step.scratch),
            adds: step.adds.clone(),
        });
        Self {
            places,
            values: each(&buffers.values),
            gradients: each(&buffers.gradients),
            steps: steps.collect(),
            program,
        }
    }

    /// The place of a value.
    pub(crate) fn value(&self, value: ValueId) -> Option<usize> {
        self.values[value.0]
    }

    /// The place of the gradient in a value.
    pub(crate) fn gradient(&self, value: ValueId) -> Option<usize> {
        self.gradients[value.0]
    }

    /// The place of what an operation keeps.
    pub(crate) fn state(&self, op: usize, index: usize) -> usize {
        self.steps[op].states[index]
    }

    /// The place of what an operation's backward pass needs for itself.
    pub(crate) fn scratch(&self, op: usize, index: usize) -> usize {
        self.steps[op].scratch[index]
    }

    /// Whether an operation adds the gradient in this input to what stands there, or writes it.
    pub(crate) fn adds(&self, op: usize, input: usize) -> bool {
        self.steps[op].adds[input]
    }

    /// Bytes of every place, for these numbers of rows.
    pub(crate) fn bytes(&self, rows: impl Fn(Rows) -> usize) -> Vec<usize> {
        let size = |room: &Room| rows(room.rows) * room.width * room.bytes;
        self.places.iter().map(|rooms| rooms.iter().map(size).max().unwrap_or(0)).collect()
    }
}

/// Something that needs a place for some time.
struct Buffer {
    room: Room,
    from: usize,
    to: usize,
}

/// Everything that needs a place, before it has one. Times: a forward pass is 0 up to n, then taps are read and gradients
/// enter; operation i runs backwards at 2 n - i; weights' gradients come at 2 n + 1.
struct Buffers {
    all: Vec<Buffer>,
    /// A buffer that stands in the place of an earlier one points to it.
    same_as: Vec<usize>,
    places: Vec<usize>,
    values: Vec<Option<usize>>,
    gradients: Vec<Option<usize>>,
    steps: Vec<Step>,
}

impl Buffers {
    fn of(program: &Program, habits: &dyn Habits, training: bool) -> Self {
        let (n, values) = (program.ops.len(), program.values.len());
        let mut buffers = Self {
            all: Vec::new(),
            same_as: Vec::new(),
            places: Vec::new(),
            values: vec![None; values],
            gradients: vec![None; values],
            steps: Vec::new(),
        };
        let needs: Vec<Needs> = program.ops.iter().map(|op| habits.needs(program, op)).collect();
        for (index, (op, needs)) in program.ops.iter().zip(&needs).enumerate() {
            buffers.for_forward(program, habits, index, op, needs, training);
        }
        if training {
            for index in (0..n).rev() {
                buffers.for_backward(program, habits, index, &needs);
            }
        }
        buffers
    }

    fn for_forward(
        &mut self,
        program: &Program,
        habits: &dyn Habits,
        index: usize,
        op: &Op,
        needs: &Needs,
        train: bool,
    ) {
        let n = program.ops.len();
        let room = |value: ValueId, bytes: usize| {
            let v = program.values[value.0];
            Room { rows: v.rows, width: v.width, bytes }
        };
        // Whether another operation reads the first input too.
        let reads =
            |other: &Op| op.inputs.first().is_some_and(|mine| other.inputs.iter().any(|i| i.value == mine.value));
        let is_last = !program.ops[index + 1..].iter().any(reads);
        if needs.overwrites {
            let held = |other: &Op| habits.holds_taps() && matches!(other.kind, Kind::Tap(_)) && reads(other);
            let lost = !is_last || program.ops[..index].iter().any(held);
            assert!(!lost, "{op:?} overwrites what another operation reads");
        }
        let back = if !train {
            index
        } else if needs.weights_last {
            2 * n + 1
        } else {
            2 * n - index
        };
        for (input, columns) in op.inputs.iter().enumerate() {
            let until = if needs.keeps.contains(&input) { back } else { index };
            self.extend(self.values[columns.value.0], until);
        }
        if let Kind::Tap(_) = op.kind {
            if habits.holds_taps() {
                let input = op.inputs[0].value;
                self.values[op.out.0] = self.values[input.0];
                self.extend(self.values[input.0], n);
                if train {
                    self.gradients[op.out.0] = Some(self.add(room(input, habits.gradient_bytes()), n, n));
                }
            }
        } else {
            let bytes = habits.value_bytes(program, op.out);
            let out = self.add(room(op.out, bytes), index, if needs.keeps_output { back } else { index });
            self.values[op.out.0] = Some(out);
            if needs.in_place
                && let Some(input) = op.inputs.first().and_then(|input| self.values[input.value.0])
                && is_last
                && self.all[self.root(input)].to == index
            {
                self.merge(out, input);
            }
        }
        let states = needs.states.iter().map(|&room| self.add(room, index, if train { 2 * n - index } else { index }));
        let states = states.collect();
        self.steps.push(Step { states, ..Step::default() });
    }

    fn for_backward(&mut self, program: &Program, habits: &dyn Habits, index: usize, needs: &[Needs]) {
        let (op, needs, n) = (&program.ops[index], &needs[index], program.ops.len());
        let now = 2 * n - index;
        let d_out = self.gradients[op.out.0];
        self.extend(d_out, if needs.weights_last { 2 * n + 1 } else { now });
        let mut adds = Vec::new();
        for (input, columns) in op.inputs.iter().enumerate() {
            let value = columns.value.0;
            let there = self.gradients[value];
            // Another input of this operation may be other columns of the same value.
            let mine = op.inputs[..input].iter().any(|other| other.value == columns.value);
            adds.push(there.is_some() && !mine || mine && adds[..input].contains(&true));
            // Attention and the end of a branch write these gradients and can add to none.
            let writes_only =
                matches!(op.kind, Kind::Attention(_)) || matches!(op.kind, Kind::ResidualNorm(_)) && input == 0;
            assert!(!adds[input] || !writes_only, "{op:?} and another operation have a gradient in one value");
            let taken_over = match needs.gradients[input] {
                Gradient::Own => None,
                Gradient::Takes => d_out,
                Gradient::Replaces => self.values[value].filter(|&value| self.all[self.root(value)].to <= now),
            };
            let buffer = there.or(taken_over).unwrap_or_else(|| {
                let Value { rows, width } = program.values[value];
                self.add(Room { rows, width, bytes: habits.gradient_bytes() }, now, now)
            });
            self.gradients[value] = Some(buffer);
            self.extend(Some(buffer), now);
        }
        self.steps[index].adds = adds;
        let scratch: Vec<usize> = needs.scratch.iter().map(|&room| self.add(room, now, now)).collect();
        self.steps[index].scratch = scratch;
    }

    fn add(&mut self, room: Room, from: usize, to: usize) -> usize {
        self.all.push(Buffer { room, from, to });
        self.same_as.push(self.all.len() - 1);
        self.all.len() - 1
    }

    fn root(&self, mut buffer: usize) -> usize {
        while self.same_as[buffer] != buffer {
            buffer = self.same_as[buffer];
        }
        buffer
    }

    fn extend(&mut self, buffer: Option<usize>, to: usize) {
        if let Some(buffer) = buffer {
            let root = self.root(buffer);
            self.all[root].to = self.all[root].to.max(to);
        }
    }

    /// Lets `later` stand in the place of `earlier`.
    fn merge(&mut self, later: usize, earlier: usize) {
        let root = self.root(earlier);
        self.all[root].to = self.all[root].to.max(self.all[later].to);
        self.same_as[later] = root;
    }

    /// Gives every buffer a place, and returns what stands in each: the largest places first.
    fn share(&mut self) -> Vec<Vec<Room>> {
        // Sizes at an ordinary batch decide what fits where.
        let size = |room: Room| if room.rows == Rows::First { 1 } else { 16 } * room.width * room.bytes;
        let mut order: Vec<usize> = (0..self.all.len()).filter(|&buffer| self.same_as[buffer] == buffer).collect();
        order.sort_by_key(|&buffer| self.all[buffer].from);
        // Of each place its size, the time at which it is free, and what stands in it.
        let mut places: Vec<(usize, usize, Vec<usize>)> = Vec::new();
        for buffer in order {
            let Buffer { room, from, to } = self.all[buffer];
            let needed = size(room);
            let free = places.iter().enumerate().filter(|(_, place)| place.1 < from);
            // The smallest that is large enough, or else the largest.
            let best =
                free.min_by_key(|(_, (size, ..))| if *size >= needed { (0, *size) } else { (1, usize::MAX - size) });
            match best.map(|(index, _)| index) {
                Some(index) => {
                    let (size, free_after, buffers) = &mut places[index];
                    (*size, *free_after) = (needed.max(*size), to);
                    buffers.push(buffer);
                }
                None => places.push((needed, to, vec![buffer])),
            }
        }
        places.sort_by_key(|(size, ..)| std::cmp::Reverse(*size));
        self.places = vec![0; self.all.len()];
        for (index, (.., buffers)) in places.iter().enumerate() {
            buffers.iter().for_each(|&buffer| self.places[buffer] = index);
        }
        places
            .into_iter()
            .map(|(.., buffers)| buffers.into_iter().map(|buffer| self.all[buffer].room).collect())
            .collect()
    }
}

#[cfg(test)]
mod tests;
