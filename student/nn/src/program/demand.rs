//! Reduces a program to what is read.
//!
//! Starting from the requested taps, it goes back through the list and determines which rows each operation reads of
//! each of its inputs. If one operation reads a value for every token and another only for first tokens, the value has
//! all rows, and the second operation reads it through a gather.

use super::Program;
use crate::Error;
use crate::op::Kind;
use crate::value::{Columns, Rows, Tap, Value, ValueId};

impl Program {
    /// The operations needed for these taps, each value with only the rows that are read. Standalone dropout is removed
    /// outside training.
    pub(crate) fn demanded(&self, taps: &[Tap], training: bool) -> Result<Self, Error> {
        for &tap in taps {
            self.check_tap(tap)?;
        }
        let edges = self.edges(taps);
        let mut program = Self::default();
        // What each value has become, with these rows.
        let mut made: Vec<Vec<(Rows, ValueId)>> = vec![Vec::new(); self.values.len()];
        for (op, edges_in) in self.ops.iter().zip(&edges.of_ops) {
            let Some(edges_in) = edges_in else { continue };
            let inputs: Vec<Columns> = op
                .inputs
                .iter()
                .zip(edges_in)
                .map(|(input, rows)| {
                    let there = made[input.value.0].iter().find(|(other, _)| other == rows);
                    let (_, value) = there.expect("every edge's rows are made where their value is");
                    Columns { value: *value, ..*input }
                })
                .collect();
            let stands_in = match op.kind {
                Kind::Select(_) => true,
                Kind::Dropout(_) => !training,
                _ => false,
            };
            let width = self.values[op.out.0].width;
            let demand = &edges.of_values[op.out.0];
            let Some(rows) = rows_of(demand).map(|rows| op.kind.rows_made(rows)) else { continue };
            let (rows, out) = match stands_in {
                true => (program.values[inputs[0].value.0].rows, inputs[0].value),
                false => (rows, program.push_columns(op.kind.clone(), inputs, Value { rows, width })),
            };
            let made = &mut made[op.out.0];
            made.push((rows, out));
            for &other in demand {
                if !made.iter().any(|&(rows, _)| rows == other) {
                    let whole = Columns { value: out, first: 0, width };
                    let value = Value { rows: other, width };
                    made.push((other, program.push_columns(Kind::Select(other), vec![whole], value)));
                }
            }
        }
        Ok(program)
    }

    /// The rows that are read of every value, and of every operation's inputs.
    fn edges(&self, taps: &[Tap]) -> Edges {
        let mut of_values = vec![Vec::new(); self.values.len()];
        let mut of_ops = vec![None; self.ops.len()];
        for (index, op) in self.ops.iter().enumerate().rev() {
            if let Kind::Tap(tap) = op.kind
                && taps.contains(&tap)
            {
                of_values[op.out.0].push(self.values[op.out.0].rows);
            }
            let demand: &[Rows] = &of_values[op.out.0];
            let Some(rows) = rows_of(demand) else { continue };
            let edges: Vec<Rows> = (0..op.inputs.len()).map(|input| op.kind.rows_of_input(input, rows)).collect();
            for (input, &rows) in op.inputs.iter().zip(&edges) {
                let demand: &mut Vec<Rows> = &mut of_values[input.value.0];
                if !demand.contains(&rows) {
                    demand.push(rows);
                }
            }
            of_ops[index] = Some(edges);
        }
        Edges { of_values, of_ops }
    }
}

/// The rows that a value must have for all of its readers.
fn rows_of(demand: &[Rows]) -> Option<Rows> {
    demand.iter().copied().reduce(|a, b| if a == b { a } else { Rows::Tokens })
}

struct Edges {
    /// The distinct sets of rows that the readers of a value need.
    of_values: Vec<Vec<Rows>>,
    /// The rows of each input, of operations that are needed.
    of_ops: Vec<Option<Vec<Rows>>>,
}
