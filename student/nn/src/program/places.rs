//! Memory planning for a pass: values, gradients and saved state of operations share buffers (places), each for as long
//! as it is still to be read.
//!
//! An engine states for each operation what its backward pass reads and which buffers it can reuse ([`Needs`]). The
//! plan depends only on that and on the program; sizes follow later from a batch.

use super::Program;
use crate::op::{Kind, Op};
use crate::value::{Rows, Value, ValueId};

/// The memory needs of an operation on one of the engines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    /// The inputs whose values the backward pass reads.
    pub(crate) keeps: &'static [usize],
    /// Whether the backward pass reads the output.
    pub(crate) keeps_output: bool,
    /// Whether the first input's value is overwritten by the forward pass.
    pub(crate) overwrites: bool,
    /// Whether the output can be written into the buffer of the input, which is lost.
    pub(crate) in_place: bool,
    /// Where the gradient of each input is written.
    pub(crate) gradients: &'static [Gradient],
    /// Whether gradients of weights are computed from the kept inputs and the gradient of the output, at the end of
    /// backward.
    pub(crate) weights_last: bool,
    /// What the forward pass saves for the backward pass besides values.
    pub(crate) states: Vec<Room>,
    /// Scratch memory of the backward pass.
    pub(crate) scratch: Vec<Room>,
}

/// Where the gradient of an operation's input is written, if it is the first contribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Gradient {
    /// To a buffer of its own.
    Own,
    /// Over the gradient of the output.
    Takes,
    /// Over the input's value.
    Replaces,
}

/// Size of a matrix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Room {
    pub(crate) rows: Rows,
    pub(crate) width: usize,
    /// Bytes per element.
    pub(crate) bytes: usize,
}

/// An engine's description of its operations.
pub(crate) trait Habits {
    /// The needs of an operation.
    fn needs(&self, program: &Program, op: &Op) -> Needs;
    /// Bytes per element of a value.
    fn value_bytes(&self, program: &Program, value: ValueId) -> usize;
    /// Bytes per element of a gradient.
    fn gradient_bytes(&self) -> usize;
    /// Whether values and gradients at taps stay in the engine's memory until the host reads them.
    fn holds_taps(&self) -> bool;
}

/// A program with its memory plan.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) program: Program,
    /// The matrices that share each place; it is as large as the largest of them.
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
    /// Whether each input's gradient is added to an existing one.
    adds: Vec<bool>,
}

impl Plan {
    /// Plans a program that has been reduced for its taps.
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

    /// The place of a value's gradient.
    pub(crate) fn gradient(&self, value: ValueId) -> Option<usize> {
        self.gradients[value.0]
    }

    /// The place of an operation's saved state.
    pub(crate) fn state(&self, op: usize, index: usize) -> usize {
        self.steps[op].states[index]
    }

    /// The place of an operation's scratch memory for backward.
    pub(crate) fn scratch(&self, op: usize, index: usize) -> usize {
        self.steps[op].scratch[index]
    }

    /// Whether an operation adds to the gradient of this input, rather than overwriting it.
    pub(crate) fn adds(&self, op: usize, input: usize) -> bool {
        self.steps[op].adds[input]
    }

    /// Size of every place in bytes, for these numbers of rows.
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
/// enter; operation i runs backwards at 2 n - i; weights' gradients come at 2 n + 1; behind that the gradients of what a stage
/// was given are read.
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
        let room = |value: ValueId, bytes: usize| {
            let Value { rows, width } = program.values[value.0];
            Room { rows, width, bytes }
        };
        for &value in &program.given {
            buffers.values[value.0] = Some(buffers.add(room(value, habits.value_bytes(program, value)), 0, 0));
        }
        for (index, (op, needs)) in program.ops.iter().zip(&needs).enumerate() {
            buffers.for_forward(program, habits, index, op, needs, training);
        }
        if training {
            for &value in &program.handed {
                buffers.gradients[value.0] = Some(buffers.add(room(value, habits.gradient_bytes()), n, n));
            }
            for index in (0..n).rev() {
                buffers.for_backward(program, habits, index, &needs);
            }
            for &value in &program.given {
                buffers.extend(buffers.gradients[value.0], 2 * n + 2);
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
            let handed = op.inputs.first().is_some_and(|input| program.handed.contains(&input.value));
            let lost = !is_last || handed || program.ops[..index].iter().any(held);
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
            if program.handed.contains(&op.out) {
                self.extend(Some(out), n);
            }
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
