//! The twin: a reference engine for tests. It runs the same programs in candle operators, one text at a time, with
//! candle's autograd.
//!
//! Nothing is fused, packed or skipped. The CPU engine is tested against it, in values and gradients, with and without
//! dropout. Since it runs the same programs it cannot find mistakes in them; golden files from `transformers` do.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};

use crate::op::{Kind, Row};
use crate::program::Program;
use crate::value::{Rows, Tap};
use crate::{DropoutRng, EncoderConfig, Entry, Gradients, Layout, Mode, PackedInput, Parameters, Slot};

/// A model as candle operators.
pub struct Twin {
    program: Program,
    layout: Arc<Layout>,
    vars: HashMap<Slot, Var>,
}

impl Twin {
    /// The twin of a model with this configuration and these weights.
    pub fn new(config: &EncoderConfig, parameters: &Parameters) -> Result<Self> {
        let var = |entry: &Entry| {
            let values = parameters.get(entry.slot);
            Ok((entry.slot, Var::from_slice(values, entry.shape.as_slice(), &Device::Cpu)?))
        };
        let vars = parameters.layout().entries().iter().map(var).collect::<Result<_>>()?;
        Ok(Self { program: config.program(), vars, layout: parameters.layout().clone() })
    }

    /// Runs the model and returns the values at all taps, with gradients tracked by candle.
    pub fn forward(&self, input: PackedInput<'_>, mode: Mode<'_>) -> Result<Vec<(Tap, Tensor)>> {
        let masks = if let Mode::Train(masks) = mode { Some(masks) } else { None };
        let mut taps: Vec<(Tap, Vec<Tensor>)> = self.program.taps().map(|(tap, _)| (tap, Vec::new())).collect();
        for (text, pair) in input.starts.windows(2).enumerate() {
            let (first, end) = (pair[0] as usize, pair[1] as usize);
            let chosen = input.positions.unwrap_or_default().iter().filter(|token| (pair[0]..pair[1]).contains(token));
            let row = Row {
                vars: &self.vars,
                masks,
                input_ids: &input.input_ids[first..end],
                token_type_ids: &input.token_type_ids[first..end],
                positions: &chosen.map(|token| token - pair[0]).collect::<Vec<_>>(),
                token: masks.map_or(0, DropoutRng::first_token) + first as u64,
                text: masks.map_or(0, DropoutRng::first_row) + text as u64,
            };
            let mut values: Vec<Option<Tensor>> = vec![None; self.program.values.len()];
            for op in &self.program.ops {
                let inputs: Option<Vec<Tensor>> = op.inputs.iter().map(|input| values[input.value.0].clone()).collect();
                // Where no token of this text is asked about, nothing comes of it.
                let Some(inputs) = inputs else { continue };
                if row.positions.is_empty() && matches!(op.kind, Kind::Select(Rows::Positions)) {
                    continue;
                }
                let value = op.state(self.program.values[op.out.0].rows, &row, &inputs)?;
                if let Kind::Tap(tap) = op.kind
                    && let Some((_, tapped)) = taps.iter_mut().find(|(other, _)| *other == tap)
                {
                    tapped.push(value.clone());
                }
                values[op.out.0] = Some(value);
            }
        }
        taps.into_iter().map(|(tap, values)| Ok((tap, Tensor::cat(&values, 0)?))).collect()
    }

    /// The gradients of a scalar loss with respect to all parameters; zero for those it does not depend on.
    pub fn gradients(&self, loss: &Tensor) -> Result<Gradients> {
        let store = loss.backward()?;
        let mut gradients = Gradients::zeros(self.layout.clone());
        for entry in self.layout.entries() {
            if let Some(gradient) = self.vars.get(&entry.slot).and_then(|var| store.get(var)) {
                let values = gradient.flatten_all()?.to_vec1::<f32>()?;
                gradients.flat_mut()[entry.range.clone()].copy_from_slice(&values);
            }
        }
        Ok(gradients)
    }
}

#[cfg(test)]
pub(crate) mod tests;
