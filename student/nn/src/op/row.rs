//! One text in candle's operators, as input for the twin's operations.

use std::collections::HashMap;

use candle_core::{Result, Tensor, Var};

use super::Site;
use crate::random::{DropoutRng, DropoutSite};
use crate::slot::Slot;

/// One text in the twin.
pub(crate) struct Row<'a> {
    pub(crate) vars: &'a HashMap<Slot, Var>,
    pub(crate) masks: Option<&'a DropoutRng>,
    pub(crate) input_ids: &'a [u32],
    pub(crate) token_type_ids: &'a [u32],
    /// The masked tokens to predict, as indices within the text.
    pub(crate) positions: &'a [u32],
    /// Number, within the step, of the first token and of the text.
    pub(crate) token: u64,
    pub(crate) text: u64,
}

impl Row<'_> {
    pub(crate) fn get(&self, slot: Slot) -> &Tensor {
        &self.vars[&slot]
    }

    pub(crate) fn site(&self, site: Option<Site>) -> Option<DropoutSite> {
        let site = site?;
        self.masks.and_then(|masks| masks.site(site.number, site.rate))
    }

    /// Applies dropout to `[rows, width]`, with rows numbered from `first`.
    pub(crate) fn drop_out(&self, x: &Tensor, site: Option<Site>, first: u64) -> Result<Tensor> {
        let Some(mask) = self.site(site) else { return Ok(x.clone()) };
        let (rows, width) = x.dims2()?;
        let factors = (0..rows as u64).flat_map(|row| {
            let (mask, element) = mask.row((first + row) * width as u64);
            (0..width as u32).map(move |column| mask.factor(element.wrapping_add(column)))
        });
        x.mul(&Tensor::from_vec(factors.collect::<Vec<_>>(), x.shape(), x.device())?)
    }
}
