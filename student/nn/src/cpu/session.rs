//! The CPU engine's session: passes over packed batches, and optimiser steps.

use std::any::Any;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::adamw::AdamW;
use super::chunk::{Chunk, Context, Run, Selected};
use super::linear::panels;
use super::op::CpuHabits;
use super::product::Panels;
use super::shares::Shares;
use super::weights;
use crate::op::{Kind, Op};
use crate::pass::Tapped;
use crate::program::Program;
use crate::program::places::Plan;
use crate::program::trained::{BackwardEnd, backward_ends};
use crate::session::{Plans, Session, StepRates, StepReport, next_number};
use crate::slot::{Slot, Span};
use crate::value::{Rows, Tap, Value};
use crate::{Compute, DropoutRng, EncoderConfig, Error, Gradients, Layout, Mode, PackedInput, Parameters, Pass};

/// Target tokens per chunk: enough for efficient products, few enough to balance the rows of one training step over the
/// cores of a small machine.
const CHUNK_TOKENS: usize = 256;

/// A model on the CPU.
pub(crate) struct CpuSession {
    /// Tells its passes from those of other models.
    number: u64,
    config: EncoderConfig,
    parameters: Parameters,
    /// How often the weights were changed.
    changes: u64,
    program: Program,
    plans: Plans<CpuPlan>,
    /// Chunks with their buffers that no pass is using.
    idle: Vec<Chunk>,
    prepared: Prepared,
    training: Option<Training>,
    /// Logits of passes in evaluation mode.
    submitted: VecDeque<Vec<f32>>,
}

/// What belongs to a training, besides the weights.
struct Training {
    optimizer: AdamW,
    gradients: Gradients,
    reports: Vec<StepReport>,
}

/// The stages of a pass: one, unless what it computes is computed again for its backward pass.
struct CpuPlan {
    stages: Vec<Stage>,
}

/// A plan, and where the gradient of each parameter comes from.
struct Stage {
    plan: Plan,
    shares: Shares,
}

impl CpuPlan {
    /// The taps with their operations and the values of their program, in the order of the list.
    fn taps(&self) -> impl Iterator<Item = (Tap, &Op, &[Value])> {
        self.stages.iter().flat_map(|stage| {
            let program = &stage.plan.program;
            program.taps().map(|(tap, op)| (tap, op, program.values.as_slice()))
        })
    }
}

/// Weights in the form that products read, for passes that find them unchanged.
#[derive(Default)]
struct Prepared {
    /// [`Parameters::version`] of what they were made of.
    version: Option<u64>,
    panels: HashMap<Span, Panels>,
}

/// The chunks of a forward pass in training.
struct CpuPass {
    /// The session's number, and how often its weights had been changed.
    of: u64,
    changes: u64,
    chunks: Vec<Chunk>,
    plan: Arc<CpuPlan>,
    masks: DropoutRng,
}

impl CpuSession {
    /// A model of this configuration with these weights.
    pub(crate) fn new(config: &EncoderConfig, parameters: Parameters) -> Result<Self, Error> {
        config.validate()?;
        Ok(Self {
            number: next_number(),
            config: config.clone(),
            parameters,
            changes: 0,
            program: config.program(),
            plans: Plans::new(),
            idle: Vec::new(),
            prepared: Prepared::default(),
            training: None,
            submitted: VecDeque::new(),
        })
    }

    fn plan(&mut self, taps: &[Tap], training: bool) -> Result<Arc<CpuPlan>, Error> {
        let (program, layout) = (&self.program, self.parameters.layout());
        let layers = self.plans.recomputes.filter(|_| training);
        self.plans.get(taps, training, |taps| {
            let mut program = program.demanded(taps, training)?;
            // An attention's queries may have other rows than its keys and values: they are a product of their own.
            program.join(layout, |program, value| !program.is_query(value));
            let stages = program.stages(layers).into_iter().map(|program| {
                let plan = Plan::new(program, &CpuHabits, training);
                Stage { shares: Shares::new(layout, &plan.program), plan }
            });
            Ok(CpuPlan { stages: stages.collect() })
        })
    }

    /// [`Session::backward`] in ranges of the list that begin at these operations, in ascending order; each range's weights'
    /// gradients are finished before the range in front of it runs. Of a pass in stages, in the ranges of the last.
    pub(crate) fn backward_in_ranges(&mut self, pass: Pass, cuts: &[usize]) -> Result<(), Error> {
        let (taps, pass) = pass.into_kept::<CpuPass>()?;
        let CpuPass { of, changes, mut chunks, plan, masks } = pass;
        if of != self.number {
            return Err(Error::NoForward);
        }
        if changes != self.changes {
            return Err(Error::StalePass);
        }
        if taps.iter().all(|tapped| tapped.gradient.is_none()) {
            return Err(Error::NoGradient);
        }
        self.training();
        if let Some(training) = self.training.as_mut().filter(|_| plan.stages.iter().any(|stage| stage.shares.looks_up))
        {
            // A pass from before the training began told its optimiser nothing.
            let ids = chunks.iter().flat_map(|chunk| &chunk.input_ids);
            training.optimizer.look_up(&mut self.parameters, ids);
        }
        // Of the taps of each chunk, in the order of the list.
        let mut entering: Vec<Vec<Option<&[f32]>>> = vec![Vec::new(); chunks.len()];
        for (tapped, (_, op, values)) in taps.iter().zip(plan.taps()) {
            let mut rest = tapped.gradient.as_deref();
            for (chunk, entering) in chunks.iter().zip(&mut entering) {
                let (mine, behind) =
                    rest.map(|rest| rest.split_at(chunk.selected.count(values[op.out.0].rows) * tapped.width)).unzip();
                entering.push(mine);
                rest = behind;
            }
        }
        let factors = self.training.as_ref().map_or(&[][..], |training| training.optimizer.rate_factors());
        let programs = plan.stages.iter().map(|stage| &stage.plan.program);
        let ends = backward_ends(programs, self.parameters.layout(), factors);
        let last = plan.stages.len() - 1;
        for (number, (stage, end_of_stage)) in plan.stages.iter().zip(ends).enumerate().rev() {
            let Some(BackwardEnd { first, earlier }) = end_of_stage else { break };
            let context = Context {
                plan: &stage.plan,
                parameters: &self.parameters,
                vectors: &stage.shares,
                masks: Some(&masks),
                prepared: None,
            };
            if number < last {
                chunks
                    .par_iter_mut()
                    .for_each(|chunk| Run { chunk, context: &context }.forward(&mut std::iter::empty()));
            }
            let mut end = stage.plan.program.ops.len();
            let cuts = if number == last { cuts } else { &[] };
            for &start in cuts.iter().rev().filter(|cut| **cut > first).chain([&first]) {
                let range = start.min(end)..end;
                let work = chunks.par_iter_mut().zip(&mut entering);
                work.for_each(|(chunk, entering)| Run { chunk, context: &context }.backward(range.clone(), entering));
                if let Some(training) = &mut self.training {
                    weights::sum_over_chunks(&context, &chunks, range.clone(), &mut training.gradients);
                }
                end = range.start;
            }
            if earlier {
                chunks.par_iter_mut().for_each(|chunk| Run { chunk, context: &context }.keep_given());
            }
        }
        // Those that were in use are the first to be so again.
        chunks.append(&mut self.idle);
        self.idle = chunks;
        Ok(())
    }

    /// What training needs, begun where it has not been.
    fn training(&mut self) -> &mut Training {
        let layout = self.parameters.layout();
        self.training.get_or_insert_with(|| Training::new(AdamW::new(layout.clone(), 0.0), layout))
    }
}

impl Training {
    fn new(optimizer: AdamW, layout: &Arc<Layout>) -> Self {
        Self { optimizer, gradients: Gradients::zeros(layout.clone()), reports: Vec::new() }
    }
}

impl Session for CpuSession {
    fn compute(&self) -> Compute {
        Compute::Cpu
    }

    fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    fn settle(&mut self) -> Result<&Parameters, Error> {
        if let Some(training) = &mut self.training {
            training.optimizer.settle(&mut self.parameters);
        }
        Ok(&self.parameters)
    }

    fn set_parameters(&mut self, flat: &[f32]) -> Result<(), Error> {
        // No decay that was put off is meant for the new weights.
        self.settle()?;
        self.parameters.flat_mut().copy_from_slice(flat);
        self.changes += 1;
        Ok(())
    }

    fn forward(&mut self, input: PackedInput<'_>, taps: &[Tap], mode: Mode<'_>) -> Result<Pass, Error> {
        input.check(&self.config)?;
        let training = matches!(mode, Mode::Train(_));
        let plan = self.plan(taps, training)?;
        match (mode, &mut self.training) {
            (Mode::Train(_), Some(training)) => training.optimizer.look_up(&mut self.parameters, input.input_ids),
            (Mode::Eval, Some(training)) => training.optimizer.settle(&mut self.parameters),
            (_, None) => {}
        }
        match mode {
            // Weights in training serve one pass: preparing them for the next would cost memory and save little.
            Mode::Train(_) => self.prepared = Prepared::default(),
            Mode::Eval => {
                plan.stages.iter().for_each(|stage| self.prepared.update(&stage.plan.program, &self.parameters))
            }
        }
        let masks = if let Mode::Train(masks) = mode { Some(*masks) } else { None };
        let (parameters, panels) = (&self.parameters, &self.prepared.panels);
        let contexts: Vec<Context<'_>> = plan
            .stages
            .iter()
            .map(|Stage { plan, shares }| Context {
                plan,
                parameters,
                vectors: shares,
                masks: masks.as_ref(),
                prepared: (!training).then_some(panels),
            })
            .collect();
        // Each chunk writes what is tapped to where it stays.
        let ranges = cut(input.starts);
        let selected: Vec<Selected> = ranges.iter().map(|texts| Selected::new(input, texts)).collect();
        let mut tapped: Vec<Tapped> = plan
            .taps()
            .map(|(tap, op, values)| {
                let value = values[op.out.0];
                let rows = selected.iter().map(|selected| selected.count(value.rows)).sum();
                Tapped::new(tap, rows, value.width, true)
            })
            .collect();
        let mut work: Vec<Work<'_>> = ranges
            .into_iter()
            .zip(selected)
            .map(|(texts, selected)| Work { texts, selected, places: Vec::new() })
            .collect();
        for (tapped, (_, op, values)) in tapped.iter_mut().zip(plan.taps()) {
            let rows = values[op.out.0].rows;
            let mut rest = tapped.value.as_mut_slice();
            for work in &mut work {
                let (place, behind) = rest.split_at_mut(work.selected.count(rows) * tapped.width);
                work.places.push(place);
                rest = behind;
            }
        }
        let forward = |chunk: &mut Chunk, work: Work<'_>| {
            chunk.load(input, work.texts, work.selected);
            let mut taps = work.places.into_iter();
            contexts.iter().for_each(|context| Run { chunk, context }.forward(&mut taps));
        };
        let kept: Option<Box<dyn Any + Send>> = match masks {
            None => {
                // Nothing is read again: as many chunks' buffers as threads will do.
                let idle = Mutex::new(std::mem::take(&mut self.idle));
                let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
                work.into_par_iter().with_max_len(1).for_each(|work| {
                    let mut chunk = lock().pop().unwrap_or_default();
                    forward(&mut chunk, work);
                    lock().push(chunk);
                });
                self.idle = idle.into_inner().unwrap_or_else(PoisonError::into_inner);
                None
            }
            Some(masks) => {
                let mut chunks = std::mem::take(&mut self.idle);
                let spare = chunks.split_off(chunks.len().min(work.len()));
                chunks.resize_with(work.len(), Chunk::default);
                chunks.par_iter_mut().zip(work).for_each(|(chunk, work)| forward(chunk, work));
                self.idle = spare;
                Some(Box::new(CpuPass { of: self.number, changes: self.changes, chunks, plan: plan.clone(), masks }))
            }
        };
        Ok(Pass { taps: tapped, kept })
    }

    fn read(&mut self, pass: &mut Pass, tap: Tap) -> Result<Vec<f32>, Error> {
        Ok(std::mem::take(&mut pass.read(tap)?.value))
    }

    fn backward(&mut self, pass: Pass) -> Result<(), Error> {
        self.backward_in_ranges(pass, &[])
    }

    fn recompute(&mut self, layers: Option<usize>) {
        self.plans.recompute(layers);
    }

    fn training_bytes(&self, words: usize, averages: bool) -> usize {
        let layout = self.parameters.layout();
        // Pages of zeros that nobody writes to are never there.
        let unused = layout.entry(Slot::WordEmbeddings).filter(|_| !layout.ties_words());
        let unused = unused.map_or(0, |table| table.shape[0].saturating_sub(words) * table.shape[1]);
        let average = if averages { layout.len() } else { 0 };
        4 * (3 * (layout.len() - unused) + average)
    }

    fn pass_bytes(
        &mut self,
        training: &[PackedInput<'_>],
        evaluation: &[PackedInput<'_>],
        taps: &[Tap],
    ) -> Result<usize, Error> {
        let plan = self.plan(taps, true)?;
        let vectors = 4 * plan.stages[0].shares.vector_len();
        let mut chunks: Vec<usize> = Vec::new();
        for &batch in training {
            for (index, texts) in cut(batch.starts).iter().enumerate() {
                let bytes = chunk_bytes(&plan, batch, texts) + vectors;
                match chunks.get_mut(index) {
                    Some(most) => *most = (*most).max(bytes),
                    None => chunks.push(bytes),
                }
            }
        }
        let mut prepared = 0;
        if !evaluation.is_empty() {
            let plan = self.plan(taps, false)?;
            let of_batch = |&batch: &PackedInput<'_>| {
                cut(batch.starts).iter().map(|texts| chunk_bytes(&plan, batch, texts)).max().unwrap_or(0)
            };
            let most = evaluation.iter().map(of_batch).max().unwrap_or(0);
            // As many chunks as threads are in use, the latest first.
            let threads = rayon::current_num_threads();
            chunks.resize(chunks.len().max(threads), 0);
            chunks.iter_mut().rev().take(threads).for_each(|chunk| *chunk = (*chunk).max(most));
            let weight = |op: &Op| if let Kind::Linear(linear) = &op.kind { Some(linear.weight) } else { None };
            let ops = plan.stages.iter().flat_map(|stage| &stage.plan.program.ops);
            let weights: HashSet<Span> = ops.filter_map(weight).collect();
            prepared = weights.into_iter().map(|span| 4 * self.parameters.span(span).len()).sum();
        }
        Ok(prepared + chunks.iter().sum::<usize>())
    }

    fn begin(&mut self, optimizer: AdamW) -> Result<(), Error> {
        optimizer.check(self.parameters.layout())?;
        self.settle()?;
        self.training = Some(Training::new(optimizer, self.parameters.layout()));
        Ok(())
    }

    fn step(&mut self, number: u64, rates: StepRates) -> Result<(), Error> {
        self.training();
        let Some(Training { optimizer, gradients, reports }) = &mut self.training else { return Ok(()) };
        optimizer.freeze(gradients);
        let gradient_norm = gradients.norm();
        if gradient_norm.is_finite() {
            let clip = [rates.clip.scale(gradient_norm), rates.clip.limit()];
            optimizer.step(&mut self.parameters, gradients, rates.learning_rate, clip);
            self.changes += 1;
        } else {
            gradients.flat_kept_mut().fill(0.0);
        }
        reports.push(StepReport { step: number, losses: [0.0; 2], gradient_norm });
        Ok(())
    }

    fn reports(&mut self, _behind: usize) -> Result<Vec<StepReport>, Error> {
        Ok(std::mem::take(&mut self.training().reports))
    }

    fn gradients(&mut self) -> Result<Gradients, Error> {
        Ok(self.training().gradients.clone())
    }

    fn clear_gradients(&mut self) -> Result<(), Error> {
        self.training().gradients = Gradients::zeros(self.parameters.layout().clone());
        Ok(())
    }

    fn swap_average(&mut self) -> Result<(), Error> {
        if let Some(training) = &mut self.training {
            training.optimizer.swap_average(&mut self.parameters);
            self.changes += 1;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<(&Parameters, Cow<'_, AdamW>), Error> {
        self.training();
        self.settle()?;
        let training = self.training.as_ref().ok_or(Error::NoForward)?;
        Ok((&self.parameters, Cow::Borrowed(&training.optimizer)))
    }

    fn submit(&mut self, input: PackedInput<'_>) -> Result<(), Error> {
        let logits = self.logits(input)?;
        self.submitted.push_back(logits);
        Ok(())
    }

    fn collect(&mut self, behind: usize) -> Result<Option<Vec<f32>>, Error> {
        Ok(if self.submitted.len() > behind { self.submitted.pop_front() } else { None })
    }
}

/// A chunk's part of a forward pass.
struct Work<'a> {
    texts: Range<usize>,
    selected: Selected,
    /// Where the chunk's rows of each tap go.
    places: Vec<&'a mut [f32]>,
}

impl Prepared {
    /// Copies the weights that a program reads, unless they are here already.
    fn update(&mut self, program: &Program, parameters: &Parameters) {
        if self.version != Some(parameters.version()) {
            *self = Self { version: Some(parameters.version()), ..Self::default() };
        }
        let mut missing: Vec<(Span, usize)> = Vec::new();
        for op in &program.ops {
            if let Kind::Linear(linear) = &op.kind
                && !self.panels.contains_key(&linear.weight)
                && missing.iter().all(|(span, _)| *span != linear.weight)
            {
                missing.push((linear.weight, linear.inner));
            }
        }
        let made = missing.into_par_iter().map(|(span, inner)| (span, panels(parameters.span(span), inner)));
        self.panels.par_extend(made);
    }
}

/// Bytes of a chunk's buffers: its places and the products of attention.
fn chunk_bytes(plan: &CpuPlan, batch: PackedInput<'_>, texts: &Range<usize>) -> usize {
    let selected = Selected::new(batch, texts);
    let starts = &selected.of(Rows::Tokens).starts;
    let longest = starts.windows(2).map(|text| text[1] - text[0]).max().unwrap_or(0);
    let mut places: Vec<usize> = Vec::new();
    let mut handed = 0;
    for Stage { plan, .. } in &plan.stages {
        let bytes = plan.bytes(|rows| selected.count(rows));
        places.resize(places.len().max(bytes.len()), 0);
        places.iter_mut().zip(bytes).for_each(|(most, bytes)| *most = (*most).max(bytes));
        let values = plan.program.handed.iter().map(|value| plan.program.values[value.0]);
        handed += values.map(|value| 4 * selected.count(value.rows) * value.width).sum::<usize>();
    }
    places.iter().sum::<usize>() + handed + 4 * 3 * longest * longest
}

/// Cuts rows into chunks of about [`CHUNK_TOKENS`], an even number of them where there are rows enough.
fn cut(starts: &[u32]) -> Vec<Range<usize>> {
    let rows = starts.len() - 1;
    let tokens = (starts[rows] - starts[0]) as usize;
    let count = (2 * tokens.div_ceil(2 * CHUNK_TOKENS)).clamp(1, rows.max(1));
    let mut ranges = Vec::with_capacity(count);
    let mut from = 0;
    for chunk in 1..=count {
        let goal = starts[0] as usize + tokens * chunk / count;
        // The boundary nearest to the goal, leaving at least a row on both sides.
        let mut to = from + 1;
        while to < rows - (count - chunk) && (starts[to + 1] as usize + starts[to] as usize) <= 2 * goal {
            to += 1;
        }
        if chunk == count {
            to = rows;
        }
        ranges.push(from..to);
        from = to;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_all_rows_in_order() {
        for (rows, length) in [(1, 5), (2, 400), (3, 1), (32, 16), (64, 128), (7, 300)] {
            let starts: Vec<u32> = (0..=rows).map(|row| row * length).collect();
            let ranges = cut(&starts);
            assert_eq!(ranges[0].start, 0);
            assert_eq!(ranges[ranges.len() - 1].end, rows as usize);
            assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert!(ranges.iter().all(|range| !range.is_empty()), "{rows} x {length}: {ranges:?}");
        }
    }

    #[test]
    fn equal_rows_make_equal_chunks() {
        let starts: Vec<u32> = (0..=32).map(|row| row * 16).collect();
        assert_eq!(cut(&starts), [0..16, 16..32]);
    }
}
