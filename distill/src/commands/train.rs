//! `distill train`: trains a student on a teacher's cached logits and on labels.

use std::path::Path;
use std::time::Instant;

use anyhow::bail;
use cache::{CacheReader, Masks};
use teacher::HubOptions;

use crate::cli::TrainArgs;
use crate::data::{self, TaskData};
use crate::files::refuse_source;
use crate::hint::HintExt;
use crate::jobs::tune::Asked;
use crate::jobs::{Teacher, TrainReport, Training, planned};
use crate::recipe::{ColumnsRecipe, RowChoice, Subject};
use crate::tasks::{Task, masked_lm};
use crate::ui::Ui;

pub(crate) fn run(args: TrainArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.compute.device.resolve()?;
    let start = Instant::now();
    for model in [&args.teacher, &args.student].into_iter().flatten() {
        refuse_source(Path::new(model), &args.output.output)?;
    }
    args.cache.as_deref().map(|cache| refuse_source(cache, &args.output.output)).transpose()?;
    let columns = ColumnsRecipe::from(&args.columns);
    let hub = HubOptions::from(args.hub.clone());
    let recipe = args.student();
    recipe.check()?;
    let task = match (args.task.task(args.fit().seed)?, &args.cache) {
        (Task::MaskedLm(asked), Some(cache)) => of_cache(asked, args.task.mask_probability.is_some(), cache)?,
        (task, _) => task,
    };
    let pack = args.packing.of(task)?;
    anyhow::ensure!(
        !pack || args.cache.is_none(),
        "--pack contradicts --cache: the answers there are to rows of one text each; --live runs the teacher beside the student"
    );
    if let (Some(_), None) = (task.masks(), &args.teacher) {
        return Err(anyhow::anyhow!("--task masked-lm needs its --teacher, beside the --cache of its answers too"))
            .hint("the student takes its tokenizer and its sizes from it, and its answers from the cache");
    }
    let load = || match (&args.teacher, &args.cache) {
        (None, Some(cache)) => Teacher::of_cache(cache, &columns),
        (name, _) => {
            let model = task.load(name.as_deref().unwrap_or_default(), &hub, &columns.label_names)?;
            // With a tokenizer of its own, a student has a limit of its own: its teacher's is then what the cache holds.
            let max_length = match (&recipe.model, &args.cache) {
                (Some(_), Some(cache)) => {
                    let reader = CacheReader::open(cache, None)?;
                    (!reader.fingerprint().keyed_by_text()).then_some(reader.fingerprint().max_length)
                }
                _ => columns.max_length,
            };
            Teacher::of_model(model, max_length)
        }
    };
    let teacher = load()?;
    let names = teacher.names()?;
    let validation = args.validation.as_deref();
    let data = match task.masks() {
        None => data::read_split(&args.data, validation, &columns, Some(&names))?,
        Some(_) => {
            anyhow::ensure!(
                args.unlabelled.is_none(),
                "--unlabelled goes with --task single-label: of masked tokens no text has a label, so give all of them as --data"
            );
            let (Some(tokenizer), Some(max_length)) = (teacher.tokenizer(), teacher.max_length()) else {
                bail!("--task masked-lm: the teacher's tokenizer is not here");
            };
            let length = masked_lm::row_length(pack, max_length);
            let (train, validation) = data::read_tokens(&args.data, validation, &columns, tokenizer, length)?;
            TaskData { train, validation, names }
        }
    };
    let others = [Some(&data.train.rows), Some(&data.validation.rows)];
    let unlabelled = data::read_unlabelled(args.unlabelled.as_deref(), &columns, &others)?;
    let data = data.with_unlabelled(&unlabelled);
    let student_hub = recipe.hub(&hub);
    let train = |teacher, data, objective, fit, output: &Path, existing| {
        let training = Training {
            task,
            teacher,
            data,
            clean: None,
            augment: Vec::new(),
            max_length: columns.max_length,
            student: &recipe,
            hub: &student_hub,
            objective,
            fit,
            cache: args.cache.as_deref(),
            live: args.live,
            output,
            tensorboard: args.telemetry.tensorboard && output == args.output.output,
            force: args.force,
            learns_from: RowChoice::All,
            compute: &compute,
        };
        training.run(existing)
    };
    let (objective, fit, output) = (args.loss_terms()?, args.fit(), args.output.output.as_path());
    let existing = args.output.existing(args.resume);
    let (trained, tuned) = match args.fitting.tune {
        None => (train(teacher, data, objective, fit, output, existing)?, None),
        Some(count) => {
            let width = planned(&recipe, teacher.encoder(), &student_hub)?.hidden_size;
            // Each training loads its own.
            drop(teacher);
            let subject = Subject { rows: fit.epoch_rows(&data.train.labels), width, trained: recipe.trained() };
            let asked = Asked {
                count,
                temperature: args.temperature.is_none(),
                weights: args.weight_soft.is_none() && args.weight_hard.is_none(),
                cache: args.cache.as_deref(),
                train: &data.train,
                validation: &data.validation,
                answered: args.cache.is_some() || task.masks().is_some(),
            };
            let (trained, tuned) = asked.run(
                fit.suited_to(subject),
                objective,
                output,
                existing,
                |fit, objective, folder, existing| train(load()?, data.clone(), objective, fit, folder, existing),
            )?;
            (trained, Some(tuned))
        }
    };
    let report = TrainReport::new(&args.output.output, &trained, tuned, start);
    ui.result(&report, TrainReport::text)?;
    Ok(())
}

/// Masked tokens as in a cache, whose answers are to its own masks. An error if it has none, or masks more or fewer of them than
/// was asked for.
fn of_cache(asked: Masks, given: bool, cache: &Path) -> anyhow::Result<Task> {
    let folder = cache.display();
    let Task::MaskedLm(masks) = Task::of_cache(CacheReader::open(cache, None)?.fingerprint()) else {
        bail!(
            "{folder}: holds the answers of a classifier, not of a masked-language model: leave --task masked-lm out to learn \
             from them, or run distill cache --task masked-lm"
        );
    };
    if given && asked.probability != masks.probability {
        bail!(
            "--mask-probability {}: the answers in {folder} are to masks of {} of the tokens; leave it out, or capture anew",
            asked.probability,
            masks.probability
        );
    }
    Ok(Task::MaskedLm(masks))
}
