//! The engine on the device: an encoder's forward and backward passes over packed batches, and its optimiser.
//!
//! A batch goes through the model in one piece. Launches are asked for in order and nothing waits for them: the host
//! learns logits and hidden states when it asks for them, and losses and norms of a step while the next one runs.
//! Memory is taken when a batch is larger than any before; otherwise a step allocates nothing.
//!
//! As on the CPU, the last layer computes the first token of each sequence alone, unless all hidden states are asked for,
//! and the dropout masks are the CPU's.

mod backward;
mod batch;
mod forward;
mod optimizer;
mod pass;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::Arc;

use half::bf16;

pub use optimizer::{StepRates, StepReport};

use super::device::{Buffer, Device, LateReads, Precision, Ptr, Staging};
use super::kernels;
use crate::encoder::{Dropouts, check_input};
use crate::{
    Capture, DropoutRng, EncoderConfig, EncoderOutput, Error, Gradients, Head, Layout, Mode, PackedInput, Parameters,
};
use batch::BatchMemory;
use forward::Run;
use optimizer::Optimizer;
use pass::Pass;
use weights::Weights;

/// The longest sequence that attention's kernels take.
const LONGEST: usize = 4096;

/// Values of a head for which attention runs on tensor cores.
const FAST_HEAD_SIZES: [usize; 3] = [32, 64, 128];

/// An encoder's engine with its weights, all on one device.
pub struct CudaEncoder {
    device: Device,
    config: EncoderConfig,
    precision: Precision,
    weights: Weights,
    /// All that a pass keeps.
    arena: Buffer,
    batch: BatchMemory,
    targets: Targets,
    optimizer: Optimizer,
    /// Logits that were asked for.
    logits: LateReads,
    /// The last forward pass.
    pass: Option<Pass>,
    /// Its masks if it was for training, until its backward pass.
    dropout: Option<DropoutRng>,
    /// Whether the gradient in its logits is there.
    has_d_logits: bool,
    said_slow: bool,
}

/// What a loss compares the last forward pass with.
///
/// # Shapes
/// - `teacher_logits`: `[B, num_labels]`; `labels`: `[B]`, -1 where a row has none
#[derive(Clone, Copy, Debug)]
pub struct SoftHardLoss<'a> {
    /// What the teacher said; none leaves the soft term out.
    pub teacher_logits: Option<&'a [f32]>,
    /// The rows' classes.
    pub labels: &'a [i32],
    /// The soft term's weight over the step's rows.
    pub soft_weight: f64,
    /// What both models' logits are divided by in the soft term.
    pub temperature: f64,
    /// The hard term's weight over the step's labelled rows.
    pub hard_weight: f64,
}

/// Labels and teacher's logits on their way to the device.
struct Targets {
    staging: Staging,
    buffer: Buffer,
    words: Vec<u32>,
}

impl CudaEncoder {
    /// An engine for encoders of this configuration; all weights are zero. Refuses a masked-language model.
    pub fn new(device: &Device, config: &EncoderConfig, precision: Precision) -> Result<Self, Error> {
        config.validate()?;
        if config.head == Head::MaskedLm {
            return Err(Error::MaskedLmOnGpu);
        }
        Ok(Self {
            device: device.clone(),
            config: config.clone(),
            precision,
            weights: Weights::new(device, precision, Layout::new(config))?,
            arena: Buffer::empty(device),
            batch: BatchMemory::new(device),
            targets: Targets { staging: Staging::new(device), buffer: Buffer::empty(device), words: Vec::new() },
            optimizer: Optimizer::new(device)?,
            logits: LateReads::new(device),
            pass: None,
            dropout: None,
            has_d_logits: false,
            said_slow: false,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The layout of parameters, gradients and moments as the host sees them.
    pub fn layout(&self) -> &Arc<Layout> {
        self.weights.layout.host()
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Its number formats.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of the device's memory that it holds.
    pub fn device_bytes(&self) -> usize {
        self.weights.bytes() + self.arena.bytes()
    }

    /// Sets the weights.
    pub fn upload(&mut self, parameters: &Parameters) -> Result<(), Error> {
        self.weights.upload(parameters)
    }

    /// Reads the weights, waiting for all steps asked for.
    pub fn download(&self, parameters: &mut Parameters) -> Result<(), Error> {
        self.weights.download(parameters)
    }

    /// Reads the gradients.
    pub fn gradients(&self) -> Result<Gradients, Error> {
        let mut gradients = Gradients::zeros(self.layout().clone());
        self.weights.download_gradients(gradients.flat_mut())?;
        Ok(gradients)
    }

    /// Steps taken, first and second moments: what a checkpoint keeps.
    pub fn optimizer_state(&self) -> Result<(u64, Vec<f32>, Vec<f32>), Error> {
        let mut moments = [vec![0.0; self.layout().len()], vec![0.0; self.layout().len()]];
        for (index, moment) in moments.iter_mut().enumerate() {
            self.weights.download_moment(index, moment)?;
        }
        let [first, second] = moments;
        Ok((self.optimizer.steps, first, second))
    }

    /// Sets what [`optimizer_state`](Self::optimizer_state) gave, on whatever device.
    pub fn restore_optimizer(&mut self, steps: u64, first: &[f32], second: &[f32]) -> Result<(), Error> {
        let expected = self.layout().len();
        if first.len() != expected || second.len() != expected {
            return Err(Error::Batch(format!("{} and {} moments for {expected}", first.len(), second.len())));
        }
        self.optimizer.steps = steps;
        self.weights.upload_moment(0, first)?;
        self.weights.upload_moment(1, second)
    }

    /// Asks for a pass over the encoder and its head.
    ///
    /// Refuses token ids, types and lengths that the model does not have.
    pub fn forward(&mut self, input: PackedInput<'_>, capture: Capture, mode: Mode<'_>) -> Result<(), Error> {
        // Until this pass is through, there is none to go back from.
        (self.pass, self.dropout, self.has_d_logits) = (None, None, false);
        check_input(&self.config, input)?;
        let dropout = match mode {
            Mode::Train(rng) => Some(*rng),
            Mode::Eval => None,
        };
        let training = dropout.is_some();
        if training {
            self.weights.prepare_training()?;
        }
        self.say_if_attention_is_slow();
        let batch = self.batch.send(&self.config, input, training)?;
        if batch.longest > LONGEST {
            let longest = batch.longest;
            return Err(Error::Batch(format!(
                "a row has {longest} tokens, the GPU's kernels take at most {LONGEST}: lower --max-length, or give \
                 --device cpu"
            )));
        }
        let plan = |base| Pass::plan(&self.config, self.precision, batch, training, capture.hidden_states, base);
        let (_, bytes) = plan(Ptr::NULL);
        self.arena.reserve(room_for(bytes))?;
        let (pass, _) = plan(self.arena.ptr());
        let dropouts = dropout.as_ref().map(|rng| Dropouts::new(&self.config, rng));
        self.run(&pass, dropouts.as_ref()).forward()?;
        (self.pass, self.dropout) = (Some(pass), dropout);
        Ok(())
    }

    /// Reads the last forward pass's logits, and its hidden states if they were captured.
    pub fn output(&self) -> Result<EncoderOutput, Error> {
        let pass = self.pass.as_ref().ok_or(Error::NoForward)?;
        let mut logits = vec![0.0; pass.batch.rows * self.config.num_labels];
        self.device.download(pass.head.logits, &mut logits)?;
        let mut hidden_states = Vec::new();
        if pass.all_rows {
            let len = pass.batch.tokens * self.config.hidden_size;
            for &place in &pass.hidden {
                hidden_states.push(self.read_activations(place, len)?);
            }
        }
        Ok(EncoderOutput { logits, hidden_states })
    }

    /// Asks for a pass in evaluation mode whose logits [`collect`](Self::collect) will give.
    pub fn submit(&mut self, input: PackedInput<'_>) -> Result<(), Error> {
        self.forward(input, Capture::LOGITS, Mode::Eval)?;
        let pass = self.pass.as_ref().ok_or(Error::NoForward)?;
        self.logits.request(0, pass.head.logits, pass.batch.rows * self.config.num_labels)
    }

    /// The logits of the oldest pass submitted, once more than `behind` of them are to be collected. With 1 the host
    /// does not wait for the device's latest work.
    pub fn collect(&mut self, behind: usize) -> Result<Option<Vec<f32>>, Error> {
        let words = self.logits.take(behind)?;
        Ok(words.map(|(_, words)| words.into_iter().map(f32::from_bits).collect()))
    }

    /// Computes a loss on the last forward pass, adds its terms to the step's, and leaves its gradient in the logits for
    /// [`backward`](Self::backward).
    pub fn soft_hard_loss(&mut self, loss: SoftHardLoss<'_>) -> Result<(), Error> {
        let pass = self.pass.as_ref().filter(|_| self.dropout.is_some()).ok_or(Error::NoForward)?;
        let (rows, classes) = (pass.batch.rows, self.config.num_labels);
        let teacher = loss.teacher_logits.unwrap_or_default();
        if loss.labels.len() != rows || (loss.teacher_logits.is_some() && teacher.len() != rows * classes) {
            let found = (loss.labels.len(), teacher.len());
            return Err(Error::Batch(format!("{} labels and {} teacher's logits for {rows} rows", found.0, found.1)));
        }
        if let Some(label) = loss.labels.iter().find(|&&label| label >= classes as i32) {
            return Err(Error::Batch(format!("label {label}, but there are {classes} classes, counted from 0")));
        }
        let Targets { staging, buffer, words } = &mut self.targets;
        words.clear();
        words.extend(teacher.iter().map(|logit| logit.to_bits()));
        let labels = words.len().next_multiple_of(64);
        words.resize(labels, 0);
        words.extend(loss.labels.iter().map(|label| label.cast_unsigned()));
        buffer.reserve((words.len() * 4).next_power_of_two())?;
        staging.send(buffer.ptr(), words)?;
        kernels::soft_hard_loss(
            &self.device,
            self.precision,
            pass.head.logits,
            if loss.teacher_logits.is_some() { buffer.ptr() } else { Ptr::NULL },
            buffer.ptr().offset_bytes(labels * 4),
            loss.soft_weight as f32,
            loss.temperature as f32,
            loss.hard_weight as f32,
            rows,
            classes,
            pass.head.d_logits,
            pass.head.row_losses,
        )?;
        kernels::sum_rows(&self.device, pass.head.row_losses, rows, 2, self.optimizer.losses())?;
        self.has_d_logits = true;
        Ok(())
    }

    /// Sets the gradient of a loss in the last forward pass's logits, for losses that are computed on the host.
    ///
    /// # Shapes
    /// - `d_logits`: `[B, num_labels]`
    pub fn set_d_logits(&mut self, d_logits: &[f32]) -> Result<(), Error> {
        let pass = self.pass.as_ref().filter(|_| self.dropout.is_some()).ok_or(Error::NoForward)?;
        let expected = pass.batch.rows * self.config.num_labels;
        if d_logits.len() != expected {
            return Err(Error::Batch(format!("{} gradients for {expected} logits", d_logits.len())));
        }
        match self.precision {
            Precision::F32 | Precision::Tf32 => self.device.upload(pass.head.d_logits, d_logits)?,
            Precision::Bf16 => {
                let rounded: Vec<u16> = d_logits.iter().map(|&d| bf16::from_f32(d).to_bits()).collect();
                self.device.upload(pass.head.d_logits, &rounded)?;
            }
        }
        self.has_d_logits = true;
        Ok(())
    }

    /// Adds the gradient of the loss to the gradients of all parameters. The last forward pass must have been in training
    /// mode and the gradient in its logits set; each forward pass serves one backward pass.
    pub fn backward(&mut self) -> Result<(), Error> {
        let rng = self.dropout.take().filter(|_| self.has_d_logits).ok_or(Error::NoForward)?;
        let pass = self.pass.take().ok_or(Error::NoForward)?;
        let dropouts = Dropouts::new(&self.config, &rng);
        self.run(&pass, Some(&dropouts)).backward()
    }

    /// Sets the gradients to zero.
    pub fn clear_gradients(&mut self) -> Result<(), Error> {
        self.weights.clear_gradients()
    }

    /// Takes an optimiser step along the gradients, clipped, and sets them to zero. A step whose gradient is not finite
    /// changes nothing; its report says so.
    pub fn step(&mut self, number: u64, rates: StepRates) -> Result<(), Error> {
        self.weights.prepare_training()?;
        self.optimizer.step(&self.weights, number, rates)
    }

    /// What all steps but the last `behind` found, each reported once, in their order. With 1 the host does not wait
    /// for the device's latest work.
    pub fn reports(&mut self, behind: usize) -> Result<Vec<StepReport>, Error> {
        self.optimizer.reports(behind)
    }

    /// Says so, once a training, where no fast kernel of attention takes the model's heads.
    fn say_if_attention_is_slow(&mut self) {
        let head_size = self.config.head_size();
        let slow = self.precision == Precision::Bf16 && !FAST_HEAD_SIZES.contains(&head_size);
        if slow && !std::mem::replace(&mut self.said_slow, true) {
            tracing::warn!(
                "attention runs without tensor cores, and slower: heads of {head_size} values; there are kernels for \
                 {FAST_HEAD_SIZES:?}"
            );
        }
    }

    fn run<'a>(&'a self, pass: &'a Pass, dropouts: Option<&'a Dropouts>) -> Run<'a> {
        let Self { device, config, precision, weights, .. } = self;
        Run { device, config, precision: *precision, weights, pass, dropouts }
    }

    fn read_activations(&self, from: Ptr, len: usize) -> Result<Vec<f32>, Error> {
        if self.precision != Precision::Bf16 {
            let mut values = vec![0.0f32; len];
            self.device.download(from, &mut values)?;
            return Ok(values);
        }
        let mut halves = vec![0u16; len];
        self.device.download(from, &mut halves)?;
        Ok(halves.into_iter().map(|half| bf16::from_bits(half).to_f32()).collect())
    }
}

/// Somewhat more than asked for, so that batches of like sizes do not make a buffer grow again and again.
fn room_for(bytes: usize) -> usize {
    bytes.next_multiple_of((bytes.next_power_of_two() / 16).max(1 << 16))
}
