//! Whether a teacher's answers are worth learning from, before a training begins.

use anyhow::Result;
use cache::CacheReader;
use datasets::Key;

use super::TeacherSignal;
use super::cached;
use crate::objective::softmax::log_softmax;
use crate::scores::{accuracy, expected_calibration_error, predictions};

/// Rows that are looked at.
const SAMPLE: usize = 2000;

/// Labelled rows that it takes to speak of calibration.
const FEWEST_LABELLED: usize = 100;

/// Entropy, as a part of the largest, above which answers are nearly the same for every class, and below which they say no
/// more than a label.
const FLAT: f64 = 0.97;
const ONE_HOT: f64 = 0.005;

/// A mean distance of confidence from accuracy that spoils a student. A teacher of 0.56 made one that was worse than from
/// labels alone (Banking77, 770 rows).
const MISCALIBRATED: f64 = 0.25;

/// What a sample of a teacher's answers looks like.
#[derive(Debug, Clone, PartialEq)]
struct Quality {
    /// Mean entropy at the temperature, as a part of that of equal probabilities.
    entropy: f64,
    /// Of the labelled rows, if there are enough.
    calibration: Option<Calibration>,
}

#[derive(Debug, Clone, PartialEq)]
struct Calibration {
    accuracy: f64,
    /// Mean probability of the chosen class.
    confidence: f64,
    error: f64,
}

/// Warnings about a teacher's answers to these rows at these temperatures; none about forms that hold only some logits.
pub(crate) fn warnings(
    cache: &CacheReader,
    keys: &[Key],
    labels: &[Option<u32>],
    temperatures: impl Iterator<Item = f64>,
) -> Result<Vec<String>> {
    let classes = cache.captured().width;
    if !cached::whole_rows(cache) || keys.is_empty() || classes < 2 {
        return Ok(Vec::new());
    }
    let step = keys.len().div_ceil(SAMPLE);
    let sample: Vec<Key> = keys.iter().copied().step_by(step).collect();
    let labels: Vec<Option<u32>> = labels.iter().copied().step_by(step).collect();
    let TeacherSignal::Dense(logits) = cached::signal(cache, &sample)? else { return Ok(Vec::new()) };
    let warnings =
        temperatures.flat_map(|temperature| Quality::of(&logits, &labels, classes, temperature).warnings(temperature));
    let mut found: Vec<String> = warnings.collect();
    found.dedup();
    Ok(found)
}

impl Quality {
    fn of(logits: &[f32], labels: &[Option<u32>], classes: usize, temperature: f64) -> Self {
        let entropies = logits.chunks_exact(classes).map(|row| {
            let terms = log_softmax(row, temperature).filter(|log| log.is_finite());
            -terms.map(|log| log * log.exp()).sum::<f64>()
        });
        let entropy = entropies.sum::<f64>() / labels.len() as f64 / (classes as f64).ln();
        let labelled = labels.iter().flatten().count();
        let confidences = logits.chunks_exact(classes).zip(labels).filter(|(_, label)| label.is_some());
        let confidence = confidences.map(|(row, _)| log_softmax(row, 1.0).fold(f64::NEG_INFINITY, f64::max).exp());
        let calibration = (labelled >= FEWEST_LABELLED).then(|| Calibration {
            accuracy: accuracy(&predictions(logits, classes), labels),
            confidence: confidence.sum::<f64>() / labelled as f64,
            error: expected_calibration_error(logits, labels, classes),
        });
        Self { entropy, calibration }
    }

    fn warnings(&self, temperature: f64) -> Vec<String> {
        let mut said = Vec::new();
        let percent = |part: f64| format!("{:.1} %", 100.0 * part);
        if self.entropy > FLAT {
            said.push(format!(
                "warning: at temperature {temperature} the teacher's answers are nearly the same for every class ({} of the \
                 largest entropy), so that a student learns little from them; lower --temperature, or fine-tune the teacher \
                 for longer",
                percent(self.entropy)
            ));
        } else if self.entropy < ONE_HOT {
            said.push(format!(
                "warning: at temperature {temperature} the teacher's answers say no more than labels do ({} of the largest \
                 entropy); raise --temperature",
                percent(self.entropy)
            ));
        }
        if let Some(Calibration { accuracy, confidence, error }) = self.calibration
            && error > MISCALIBRATED
        {
            let (finding, way_out) = match confidence < accuracy {
                true => ("less sure than it is right", "fine-tune it for longer or at a higher rate"),
                false => ("surer than it is right", "raise --temperature, or fine-tune it on more rows"),
            };
            said.push(format!(
                "warning: the teacher is {finding}: on labelled rows its accuracy is {accuracy:.3}, its mean confidence \
                 {confidence:.3} (calibration error {error:.2}); a student may learn less from it than from labels alone: {way_out}"
            ));
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: usize = 4;

    /// 200 rows whose right class has this logit, the others 0; `right` of them are labelled so.
    fn quality(logit: f32, right: usize, temperature: f64) -> Quality {
        let rows = (0..200).map(|row| row % CLASSES);
        let logits: Vec<f32> = rows
            .clone()
            .flat_map(|top| (0..CLASSES).map(move |class| if class == top { logit } else { 0.0 }))
            .collect();
        let label = |(row, top): (usize, usize)| Some(if row < right { top } else { (top + 1) % CLASSES } as u32);
        let labels: Vec<Option<u32>> = rows.enumerate().map(label).collect();
        Quality::of(&logits, &labels, CLASSES, temperature)
    }

    #[test]
    fn entropy_is_a_part_of_the_largest() {
        assert!((quality(0.0, 200, 1.0).entropy - 1.0).abs() < 1e-12);
        // Probabilities e^2 / (e^2 + 3) and three times 1 / (e^2 + 3): 0.9183 nats of 1.3863.
        assert!((quality(4.0, 200, 2.0).entropy - 0.662402).abs() < 1e-4, "{:?}", quality(4.0, 200, 2.0));
    }

    #[test]
    fn answers_that_teach_little_are_told() {
        let warned = |logit, right, temperature, expected: &str| {
            let said = quality(logit, right, temperature).warnings(temperature).join("\n");
            assert!(said.contains(expected), "{expected}: {said}");
        };
        warned(0.2, 100, 2.0, "nearly the same for every class");
        warned(40.0, 200, 1.0, "say no more than labels do");
        warned(0.8, 190, 1.0, "less sure than it is right");
        warned(12.0, 90, 4.0, "surer than it is right");
        assert_eq!(quality(4.0, 190, 2.0).warnings(2.0), Vec::<String>::new());
    }
}
