//! Chooses rows of data files, for `data select`: by class, by their texts, or by a cached teacher's answers.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use cache::CacheReader;
use datasets::{Columns, Key, LabelNames, Record, Row, Shares, Similarity, Skipped, by_class, reconcile, sample};
use serde::Serialize;
use serde_json::json;

use super::super::cache::keys::{RowKeys, class_names};
use super::blocks::each_block;
use super::inspect::{shortened, skipped_text};
use super::writing::{check_output, write_records};
use crate::interrupt;
use crate::objective::softmax::log_softmax;
use crate::signal::{TeacherSignal, cached};
use crate::ui::{self, Table};

/// What rows are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Nothing.
    Random,
    /// Nothing, of each class as large a part.
    Stratified,
    /// Nothing, of each class as many.
    Balanced,
    /// How similar the others are to them.
    Representative,
    /// How different they are from each other.
    Diverse,
    /// How little the teacher prefers its class to the next one.
    Margin,
    /// How much the teacher's probabilities are spread.
    Entropy,
    /// How little probability the teacher gives the label.
    Loss,
    /// The teacher's doubt in the label: confident learning (Northcutt et al., 2021).
    LabelNoise,
}

impl By {
    /// All of them.
    pub(crate) const ALL: [Self; 9] = [
        Self::Random,
        Self::Stratified,
        Self::Balanced,
        Self::Representative,
        Self::Diverse,
        Self::Margin,
        Self::Entropy,
        Self::Loss,
        Self::LabelNoise,
    ];

    /// The word for it on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Stratified => "stratified",
            Self::Balanced => "balanced",
            Self::Representative => "representative",
            Self::Diverse => "diverse",
            Self::Margin => "margin",
            Self::Entropy => "entropy",
            Self::Loss => "loss",
            Self::LabelNoise => "label-noise",
        }
    }

    /// Whether it asks a teacher.
    fn asks(self) -> bool {
        matches!(self, Self::Margin | Self::Entropy | Self::Loss | Self::LabelNoise)
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How many rows are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum HowMany {
    Count(usize),
    /// Of all rows.
    Part(f64),
    /// All that are suspected.
    Suspected,
}

/// Which files to choose from, and how.
pub(crate) struct Selecting<'a> {
    pub(crate) files: &'a [PathBuf],
    pub(crate) columns: &'a Columns,
    pub(crate) by: By,
    pub(crate) how_many: HowMany,
    /// Whether the other end of the order is taken: of what the teacher says, the easy rows.
    pub(crate) reverse: bool,
    /// Whether each class gives as large a part of its rows.
    pub(crate) per_class: bool,
    /// The teacher's answers.
    pub(crate) cache: Option<&'a Path>,
    pub(crate) seed: u64,
    pub(crate) output: &'a Path,
    /// Where the rows go that are not chosen.
    pub(crate) rest: Option<&'a Path>,
}

/// What was chosen.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    by: &'static str,
    rows: usize,
    selected: usize,
    /// Rows of each class among those chosen, and of all.
    classes: Vec<OfClass>,
    /// The first ones.
    examples: Vec<Example>,
    output: String,
    /// If there are others, and they were asked for.
    rest: Option<String>,
    /// Rows that could not be read, where those are skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<Skipped>,
}

#[derive(Debug, Serialize)]
struct OfClass {
    name: Option<String>,
    selected: usize,
    rows: usize,
}

#[derive(Debug, Serialize)]
struct Example {
    text: String,
    reason: String,
}

/// Examples that are shown.
const EXAMPLES: usize = 5;

/// The column of the reason.
const REASON: &str = "reason";

/// Rows whose answers are in memory at a time.
const WINDOW: usize = 4096;

/// A row's place in an order, smallest first, and why it is there.
struct Scored {
    row: usize,
    score: f64,
    reason: String,
}

impl Selecting<'_> {
    pub(crate) fn run(&self) -> anyhow::Result<Report> {
        let outputs: Vec<&Path> = std::iter::once(self.output).chain(self.rest).collect();
        for output in &outputs {
            check_output(output, self.files)?;
        }
        // Before the first of them is written.
        let places = outputs.iter().map(|output| place_of(output)).collect::<anyhow::Result<Vec<_>>>()?;
        if places.len() == 2 && places[0] == places[1] {
            bail!("--rest and --output are the same file; the rows that are not chosen go to one of their own");
        }
        self.check()?;
        let mut records = Vec::new();
        each_block(self.files, self.columns, |block| {
            records.extend(block.records);
            Ok(())
        })?;
        if let Some(record) = records.iter().find(|record| record.columns.contains_key(REASON)) {
            bail!(
                "line {}: there is a column `{REASON}` already, which is where reasons go; rename it",
                record.row.line
            );
        }
        let rows: Vec<Row> = records.iter().map(|record| record.row.clone()).collect();
        let (names, classes) = self.classes(&rows)?;
        let chosen = self.choose(&rows, &classes)?;
        if chosen.is_empty() {
            bail!(
                "no row is chosen, and nothing is written{}",
                match self.by {
                    By::LabelNoise => ": the teacher doubts no label",
                    _ => ": so small a part of the rows is none; --count says how many",
                }
            );
        }
        let report = self.report(&rows, names.as_ref(), &classes, &chosen);
        let taken: BTreeSet<usize> = chosen.iter().map(|scored| scored.row).collect();
        let selected = chosen.iter().map(|scored| {
            let mut record = records[scored.row].clone();
            record.columns.insert(REASON.to_owned(), json!(scored.reason));
            record
        });
        write_records(self.output, |writer| Ok(writer.write(selected.collect())?))?;
        let others = records.into_iter().enumerate().filter(|(row, _)| !taken.contains(row));
        let others: Vec<Record> = others.map(|(_, record)| record).collect();
        // A file without rows could not be read.
        let rest = self.rest.filter(|_| !others.is_empty());
        if let Some(rest) = rest {
            write_records(rest, |writer| Ok(writer.write(others)?))?;
        }
        Ok(Report { rest: rest.map(|rest| rest.display().to_string()), ..report })
    }

    fn check(&self) -> anyhow::Result<()> {
        let by = self.by;
        ensure!(!by.asks() || self.cache.is_some(), "--by {by} asks a teacher: give the --cache of its answers");
        ensure!(by != By::LabelNoise || !self.reverse, "--by label-noise has one end: leave --reverse out");
        ensure!(by.asks() || !self.reverse, "--reverse goes with what a teacher says, and --by {by} does not ask one");
        ensure!(
            by == By::LabelNoise || self.how_many != HowMany::Suspected,
            "--by {by} needs to know how many rows: give --count or --part"
        );
        ensure!(
            !self.per_class || !matches!(by, By::Stratified | By::Balanced | By::LabelNoise),
            "--by {by} has its own number for each class; leave --per-class out"
        );
        Ok(())
    }

    /// The classes of the labels: a teacher's, if there is one.
    fn classes(&self, rows: &[Row]) -> anyhow::Result<(Option<LabelNames>, Vec<Option<u32>>)> {
        let cached = match self.cache {
            Some(folder) => class_names(&CacheReader::open(folder, None)?)?,
            None => None,
        };
        if rows.iter().all(|row| row.label.is_none()) {
            let needs = matches!(self.by, By::Stratified | By::Balanced | By::Loss | By::LabelNoise);
            ensure!(!needs, "--by {} needs labels, and no row has one; --label-column names their column", self.by);
            return Ok((cached, vec![None; rows.len()]));
        }
        let (names, classes) = reconcile(rows, cached.as_ref())?;
        Ok((Some(names), classes))
    }

    /// The chosen rows, in the order of their worth.
    fn choose(&self, rows: &[Row], classes: &[Option<u32>]) -> anyhow::Result<Vec<Scored>> {
        let wanted = match self.how_many {
            HowMany::Count(count) => count.min(rows.len()),
            HowMany::Part(part) => (part * rows.len() as f64).round() as usize,
            HowMany::Suspected => rows.len(),
        };
        // What the teacher can say something of, and which rows there are to choose from.
        let mut scored = if self.by.asks() { self.asked(rows, classes)? } else { Vec::new() };
        let can: Vec<usize> = match self.by {
            by if by.asks() => scored.iter().map(|scored| scored.row).collect(),
            // Rows without a label are no class of which as many could be taken.
            By::Balanced => (0..rows.len()).filter(|row| classes[*row].is_some()).collect(),
            _ => (0..rows.len()).collect(),
        };
        let groups = match self.per_class || matches!(self.by, By::Stratified | By::Balanced) {
            true => {
                let of_can: Vec<Option<u32>> = can.iter().map(|row| classes[*row]).collect();
                let groups = by_class(&of_can).into_iter();
                groups.map(|group| group.into_iter().map(|place| can[place]).collect()).collect()
            }
            false => vec![can],
        };
        let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
        let shares = if self.by == By::Balanced { Shares::Equal } else { Shares::Kept }.of(&sizes, wanted);
        let groups = groups.iter().zip(shares);
        if self.by.asks() {
            if self.by == By::LabelNoise {
                scored.truncate(wanted);
                return Ok(scored);
            }
            if self.reverse {
                scored.reverse();
            }
            let mut chosen = Vec::new();
            for (group, share) in groups {
                let group: BTreeSet<usize> = group.iter().copied().collect();
                chosen.extend(scored.extract_if(.., |scored| group.contains(&scored.row)).take(share));
            }
            return Ok(chosen);
        }
        let go_on = || interrupt::check().is_ok();
        let mut chosen = Vec::new();
        for (group, share) in groups {
            let similarity = || Similarity::of(&group.iter().map(|row| rows[*row].clone()).collect::<Vec<_>>());
            let (places, in_order) = match self.by {
                By::Diverse => (similarity().diverse(share, self.seed, go_on), true),
                By::Representative => (similarity().representative(share, self.seed, go_on), true),
                _ => (sample(group.len(), share, self.seed), false),
            };
            interrupt::check()?;
            chosen.extend(places.into_iter().enumerate().map(|(number, place)| Scored {
                row: group[place],
                score: number as f64,
                reason: match in_order {
                    true => format!("{}, {} of {share}", self.by, number + 1),
                    false => self.by.name().to_owned(),
                },
            }));
        }
        Ok(chosen)
    }

    /// The rows by what the teacher says of them, hardest first.
    fn asked(&self, rows: &[Row], classes: &[Option<u32>]) -> anyhow::Result<Vec<Scored>> {
        let folder = self.cache.context("a cache")?;
        let cache = CacheReader::open(folder, None)?;
        ensure!(
            cached::whole_rows(&cache) && cache.fingerprint().preprocessing.masks().is_none(),
            "{}: holds no logits of all classes, by which rows could be chosen",
            folder.display()
        );
        let names = class_names(&cache)?.context("a classifier has names")?;
        let keys = RowKeys::of(folder, &cache)?.keys(rows)?.0;
        let missing = keys.iter().try_fold(0, |count, key| anyhow::Ok(count + usize::from(!cache.contains(key)?)))?;
        ensure!(
            missing == 0,
            "{missing} of {} rows are not in {}: run distill cache on these files first",
            keys.len(),
            folder.display()
        );
        let width = cache.captured().width;
        let mut answers: Vec<Vec<f32>> = Vec::with_capacity(rows.len());
        for keys in keys.chunks(WINDOW) {
            let TeacherSignal::Dense(logits) = cached::signal(&cache, keys as &[Key])? else { bail!("whole rows") };
            answers.extend(
                logits.chunks_exact(width).map(|row| log_softmax(row, 1.0).map(|log| log.exp() as f32).collect()),
            );
        }
        let mut scored = match self.by {
            By::LabelNoise => doubted(&answers, classes, &names),
            by => answers
                .iter()
                .zip(classes)
                .enumerate()
                .filter_map(|(row, (answer, class))| of_answer(by, row, answer, *class, &names))
                .collect(),
        };
        scored.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.row.cmp(&b.row)));
        Ok(scored)
    }

    fn report(&self, rows: &[Row], names: Option<&LabelNames>, classes: &[Option<u32>], chosen: &[Scored]) -> Report {
        let mut of_classes: Vec<(Option<u32>, usize, usize)> =
            by_class(classes).iter().map(|rows| (classes[rows[0]], 0, rows.len())).collect();
        for scored in chosen {
            if let Some(of_class) = of_classes.iter_mut().find(|of_class| of_class.0 == classes[scored.row]) {
                of_class.1 += 1;
            }
        }
        let name = |class: Option<u32>| Some(names?.names()[class? as usize].clone());
        let example = |scored: &Scored| Example { text: rows[scored.row].text.clone(), reason: scored.reason.clone() };
        Report {
            by: self.by.name(),
            rows: rows.len(),
            selected: chosen.len(),
            classes: of_classes
                .into_iter()
                .map(|(class, selected, rows)| OfClass { name: name(class), selected, rows })
                .collect(),
            examples: chosen.iter().take(EXAMPLES).map(example).collect(),
            output: self.output.display().to_string(),
            rest: None,
            skipped: self.columns.skipping.skipped(),
        }
    }
}

/// How hard a row is by the teacher's probabilities; smaller is harder. `None` where it has no label, and needs one.
fn of_answer(by: By, row: usize, answer: &[f32], class: Option<u32>, names: &LabelNames) -> Option<Scored> {
    let mut order: Vec<usize> = (0..answer.len()).collect();
    order.sort_by(|a, b| answer[*b].total_cmp(&answer[*a]).then(a.cmp(b)));
    let (first, second) = (order[0], *order.get(1).unwrap_or(&order[0]));
    let name = |class: usize| &names.names()[class];
    let (score, reason) = match by {
        By::Margin => {
            let margin = answer[first] - answer[second];
            (f64::from(margin), format!("margin {margin:.3} of {} over {}", name(first), name(second)))
        }
        By::Entropy => {
            let entropy: f64 = answer.iter().map(|p| f64::from(*p)).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum();
            (-entropy, format!("entropy {entropy:.3}, {} {:.3}", name(first), answer[first]))
        }
        _ => {
            let label = class? as usize;
            (
                f64::from(answer[label]),
                format!("{} {:.3}, {} {:.3}", name(label), answer[label], name(first), answer[first]),
            )
        }
    };
    Some(Scored { row, score, reason })
}

/// Rows whose labels the teacher doubts: another class has a probability as high as it has on average for rows that are labelled
/// so; of several the most probable. The surest doubts come first.
fn doubted(answers: &[Vec<f32>], classes: &[Option<u32>], names: &LabelNames) -> Vec<Scored> {
    let mut sums = vec![(0.0_f64, 0_usize); names.len()];
    for (answer, class) in answers.iter().zip(classes) {
        if let Some(class) = class.map(|class| class as usize) {
            sums[class].0 += f64::from(answer[class]);
            sums[class].1 += 1;
        }
    }
    let limits: Vec<f64> =
        sums.iter().map(|(sum, count)| if *count > 0 { sum / *count as f64 } else { f64::INFINITY }).collect();
    let mut doubted = Vec::new();
    for (row, (answer, class)) in answers.iter().zip(classes).enumerate() {
        let Some(label) = class.map(|class| class as usize) else { continue };
        let sure = (0..answer.len()).filter(|class| f64::from(answer[*class]) >= limits[*class]);
        let Some(found) = sure.max_by(|a, b| answer[*a].total_cmp(&answer[*b]).then(b.cmp(a))) else { continue };
        if found != label {
            let (names, score) = (names.names(), f64::from(answer[label] - answer[found]));
            let reason = format!(
                "labelled {} ({:.3}), {} says the teacher ({:.3})",
                names[label], answer[label], names[found], answer[found]
            );
            doubted.push(Scored { row, score, reason });
        }
    }
    doubted
}

/// Where a file is or will be, by whatever name. An error if its folder is not there.
fn place_of(path: &Path) -> anyhow::Result<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder
        .canonicalize()
        .with_context(|| format!("{}: the folder {} is not there; make it first", path.display(), folder.display()))?;
    Ok(folder.join(path.file_name().unwrap_or_default()))
}

impl Report {
    /// The classes that gave most and least, and examples with their reasons.
    pub(crate) fn text(&self) -> String {
        let count = |count: usize| ui::count(count as u64);
        let mut table = Table::new(["class", "selected", "of"]);
        let mut classes: Vec<&OfClass> = self.classes.iter().collect();
        classes.sort_by_key(|of_class| std::cmp::Reverse(of_class.selected));
        for of_class in classes.iter().take(SHOWN) {
            let name = of_class.name.clone().unwrap_or_else(|| "no label".to_owned());
            table.row([name, count(of_class.selected), count(of_class.rows)]);
        }
        let more = classes.len().saturating_sub(SHOWN);
        let more = if more > 0 { format!("and {} more classes\n", count(more)) } else { String::new() };
        let examples: String = self
            .examples
            .iter()
            .map(|example| format!("  {}\n    {}\n", example.reason, shortened(&example.text, WIDEST)))
            .collect();
        let skipped = skipped_text(self.skipped.as_ref()).map_or(String::new(), |skipped| skipped + "\n");
        let rest = self.rest.as_ref().map_or(String::new(), |rest| format!("; the others: {rest}"));
        format!(
            "{skipped}{} of {} rows by {}\n{table}{more}{examples}written: {}{rest}",
            count(self.selected),
            count(self.rows),
            self.by,
            self.output
        )
    }
}

/// Characters of an example that are shown.
const WIDEST: usize = 100;

/// Classes that are shown.
const SHOWN: usize = 10;
