//! The interface of both engines, CPU and GPU, for training and inference.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cuda::{Device, Precision, selects_top};
use crate::pass::{Mode, PackedInput, Pass};
use crate::value::Tap;
use crate::{AdamW, Error, Gradients, Parameters};

/// The device of a model, and its precision.
#[derive(Clone, Debug, Default)]
pub enum Compute {
    /// On the CPU, in `f32`.
    #[default]
    Cpu,
    /// On a GPU.
    Cuda {
        /// The GPU.
        device: Device,
        /// The precision.
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

    /// The precision.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Cpu => Precision::F32,
            Self::Cuda { precision, .. } => *precision,
        }
    }

    /// Whether the device selects the `k` largest of so many logits, so that a model's [`submit_top`](Session::submit_top)
    /// leaves the others there.
    pub fn selects_top(&self, k: usize, logits: usize) -> bool {
        matches!(self, Self::Cuda { .. }) && selects_top(k, logits)
    }
}

/// Settings of one optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct StepRates {
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// How the gradient is clipped.
    pub clip: Clip,
}

/// How a step's gradient is limited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// To this L2 norm, over all parameters: `torch.nn.utils.clip_grad_norm_`.
    Norm(f64),
    /// Each element to at most this much, in either direction: `torch.nn.utils.clip_grad_value_`.
    Value(f64),
}

impl Clip {
    /// What gradients are multiplied with, if their norm is this one.
    pub(crate) fn scale(self, gradient_norm: f64) -> f32 {
        match self {
            Self::Norm(most) => (most / (gradient_norm + 1e-6)).min(1.0) as f32,
            Self::Value(_) => 1.0,
        }
    }

    /// The largest norm.
    pub(crate) fn norm(self) -> f32 {
        if let Self::Norm(most) = self { most as f32 } else { f32::INFINITY }
    }

    /// The most that an element may be, in either direction.
    pub(crate) fn limit(self) -> f32 {
        if let Self::Value(most) = self { most as f32 } else { f32::INFINITY }
    }
}

/// The distillation loss: softmax cross-entropy of a pass's logits with a teacher's softened distribution and with
/// labels.
///
/// # Shapes
/// - `target_logits`: `[B, num_labels]`; `labels`: `[B]`, -1 for a row without a label
#[derive(Clone, Copy, Debug)]
pub struct SoftHardLoss<'a> {
    /// The teacher's logits; without them there is no soft term.
    pub target_logits: Option<&'a [f32]>,
    /// The class ids.
    pub labels: &'a [i32],
    /// Weight of the soft term, divided by the number of rows in the step.
    pub soft_weight: f64,
    /// Temperature of the soft term: the logits of both sides are divided by it.
    pub temperature: f64,
    /// Weight of the hard term, divided by the number of labelled rows in the step.
    pub hard_weight: f64,
}

/// A request for the `k` largest logits of each row, and for the others' contribution to the softmax.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// Number of logits to select.
    pub k: usize,
    /// The temperatures at which the others' contribution is computed.
    pub temperatures: Vec<f64>,
}

/// The `k` largest logits of each row. Non-finite logits come first.
///
/// # Shapes
/// - `values`, `columns`: `[B, k]`, descending; equal logits in the order of their columns
/// - `rest`: `[B, 1 + 2 temperatures]`: the largest of the other logits, then for each temperature the sums of `e^x`
///   and of `x e^x` over the others, where `x = (logit - that largest) / temperature`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopLogits {
    /// The selected logits.
    pub values: Vec<f32>,
    /// Their column indices.
    pub columns: Vec<u32>,
    /// The others' contribution to the softmax.
    pub rest: Vec<f32>,
}

/// The result of an optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// The step's number, as given.
    pub step: u64,
    /// Unweighted sums of the soft and the hard term over the step's rows, if the device computes the loss.
    pub losses: [f64; 2],
    /// L2 norm of the gradient before clipping. If it is not finite, the step has changed nothing.
    pub gradient_norm: f64,
}

/// A model on a device: weights, forward and backward passes, and the optimiser.
pub trait Session: Send {
    /// The device and precision.
    fn compute(&self) -> Compute;

    /// The weights; during training, as of the last [`settle`](Self::settle).
    fn parameters(&self) -> &Parameters;

    /// Brings [`parameters`](Self::parameters) up to date and returns them: copies them from a GPU, or applies
    /// postponed weight decay on the CPU.
    fn settle(&mut self) -> Result<&Parameters, Error>;

    /// Replaces all weights.
    ///
    /// # Shapes
    /// - `flat`: that of [`Parameters::flat`]
    fn set_parameters(&mut self, flat: &[f32]) -> Result<(), Error>;

    /// Runs the model as far as these taps need. An error for token ids, types, lengths or taps that the model does not
    /// have. On a GPU, only the latest pass is valid: older ones give [`Error::PassIsOver`].
    fn forward(&mut self, input: PackedInput<'_>, taps: &[Tap], mode: Mode<'_>) -> Result<Pass, Error>;

    /// The value at a tap that was requested from the pass; each can be read once. For its shape see [`Tap`].
    fn read(&mut self, pass: &mut Pass, tap: Tap) -> Result<Vec<f32>, Error>;

    /// The logits in evaluation mode: `[B, labels]`, or `[P, vocabulary]` of a masked-language model.
    fn logits(&mut self, input: PackedInput<'_>) -> Result<Vec<f32>, Error> {
        let mut pass = self.forward(input, &[Tap::Logits], Mode::Eval)?;
        self.read(&mut pass, Tap::Logits)
    }

    /// Starts computing logits in evaluation mode; [`collect`](Self::collect) returns them in the order of submission.
    fn submit(&mut self, input: PackedInput<'_>) -> Result<(), Error>;

    /// The logits of the oldest submission if more than `behind` are outstanding, else `None`. With 1 the host does not
    /// wait for the device's latest work; 0 collects all.
    fn collect(&mut self, behind: usize) -> Result<Option<Vec<f32>>, Error>;

    /// As [`submit`](Self::submit), but for the top k, to be collected by [`collect_top`](Self::collect_top): copying
    /// all logits of a vocabulary to the host would take longer than the pass. Returns false, and runs nothing, if the
    /// device cannot select them; the caller then has to.
    fn submit_top(&mut self, _input: PackedInput<'_>, _top: &TopK) -> Result<bool, Error> {
        Ok(false)
    }

    /// As [`collect`](Self::collect), for [`submit_top`](Self::submit_top).
    fn collect_top(&mut self, _behind: usize) -> Result<Option<TopLogits>, Error> {
        Ok(None)
    }

    /// The top k of a pass's logits, instead of [`read`](Self::read). `None` if the device cannot select them; the
    /// caller then has to.
    fn read_top(&mut self, _pass: &mut Pass, _top: &TopK) -> Result<Option<TopLogits>, Error> {
        Ok(None)
    }

    /// Computes a loss on the pass's logits on the device, adds it to the step's losses and sets its gradient at the
    /// logits. Returns false if the device cannot do this; the caller then has to.
    fn soft_hard_loss(&mut self, _pass: &mut Pass, _loss: SoftHardLoss<'_>) -> Result<bool, Error> {
        Ok(false)
    }

    /// Backpropagates the gradients that were [set](Pass::enter) at the pass's taps, and adds to the gradients of all
    /// parameters. The pass must have been run in training mode with the current weights. It can be used once:
    ///
    /// ```compile_fail,E0382
    /// # use nn::{Error, Model, Pass};
    /// # fn twice(model: &mut Model, pass: Pass) -> Result<(), Error> {
    /// model.backward(pass)?;
    /// model.backward(pass)
    /// # }
    /// ```
    fn backward(&mut self, pass: Pass) -> Result<(), Error>;

    /// From now on passes in training keep only what goes from one stage of so many layers to the next, and compute a stage's
    /// values again when the backward pass comes to it: less memory, at most a forward pass more, and the same bits, but for rounding in what several stages
    /// share: tied word embeddings. `None`
    /// keeps everything. (Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost".) On a GPU a pass that is
    /// asked for other taps than the logits keeps everything.
    fn recompute(&mut self, layers: Option<usize>);

    /// Bytes that a training takes besides the weights and the buffers of passes: gradients, moments and, if it keeps one,
    /// the average of the weights. `words` is the number of different words in its batches: a CPU has no memory for the
    /// others.
    fn training_bytes(&self, words: usize, averages: bool) -> usize;

    /// Bytes of the buffers of passes over these batches, in training mode and in evaluation mode; of a batch only the
    /// offsets and the positions are read. Buffers are kept from one pass to the next, so they are as large as the
    /// largest needs.
    fn pass_bytes(
        &mut self,
        training: &[PackedInput<'_>],
        evaluation: &[PackedInput<'_>],
        taps: &[Tap],
    ) -> Result<usize, Error>;

    /// Starts training, with the optimiser in this state.
    fn begin(&mut self, optimizer: AdamW) -> Result<(), Error>;

    /// Takes an optimiser step with the clipped gradients accumulated since the last one, and zeroes them. If their
    /// norm is not finite the weights do not change; the report has the norm. Frozen parameters do not count for it.
    fn step(&mut self, number: u64, rates: StepRates) -> Result<(), Error>;

    /// The results of the steps since the last call, in order. A GPU holds back the last `behind` of them, so that the
    /// host need not wait.
    fn reports(&mut self, behind: usize) -> Result<Vec<StepReport>, Error>;

    /// Exchanges the weights and their moving average, if the optimiser keeps one; the same once more brings them back.
    /// There must be no step in between.
    fn swap_average(&mut self) -> Result<(), Error>;

    /// The weights and the optimiser's state, for a checkpoint.
    fn state(&mut self) -> Result<(&Parameters, Cow<'_, AdamW>), Error>;

    /// The gradients accumulated since the last step.
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
pub(crate) struct Plans<P> {
    kept: Vec<(Vec<Tap>, bool, Arc<P>)>,
    /// Layers of a stage, if passes in training compute their values twice.
    pub(crate) recomputes: Option<usize>,
}

/// A loss that asks for other taps at each step must not fill the memory with plans.
const PLANS: usize = 16;

impl<P> Plans<P> {
    pub(crate) fn new() -> Self {
        Self { kept: Vec::new(), recomputes: None }
    }

    /// Makes plans of stages of so many layers from now on: see [`Session::recompute`].
    pub(crate) fn recompute(&mut self, layers: Option<usize>) {
        if self.recomputes != layers {
            *self = Self { kept: Vec::new(), recomputes: layers };
        }
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
        if let Some((.., plan)) = self.kept.iter().find(|(of, mode, _)| *of == taps && *mode == training) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(make(&taps)?);
        if self.kept.len() == PLANS {
            self.kept.remove(0);
        }
        self.kept.push((taps, training, plan.clone()));
        Ok(plan)
    }
}
