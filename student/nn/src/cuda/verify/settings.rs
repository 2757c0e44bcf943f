//! Checks the GPU engine under the settings that a training can have, all of one small encoder: long rows beside many short
//! ones, gradients at inner taps, values that are computed twice, frozen parameters beside a moving average, and words that no
//! batch has looked up.

use super::bench::{KernelCheck, go_on};
use super::engine::{
    Distances, LENGTHS, PRECISIONS, RATES, Rows, VOCABULARY, Worst, both, changes, config, length, optimizer, pass,
    weights,
};
use crate::cuda::device::Device;
use crate::cuda::operand::Precision;
use crate::names::is_head;
use crate::{Clip, EncoderConfig, Error, Family, Parameters, Slot, StepRates, Tap};

/// A row of several blocks beside as many short ones as are launched apart.
const LONG_AND_SHORT: [u32; 17] = [130, 5, 1, 17, 2, 33, 3, 8, 1, 4, 12, 2, 64, 9, 1, 7, 16];
/// Words that batches have, and others.
const WORDS: usize = 400;

/// The engine in one precision, and where results go.
struct Setting<'a> {
    device: &'a Device,
    config: &'a EncoderConfig,
    start: &'a Parameters,
    precision: Precision,
    limits: Distances,
}

/// Reports what was compared, and how far apart that may be.
type Report<'a> = &'a mut dyn FnMut(&str, Worst, f64);

type Check = fn(&Setting<'_>, Report<'_>) -> Result<(), Error>;

pub(super) fn verify(device: &Device, report: &mut dyn FnMut(KernelCheck)) -> Result<(), Error> {
    let config = EncoderConfig { vocab_size: WORDS, ..config(Family::BERT, 128) };
    let start = weights(&config);
    let checks: [(&str, Check); 5] = [
        ("a long row beside short ones", long_and_short),
        ("gradients at inner taps", inner_taps),
        ("values computed twice", computed_twice),
        ("frozen layers, a moving average", frozen_and_averaged),
        ("words not looked up", postponed_decay),
    ];
    for (precision, limits) in PRECISIONS {
        let setting = Setting { device, config: &config, start: &start, precision, limits };
        for (shape, check) in checks {
            let result = check(&setting, &mut |kernel, worst, tolerance| {
                report(worst.check(kernel, precision, shape, tolerance));
            });
            go_on(result, &format!("engine ({precision})"), shape, report)?;
        }
    }
    Ok(())
}

fn long_and_short(setting: &Setting<'_>, report: Report<'_>) -> Result<(), Error> {
    one_pass(setting, &LONG_AND_SHORT, &[Tap::Logits], report)
}

fn inner_taps(setting: &Setting<'_>, report: Report<'_>) -> Result<(), Error> {
    let taps = [Tap::Hidden(0), Tap::Query(1), Tap::Key(0), Tap::Value(1), Tap::Hidden(1), Tap::Logits];
    one_pass(setting, &LENGTHS, &taps, report)
}

/// Values at these taps, and gradients of the parameters from those that enter there.
fn one_pass(setting: &Setting<'_>, lengths: &[u32], taps: &[Tap], report: Report<'_>) -> Result<(), Error> {
    let layout = setting.start.layout();
    let mut models = both(setting.device, setting.config, setting.precision, &optimizer(layout, &(0..0))?)?;
    let rows = Rows::new(setting.config, lengths, 0);
    let (mut values, mut gradients) = (Vec::new(), Vec::new());
    for model in &mut models {
        values.push(pass(model, &rows, taps, 0)?);
        gradients.push(model.gradients()?);
    }
    let mut worst = Worst::new();
    for ((tap, theirs), ours) in taps.iter().zip(&values[0]).zip(&values[1]) {
        worst.add(&tap.to_string(), ours, theirs, length(theirs));
    }
    report("values", worst, setting.limits.logits);
    report("gradients", Worst::of(layout, gradients[1].flat(), gradients[0].flat()), setting.limits.gradients);
    Ok(())
}

/// The same bits as of a pass that keeps everything.
fn computed_twice(setting: &Setting<'_>, report: Report<'_>) -> Result<(), Error> {
    let layout = setting.start.layout();
    let [_, mut gpu] = both(setting.device, setting.config, setting.precision, &optimizer(layout, &(0..0))?)?;
    let rows = Rows::new(setting.config, &LONG_AND_SHORT, 0);
    let mut gradients = Vec::new();
    for layers in [None, Some(1)] {
        gpu.recompute(layers);
        pass(&mut gpu, &rows, &[Tap::Logits], 0)?;
        gradients.push(gpu.gradients()?);
        gpu.clear_gradients()?;
    }
    report("gradients", Worst::of(layout, gradients[1].flat(), gradients[0].flat()), 0.0);
    Ok(())
}

/// Two steps in which the lower half does not change, other parameters have rates of their own, and gradients are clipped
/// one by one.
fn frozen_and_averaged(setting: &Setting<'_>, report: Report<'_>) -> Result<(), Error> {
    let layout = setting.start.layout();
    let factor = |slot: Slot| match slot {
        Slot::Layer(layer, _) => layer as f64,
        slot => {
            if is_head(slot) {
                0.5
            } else {
                0.0
            }
        }
    };
    let factors = layout.entries().iter().map(|entry| factor(entry.slot)).collect();
    let optimizer =
        optimizer(layout, &(0..0))?.with_rate_factors(factors).with_average(0.6, setting.start.flat().to_vec());
    let mut models = both(setting.device, setting.config, setting.precision, &optimizer)?;
    let rates = StepRates { clip: Clip::Value(0.01), ..RATES };
    for step in 0..2 {
        let rows = Rows::new(setting.config, &LENGTHS, step);
        for model in &mut models {
            pass(model, &rows, &[Tap::Logits], step)?;
            model.step(u64::from(step), rates)?;
        }
    }
    for what in ["two steps", "their average"] {
        let [theirs, ours] = changes(&mut models, setting.start)?;
        report(what, Worst::of(layout, &ours, &theirs), setting.limits.steps);
        models.iter_mut().try_for_each(|model| model.swap_average())?;
    }
    Ok(())
}

/// Words that no step has read decay bit for bit as on the CPU: those that a later pass looks up, and those that none does.
fn postponed_decay(setting: &Setting<'_>, report: Report<'_>) -> Result<(), Error> {
    let layout = setting.start.layout();
    let words = layout.entry(Slot::WordEmbeddings).map(|entry| entry.range.clone()).unwrap_or_default();
    let unread = words.start + VOCABULARY as usize * setting.config.embedding_size..words.end;
    // A word with moments has been read in the life before.
    let mut models = both(setting.device, setting.config, setting.precision, &optimizer(layout, &unread)?)?;
    for step in 0..3 {
        let mut rows = Rows::new(setting.config, &LENGTHS, step);
        let is_last = step == 2;
        rows.ids.iter_mut().filter(|_| is_last).for_each(|id| *id += VOCABULARY);
        for model in &mut models {
            pass(model, &rows, &[Tap::Logits], step)?;
            if !is_last {
                model.step(u64::from(step), RATES)?;
            }
        }
    }
    let [theirs, ours] = changes(&mut models, setting.start)?;
    report("two steps", Worst::of(layout, &ours, &theirs), setting.limits.steps);
    let mut worst = Worst::new();
    worst.add("word embeddings", &ours[unread.clone()], &theirs[unread.clone()], length(&theirs[unread]));
    report("decay", worst, 0.0);
    Ok(())
}
