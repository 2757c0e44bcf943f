//! A model at work, on the CPU or on a GPU: the one thing that training and inference ask.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cuda::{Device, Precision};
use crate::pass::{Mode, PackedInput, Pass};
use crate::value::Tap;
use crate::{AdamW, Error, Gradients, Parameters};

/// Where a model computes, and in which number formats.
#[derive(Clone, Debug, Default)]
pub enum Compute {
    /// On the CPU, in `f32`.
    #[default]
    Cpu,
    /// On a GPU.
    Cuda {
        /// Which one.
        device: Device,
        /// In which number formats.
        precision: Precision,
    },
}

impl Compute {
    /// `cpu` or `cuda`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda { .. } => "cuda",
        }
    }

    /// The number formats.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Cpu => Precision::F32,
            Self::Cuda { precision, .. } => *precision,
        }
    }
}

/// What the optimiser does in a step.
#[derive(Clone, Copy, Debug)]
pub struct StepRates {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Gradients longer than this are shortened to it.
    pub max_gradient_norm: f64,
}

/// A softmax cross-entropy of a pass's logits against two kinds of targets at once.
///
/// # Shapes
/// - `target_logits`: `[B, num_labels]`; `labels`: `[B]`, -1 where a row has none
#[derive(Clone, Copy, Debug)]
pub struct SoftHardLoss<'a> {
    /// The soft targets, before softmax; none leaves the soft term out.
    pub target_logits: Option<&'a [f32]>,
    /// The rows' classes.
    pub labels: &'a [i32],
    /// The soft term's weight over the step's rows.
    pub soft_weight: f64,
    /// What both sides' logits are divided by in the soft term.
    pub temperature: f64,
    /// The hard term's weight over the step's labelled rows.
    pub hard_weight: f64,
}

/// What is wanted of each row of logits where not all of them are: the largest, and what the others add to the softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// How many.
    pub k: usize,
    /// At which the others are summed up.
    pub temperatures: Vec<f64>,
}

/// The largest logits of some rows. Logits that are not finite come first.
///
/// # Shapes
/// - `values`, `columns`: `[B, k]`, falling, of equal logits the first first
/// - `rest`: `[B, 1 + 2 temperatures]`: the largest of the others, then at each temperature the sums of `e^x` and of
///   `x e^x` over them, `x = (logit - that largest) / temperature`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopLogits {
    /// The logits.
    pub values: Vec<f32>,
    /// Which of their row they are.
    pub columns: Vec<u32>,
    /// What the others add to the softmax.
    pub rest: Vec<f32>,
}

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The step's number, as given.
    pub step: u64,
    /// Sums over the step's rows of the soft and of the hard term, not weighted, where the device computes the loss.
    pub losses: [f64; 2],
    /// The gradient's norm before clipping; where it is not finite, the step changed nothing.
    pub gradient_norm: f64,
}

/// A model at work, wherever it computes: its weights and what they go through. What training and inference ask of a
/// device is this.
pub trait Session: Send {
    /// Where it computes.
    fn compute(&self) -> Compute;

    /// The weights, in a training as of the last [`settle`](Self::settle).
    fn parameters(&self) -> &Parameters;

    /// Brings [`parameters`](Self::parameters) up to date: a GPU has its own, and the CPU puts some of the decay off.
    fn settle(&mut self) -> Result<&Parameters, Error>;

    /// Replaces all weights, wherever they are.
    ///
    /// # Shapes
    /// - `flat`: as in [`Parameters::flat`]
    fn set_parameters(&mut self, flat: &[f32]) -> Result<(), Error>;

    /// Runs the model as far as these taps need it. Refuses token ids, types, lengths and taps that it does not have. On a
    /// GPU the latest pass alone has memory: an older one is then refused.
    fn forward(&mut self, input: PackedInput<'_>, taps: &[Tap], mode: Mode<'_>) -> Result<Pass, Error>;

    /// The value at a tap that the pass was asked for; each can be read once.
    fn read(&mut self, pass: &mut Pass, tap: Tap) -> Result<Vec<f32>, Error>;

    /// The logits in evaluation mode: `[B, labels]`, or `[P, vocabulary]` of a masked-language model.
    fn logits(&mut self, input: PackedInput<'_>) -> Result<Vec<f32>, Error> {
        let mut pass = self.forward(input, &[Tap::Logits], Mode::Eval)?;
        self.read(&mut pass, Tap::Logits)
    }

    /// Asks for the logits in evaluation mode, which [`collect`](Self::collect) gives in the order of the requests.
    fn submit(&mut self, input: PackedInput<'_>) -> Result<(), Error>;

    /// The logits of the oldest request, once more than `behind` are open. With 1 the host does not wait for the device's
    /// latest work.
    fn collect(&mut self, behind: usize) -> Result<Option<Vec<f32>>, Error>;

    /// As [`submit`](Self::submit), for [`collect_top`](Self::collect_top): all logits of a vocabulary would take longer to
    /// the host than the pass takes. False, and nothing is run, where the device does not do that and the host has to.
    fn submit_top(&mut self, _input: PackedInput<'_>, _top: &TopK) -> Result<bool, Error> {
        Ok(false)
    }

    /// As [`collect`](Self::collect), of what was submitted for this.
    fn collect_top(&mut self, _behind: usize) -> Result<Option<TopLogits>, Error> {
        Ok(None)
    }

    /// The largest logits of a pass that was asked for them, in the place of [`read`](Self::read). None where the device does
    /// not do that and the host has to.
    fn read_top(&mut self, _pass: &mut Pass, _top: &TopK) -> Result<Option<TopLogits>, Error> {
        Ok(None)
    }

    /// Computes a loss on the pass's logits, adds its terms to the step's, and lets its gradient enter there. False where
    /// the device does not do that and the host has to.
    fn soft_hard_loss(&mut self, _pass: &mut Pass, _loss: SoftHardLoss<'_>) -> Result<bool, Error> {
        Ok(false)
    }

    /// Adds to the gradients of all parameters what follows from those that [entered](Pass::enter) at the pass's taps. The
    /// pass must have been in training mode, with the weights as they are now; it serves once:
    ///
    /// ```compile_fail,E0382
    /// # use nn::{Error, Model, Pass};
    /// # fn twice(model: &mut Model, pass: Pass) -> Result<(), Error> {
    /// model.backward(pass)?;
    /// model.backward(pass)
    /// # }
    /// ```
    fn backward(&mut self, pass: Pass) -> Result<(), Error>;

    /// Starts a training with the optimiser in this state.
    fn begin(&mut self, optimizer: AdamW) -> Result<(), Error>;

    /// Takes an optimiser step along the gradients since the last one, clipped, and sets them to zero. A gradient whose
    /// norm is not finite changes nothing; the report says so.
    fn step(&mut self, number: u64, rates: StepRates) -> Result<(), Error>;

    /// What the steps since the last call found, in their order; a GPU keeps the last `behind` to itself, so that nothing
    /// waits.
    fn reports(&mut self, behind: usize) -> Result<Vec<StepReport>, Error>;

    /// The weights and the optimiser's state: what a checkpoint keeps.
    fn state(&mut self) -> Result<(&Parameters, Cow<'_, AdamW>), Error>;

    /// The gradients since the last step.
    fn gradients(&mut self) -> Result<Gradients, Error>;

    /// Sets the gradients to zero.
    fn clear_gradients(&mut self) -> Result<(), Error>;
}

/// A number that no other session or pass of the process has.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Plans that were made, by the taps that were asked for and whether for training; the latest few.
pub(crate) struct Plans<P>(Vec<(Vec<Tap>, bool, Arc<P>)>);

/// A loss that asks for other taps at each step must not fill the memory with plans.
const PLANS: usize = 16;

impl<P> Plans<P> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// The plan for these taps in any order, made if there is none.
    pub(crate) fn get(
        &mut self,
        taps: &[Tap],
        training: bool,
        make: impl FnOnce(&[Tap]) -> Result<P, Error>,
    ) -> Result<Arc<P>, Error> {
        let mut taps = taps.to_vec();
        taps.sort();
        taps.dedup();
        if let Some((.., plan)) = self.0.iter().find(|(of, mode, _)| *of == taps && *mode == training) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(make(&taps)?);
        if self.0.len() == PLANS {
            self.0.remove(0);
        }
        self.0.push((taps, training, plan.clone()));
        Ok(plan)
    }
}
