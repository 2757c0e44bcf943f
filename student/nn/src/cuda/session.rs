//! The GPU engine's session: passes over packed batches, and optimiser steps, all on one device.
//!
//! A batch runs through the program in one piece. Launches are enqueued in order without waiting: the host waits for
//! values at taps when it reads them, and reads losses and norms of a step while the next one runs. Memory is allocated
//! only when a batch is larger than any before. The dropout masks are the same as on the CPU.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::batch::{Batch, BatchMemory};
use super::device::{Buffer, Device};
use super::op;
use super::op::attention::launch::{LONGEST_AT_SPEED, TILE_HEAD_SIZES, longest};
use super::op::rows::launch::{GatherRows, ScatterAddRows};
use super::op::sums::launch::SumRows;
use super::op::top_k::launch::selects_top;
use super::op::top_k::run::TopMemory;
use super::operand::{Matrix, Number, Precision, Ptr, Vector};
use super::optimizer::Optimizer;
use super::put_off::PutOff;
use super::run::Run;
use super::transfer::{LateReads, Staging};
use super::walk::{self, CudaHabits, partial_bytes};
use super::weights::Weights;
use crate::op::Kind;
use crate::pass::Tapped;
use crate::program::Program;
use crate::program::places::Plan;
use crate::program::trained::{BackwardEnd, backward_ends};
use crate::session::{Plans, Session, SoftHardLoss, next_number};
use crate::value::{Rows, Tap, Value, ValueId};
use crate::{
    AdamW, Compute, DropoutRng, EncoderConfig, Error, Gradients, Layout, Mode, PackedInput, Parameters, Pass, Slot,
    StepRates, StepReport, TopK, TopLogits,
};

/// A model at work on one device, which has its weights.
pub(crate) struct CudaSession {
    device: Device,
    config: EncoderConfig,
    precision: Precision,
    /// As of the last time that they were read back.
    parameters: Parameters,
    program: Program,
    /// Of each stage of a pass: one, unless what it computes is computed again for its backward pass.
    plans: Plans<Vec<Plan>>,
    weights: Weights,
    /// All that a pass keeps.
    arena: Buffer,
    batch: BatchMemory,
    /// Labels and teacher's logits on their way to the device.
    targets: Staging,
    optimizer: Optimizer,
    put_off: PutOff,
    /// Logits that were asked for.
    logits: LateReads,
    /// The largest of them, where those alone were asked for.
    top: TopMemory,
    /// The number of the last pass, whose the memory is.
    pass: u64,
    /// How often the weights were changed.
    changes: u64,
    said_slow: bool,
    said_long: bool,
}

/// Where a pass stands in the session's memory.
struct CudaPass {
    /// No other pass of any model has it.
    number: u64,
    stages: Arc<Vec<Plan>>,
    /// Of each stage.
    places: Vec<Vec<Ptr>>,
    /// What a stage hands to later ones, and where its gradient comes back.
    handed: HashMap<ValueId, [Ptr; 2]>,
    batch: Box<Batch>,
    masks: Option<DropoutRng>,
    /// Whether the device has put the gradient in the logits in its place.
    has_d_logits: bool,
    /// How often the weights had been changed.
    changes: u64,
}

impl CudaSession {
    /// A model of this configuration with these weights.
    pub(crate) fn new(
        device: &Device,
        config: &EncoderConfig,
        precision: Precision,
        parameters: Parameters,
    ) -> Result<Self, Error> {
        config.validate()?;
        let program = config.program();
        let mut weights = Weights::new(device, precision, parameters.layout().clone(), &program)?;
        weights.upload(&parameters)?;
        let untrained = AdamW::new(parameters.layout().clone(), 0.0);
        Ok(Self {
            device: device.clone(),
            config: config.clone(),
            precision,
            parameters,
            put_off: PutOff::new(device, &weights),
            optimizer: Optimizer::new(device, &weights, &untrained)?,
            weights,
            program,
            plans: Plans::new(),
            arena: Buffer::empty(device),
            batch: BatchMemory::new(device),
            targets: Staging::new(device),
            logits: LateReads::new(device),
            top: TopMemory::new(device),
            pass: 0,
            changes: 0,
            said_slow: false,
            said_long: false,
        })
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.weights.layout.host
    }

    fn stages(&mut self, taps: &[Tap], training: bool) -> Result<Arc<Vec<Plan>>, Error> {
        // The memory of an earlier stage is gone when its taps are read.
        let layers = self.plans.recomputes.filter(|_| training && *taps == [Tap::Logits]);
        let (program, layout, precision) = (&self.program, &self.weights.layout.host, self.precision);
        self.plans.get(taps, training, |taps| {
            let mut program = program.demanded(taps, training)?;
            program.join(layout, |_, _| true);
            Ok(program
                .stages(layers)
                .into_iter()
                .map(|program| Plan::new(program, &CudaHabits(precision), training))
                .collect())
        })
    }

    /// The last stage of a pass, if its memory is still its own.
    fn run<'a>(&'a self, pass: &'a CudaPass) -> Result<Run<'a>, Error> {
        self.run_stage(pass, pass.stages.len() - 1)
    }

    fn run_stage<'a>(&'a self, pass: &'a CudaPass, stage: usize) -> Result<Run<'a>, Error> {
        if pass.number != self.pass {
            return Err(Error::PassIsOver);
        }
        let Self { device, precision, weights, .. } = self;
        let CudaPass { stages, places, batch, masks, .. } = pass;
        let (plan, places) = (&stages[stage], &places[stage]);
        Ok(Run { device, precision: *precision, weights, plan, places, batch, masks: masks.as_ref() })
    }

    /// Forward through a stage of a pass, from what earlier ones have handed over.
    fn forward_stage(&self, pass: &CudaPass, stage: usize) -> Result<(), Error> {
        let run = self.run_stage(pass, stage)?;
        for value in &run.plan.program.given {
            let to = run.value(*value);
            copy(&run, Matrix { at: pass.handed[value][0], ..to }, to)?;
        }
        walk::forward(&run)?;
        for value in &run.plan.program.handed {
            let from = run.value(*value);
            copy(&run, from, Matrix { at: pass.handed[value][0], ..from })?;
        }
        Ok(())
    }

    /// Where the logits of a pass stand that was asked for them.
    fn logits_of(&self, pass: &Pass) -> Result<Matrix, Error> {
        let pass: &CudaPass = pass.kept()?;
        let mut taps = pass.last().program.taps();
        let (_, op) = taps.find(|(tap, _)| *tap == Tap::Logits).ok_or(Error::NoForward)?;
        Ok(self.run(pass)?.value(op.inputs[0].value))
    }

    /// [`Session::backward`] in ranges of the list that begin at these operations, in ascending order; each range's weights'
    /// gradients are finished before the range in front of it runs.
    fn backward_in_ranges(&mut self, pass: Pass, cuts: &[usize]) -> Result<(), Error> {
        let (taps, pass) = pass.into_kept::<CudaPass>()?;
        if pass.masks.is_none() {
            return Err(Error::NoForward);
        }
        if pass.changes != self.changes {
            return Err(Error::StalePass);
        }
        let run = self.run(&pass)?;
        let mut entered = Vec::with_capacity(taps.len());
        for (tapped, (tap, op)) in taps.iter().zip(pass.last().program.taps()) {
            entered.push(tapped.gradient.is_some() || tap == Tap::Logits && pass.has_d_logits);
            let Some(gradient) = &tapped.gradient else { continue };
            let (to, columns) = (run.gradient(op.out), op.inputs[0]);
            if columns.width == to.width {
                self.device.write(to, gradient)?;
                continue;
            }
            let mut whole = vec![0.0; to.rows * to.width];
            for (row, gradient) in whole.chunks_exact_mut(to.width).zip(gradient.chunks_exact(columns.width)) {
                row[columns.first..columns.first + columns.width].copy_from_slice(gradient);
            }
            self.device.write(to, &whole)?;
        }
        if !entered.contains(&true) {
            return Err(Error::NoGradient);
        }
        let programs = pass.stages.iter().map(|stage| &stage.program);
        let ends = backward_ends(programs, self.layout(), self.optimizer.rate_factors());
        let last = pass.stages.len() - 1;
        let mut returned: HashSet<ValueId> = HashSet::new();
        for (number, (stage, end_of_stage)) in pass.stages.iter().zip(ends).enumerate().rev() {
            let Some(BackwardEnd { first, earlier }) = end_of_stage else { break };
            let run = self.run_stage(&pass, number)?;
            if number < last {
                self.forward_stage(&pass, number)?;
            }
            for value in &stage.program.handed {
                let to = run.gradient(*value);
                copy(&run, Matrix { at: pass.handed[value][1], ..to }, to)?;
            }
            let mut end = stage.program.ops.len();
            let cuts = if number == last { cuts } else { &[] };
            for &start in cuts.iter().rev().filter(|cut| **cut > first).chain([&first]) {
                walk::backward(&run, start.min(end)..end, &mut entered)?;
                end = start.min(end);
            }
            for value in stage.program.given.iter().filter(|_| earlier) {
                let from = run.gradient(*value);
                let to = Matrix { at: pass.handed[value][1], ..from };
                match returned.insert(*value) {
                    true => copy(&run, from, to)?,
                    false => ScatterAddRows { from, which: run.all(from), to }.launch(run.device)?,
                }
            }
        }
        Ok(())
    }

    /// Says so, once, where no fast kernel of attention takes the model's heads.
    fn say_if_attention_is_slow(&mut self) {
        let head_size = self.config.head_size();
        let slow = self.precision == Precision::Bf16 && !TILE_HEAD_SIZES.contains(&head_size);
        if slow && !std::mem::replace(&mut self.said_slow, true) {
            tracing::warn!(
                "attention runs without tensor cores, and slower: heads of {head_size} values; there are kernels for \
                 {TILE_HEAD_SIZES:?}"
            );
        }
    }

    /// Refuses a row of more tokens than attention can take here, and says once where it is slow for their number.
    fn check_longest(&mut self, tokens: usize) -> Result<(), Error> {
        let (head_size, precision) = (self.config.head_size(), self.precision);
        let most = longest(precision.number(), head_size, self.device.block_shared_bytes());
        let Some(most) = most.filter(|_| tokens > LONGEST_AT_SPEED) else { return Ok(()) };
        let other = match TILE_HEAD_SIZES.contains(&head_size) {
            true => "; --precision bf16 has no such limit",
            false => "",
        };
        if tokens > most {
            return Err(Error::Batch(format!(
                "a row has {tokens} tokens, the GPU's kernels take at most {most} in {precision} with heads of {head_size} \
                 values{other}: lower --max-length, or give --device cpu"
            )));
        }
        if !std::mem::replace(&mut self.said_long, true) {
            tracing::warn!(
                "attention is slower for rows of more than {LONGEST_AT_SPEED} tokens, as one of {tokens} is here{other}"
            );
        }
        Ok(())
    }
}

impl Session for CudaSession {
    fn compute(&self) -> Compute {
        Compute::Cuda { device: self.device.clone(), precision: self.precision }
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn settle(&mut self) -> Result<&Parameters, Error> {
        self.put_off.settle(&self.weights)?;
        self.weights.download(&mut self.parameters)?;
        Ok(&self.parameters)
    }

    fn set_parameters(&mut self, flat: &[f32]) -> Result<(), Error> {
        self.changes += 1;
        self.parameters.flat_mut().copy_from_slice(flat);
        self.put_off.forget();
        self.weights.upload(&self.parameters)
    }

    fn forward(&mut self, input: PackedInput<'_>, taps: &[Tap], mode: Mode<'_>) -> Result<Pass, Error> {
        input.check(&self.config)?;
        let masks = if let Mode::Train(masks) = mode { Some(*masks) } else { None };
        let training = masks.is_some();
        let stages = self.stages(taps, training)?;
        if training {
            self.weights.prepare_training()?;
            self.put_off.look_up(&self.weights, input.input_ids)?;
        } else {
            self.put_off.settle(&self.weights)?;
        }
        self.say_if_attention_is_slow();
        // The memory is no longer that of the pass before.
        self.pass = next_number();
        let batch = Box::new(self.batch.send(&self.config, input, training)?);
        self.check_longest(batch.longest)?;
        let count = |rows: Rows| batch.count(rows);
        let Room { handed, places, bytes } = Room::of(&stages, training, self.precision, count);
        self.arena.reserve(room_for(bytes))?;
        let at = |offset: usize| self.arena.ptr().offset_bytes(offset);
        let handed = handed.into_iter().map(|(value, offsets)| (value, offsets.map(at))).collect();
        let places = places.into_iter().map(|of_stage| of_stage.into_iter().map(at).collect()).collect();
        let (number, changes) = (self.pass, self.changes);
        let pass = CudaPass { number, stages, places, handed, batch, masks, has_d_logits: false, changes };
        (0..pass.stages.len()).try_for_each(|stage| self.forward_stage(&pass, stage))?;
        let taps = pass.last().program.taps().map(|(tap, op)| {
            let value = pass.last().program.values[op.out.0];
            Tapped::new(tap, pass.batch.count(value.rows), value.width, false)
        });
        Ok(Pass { taps: taps.collect(), kept: Some(Box::new(pass)) })
    }

    fn read(&mut self, pass: &mut Pass, tap: Tap) -> Result<Vec<f32>, Error> {
        pass.read(tap)?;
        let pass: &CudaPass = pass.kept()?;
        let run = self.run(pass)?;
        let Some((_, op)) = pass.last().program.taps().find(|(other, _)| *other == tap) else { return Ok(Vec::new()) };
        let columns = op.inputs[0];
        let whole = run.value(columns.value);
        let values = self.device.read(whole)?;
        if columns.width == whole.width {
            return Ok(values);
        }
        let rows = values.chunks_exact(whole.width);
        Ok(rows.flat_map(|row| &row[columns.first..columns.first + columns.width]).copied().collect())
    }

    fn soft_hard_loss(&mut self, pass: &mut Pass, loss: SoftHardLoss<'_>) -> Result<bool, Error> {
        pass.tapped(Tap::Logits)?.gradient = None;
        let pass: &mut CudaPass = pass.kept_mut()?;
        let program = &pass.stages[pass.stages.len() - 1].program;
        let tap = program.ops.iter().position(|op| matches!(op.kind, Kind::Tap(Tap::Logits)));
        let index = tap.filter(|_| pass.masks.is_some()).ok_or(Error::NoForward)?;
        let op = &program.ops[index];
        let (rows, classes) = (pass.batch.count(program.values[op.out.0].rows), self.config.outputs());
        let teacher = loss.target_logits.unwrap_or_default();
        if loss.labels.len() != rows || (loss.target_logits.is_some() && teacher.len() != rows * classes) {
            let found = (loss.labels.len(), teacher.len());
            return Err(Error::Batch(format!("{} labels and {} teacher's logits for {rows} rows", found.0, found.1)));
        }
        if let Some(label) = loss.labels.iter().find(|&&label| label >= classes as i32) {
            return Err(Error::Batch(format!("label {label}, but there are {classes} classes, counted from 0")));
        }
        self.targets.begin(2, rows * classes)?;
        let logits = self.targets.put(teacher.iter().map(|logit| logit.to_bits()));
        let labels = self.targets.put(loss.labels.iter().map(|label| label.cast_unsigned()));
        self.targets.send()?;
        let run = self.run(pass)?;
        let row_losses = run.state(index, 0, [rows, 2], Number::F32);
        op::loss::launch::SoftHardLoss {
            student: run.value(op.inputs[0].value),
            teacher: loss.target_logits.map(|_| Matrix::new(Number::F32, logits.at, [rows, classes])),
            labels: Some(labels),
            soft_weight: loss.soft_weight as f32,
            temperature: loss.temperature as f32,
            hard_weight: loss.hard_weight as f32,
            d_logits: run.gradient(op.out),
            row_losses,
        }
        .launch(&self.device)?;
        SumRows { x: row_losses, sums: Vector { at: self.optimizer.losses(), len: 2 } }.launch(&self.device)?;
        pass.has_d_logits = true;
        Ok(true)
    }

    fn backward(&mut self, pass: Pass) -> Result<(), Error> {
        self.backward_in_ranges(pass, &[])
    }

    fn recompute(&mut self, layers: Option<usize>) {
        self.plans.recompute(layers);
    }

    fn training_bytes(&self, _words: usize, averages: bool) -> usize {
        4 * self.weights.layout.len * (3 + usize::from(averages))
    }

    fn pass_bytes(
        &mut self,
        training: &[PackedInput<'_>],
        evaluation: &[PackedInput<'_>],
        taps: &[Tap],
    ) -> Result<usize, Error> {
        let mut most = 0;
        for (batches, trains) in [(training, true), (evaluation, false)] {
            let stages = self.stages(taps, trains)?;
            for batch in batches {
                let count = |rows: Rows| match rows {
                    Rows::Tokens => batch.starts.last().map_or(0, |end| (end - batch.starts[0]) as usize),
                    Rows::First => batch.starts.len() - 1,
                    Rows::Positions => batch.positions.map_or(0, <[u32]>::len),
                };
                most = most.max(Room::of(&stages, trains, self.precision, count).bytes);
            }
        }
        Ok(room_for(most))
    }

    fn begin(&mut self, optimizer: AdamW) -> Result<(), Error> {
        optimizer.check(self.layout())?;
        let (_, first, second) = optimizer.state();
        // Nothing is left of a training before.
        self.optimizer = Optimizer::new(&self.device, &self.weights, &optimizer)?;
        // Rows that this session has looked up stay so: whether a row is put off changes no bits.
        self.put_off.look_up(&self.weights, &optimizer.looked_up())?;
        self.weights.upload_average(optimizer.average())?;
        if optimizer.average().is_some() {
            // Every row has an average that follows it in each step.
            let all: Vec<u32> = (0..self.weights.shape(Slot::WordEmbeddings)[0] as u32).collect();
            self.put_off.look_up(&self.weights, &all)?;
        }
        self.weights.upload_moment(0, first)?;
        self.weights.upload_moment(1, second)?;
        self.clear_gradients()
    }

    fn step(&mut self, number: u64, rates: StepRates) -> Result<(), Error> {
        self.changes += 1;
        self.weights.prepare_training()?;
        self.optimizer.step(&self.weights, &mut self.put_off, number, rates)
    }

    fn reports(&mut self, behind: usize) -> Result<Vec<StepReport>, Error> {
        self.optimizer.reports(behind)
    }

    fn gradients(&mut self) -> Result<Gradients, Error> {
        let mut gradients = Gradients::zeros(self.layout().clone());
        self.weights.download_gradients(gradients.flat_mut())?;
        Ok(gradients)
    }

    fn clear_gradients(&mut self) -> Result<(), Error> {
        self.weights.clear_gradients()
    }

    fn swap_average(&mut self) -> Result<(), Error> {
        let Some(average) = self.weights.download_average()? else { return Ok(()) };
        let weights = self.settle()?.flat().to_vec();
        self.weights.upload_average(Some(&weights))?;
        self.set_parameters(&average)
    }

    fn state(&mut self) -> Result<(&Parameters, Cow<'_, AdamW>), Error> {
        let layout = self.layout().clone();
        let mut moments = [vec![0.0; layout.len()], vec![0.0; layout.len()]];
        for (index, moment) in moments.iter_mut().enumerate() {
            self.weights.download_moment(index, moment)?;
        }
        let average = self.weights.download_average()?;
        let optimizer = self.optimizer.restore(layout, moments, average);
        Ok((self.settle()?, Cow::Owned(optimizer.expect("moments of the layout"))))
    }

    fn submit(&mut self, input: PackedInput<'_>) -> Result<(), Error> {
        let pass = self.forward(input, &[Tap::Logits], Mode::Eval)?;
        let logits = self.logits_of(&pass)?;
        self.logits.request(0, logits.at, logits.rows * logits.width)
    }

    fn collect(&mut self, behind: usize) -> Result<Option<Vec<f32>>, Error> {
        let words = self.logits.take(behind)?;
        Ok(words.map(|(_, words)| words.into_iter().map(f32::from_bits).collect()))
    }

    fn submit_top(&mut self, input: PackedInput<'_>, top: &TopK) -> Result<bool, Error> {
        if !selects_top(top.k, self.config.outputs()) {
            return Ok(false);
        }
        let pass = self.forward(input, &[Tap::Logits], Mode::Eval)?;
        let logits = self.logits_of(&pass)?;
        self.top.submit(logits, top)?;
        Ok(true)
    }

    fn collect_top(&mut self, behind: usize) -> Result<Option<TopLogits>, Error> {
        self.top.collect(behind)
    }

    fn read_top(&mut self, pass: &mut Pass, top: &TopK) -> Result<Option<TopLogits>, Error> {
        if !selects_top(top.k, self.config.outputs()) {
            return Ok(None);
        }
        pass.read(Tap::Logits)?;
        let logits = self.logits_of(pass)?;
        self.top.read(logits, top).map(Some)
    }
}

/// Copies a matrix on the device.
fn copy(run: &Run<'_>, from: Matrix, to: Matrix) -> Result<(), Error> {
    GatherRows { from, which: run.all(to), to }.launch(run.device)
}

/// Where the parts of a pass stand in its memory, in bytes.
struct Room {
    /// The value that a stage hands over, and its gradient.
    handed: Vec<(ValueId, [usize; 2])>,
    /// Of each stage; they share what is behind the former.
    places: Vec<Vec<usize>>,
    /// All of it.
    bytes: usize,
}

impl Room {
    fn of(stages: &[Plan], training: bool, precision: Precision, count: impl Fn(Rows) -> usize + Copy) -> Self {
        let mut start = 0;
        let take = |end: &mut usize, bytes: usize| {
            let offset = *end;
            *end += bytes.next_multiple_of(256);
            offset
        };
        let mut handed = Vec::new();
        for Plan { program, .. } in stages {
            for &value in &program.handed {
                let Value { rows, width } = program.values[value.0];
                let bytes = count(rows) * width * precision.number().bytes();
                handed.push((value, [(); 2].map(|()| take(&mut start, bytes))));
            }
        }
        let mut most = start;
        let places = stages.iter().map(|plan| {
            let partials = if training { partial_bytes(&plan.program, count) } else { 0 };
            let mut end = start;
            let places = plan.bytes(count).into_iter().chain([partials]).map(|bytes| take(&mut end, bytes)).collect();
            most = most.max(end);
            places
        });
        let places = places.collect();
        Self { handed, places, bytes: most }
    }
}

impl CudaPass {
    /// The stage that ends in the logits.
    fn last(&self) -> &Plan {
        &self.stages[self.stages.len() - 1]
    }
}

/// Somewhat more than asked for, so that batches of like sizes do not make a buffer grow again and again.
fn room_for(bytes: usize) -> usize {
    bytes.next_multiple_of((bytes.next_power_of_two() / 16).max(1 << 16))
}

#[cfg(test)]
pub(super) mod tests;
