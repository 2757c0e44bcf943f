//! Metrics, computed from logits and labels.

use serde::{Deserialize, Serialize};

use crate::objective::softmax::log_softmax;
use crate::recipe::Metric;

/// Bins of equal width into which [`expected_calibration_error`] sorts predictions by confidence.
const CALIBRATION_BINS: usize = 15;

/// The scores of one model on one data set. Scores that need labels or a teacher are `None` without them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scores {
    /// Number of predicted rows; for a masked-language model, of masked tokens.
    pub(crate) rows: usize,
    /// Number of these with a label; accuracy, macro-F1 and ECE are over them.
    pub(crate) labelled: usize,
    /// See [`accuracy`].
    pub(crate) accuracy: Option<f64>,
    /// See [`macro_f1`].
    pub(crate) macro_f1: Option<f64>,
    /// See [`agreement`]; over all rows.
    pub(crate) agreement: Option<f64>,
    /// See [`expected_calibration_error`].
    pub(crate) ece: Option<f64>,
}

impl Scores {
    /// Scores the predictions of a model against the labels and, where there are some, a teacher's predictions.
    ///
    /// # Shapes
    /// - `logits`: `[N, K]`, before softmax, with `K = classes`
    /// - `teacher`: `[N]`, class ids
    /// - `labels`: `[N]`, class ids below `K` or none
    pub(crate) fn of(
        logits: &[f32],
        teacher: Option<&[u32]>,
        labels: &[Option<u32>],
        classes: usize,
    ) -> Result<Self, NotFinite> {
        if let Some(position) = logits.iter().position(|logit| !logit.is_finite()) {
            return Err(NotFinite { row: position / classes, class: position % classes, value: logits[position] });
        }
        let predicted = predictions(logits, classes);
        let labelled = labels.iter().flatten().count();
        let if_labelled = |figure: f64| (labelled > 0).then_some(figure);
        Ok(Self {
            rows: labels.len(),
            labelled,
            accuracy: if_labelled(accuracy(&predicted, labels)),
            macro_f1: if_labelled(macro_f1(&predicted, labels, classes)),
            agreement: teacher.map(|teacher| agreement(&predicted, teacher)),
            ece: if_labelled(expected_calibration_error(logits, labels, classes)),
        })
    }
}

impl Scores {
    /// The figure of this name; the loss stands beside the scores.
    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::Accuracy => self.accuracy,
            Metric::MacroF1 => self.macro_f1,
            Metric::Agreement => self.agreement,
            Metric::Ece => self.ece,
            Metric::Loss => None,
        }
    }

    /// The scores of a masked-language model: accuracy on `masked` tokens, of which `right` were predicted correctly.
    pub(crate) fn of_tokens(right: usize, masked: usize) -> Self {
        let accuracy = (masked > 0).then(|| share(right, masked));
        Self { rows: masked, labelled: masked, accuracy, macro_f1: None, agreement: None, ece: None }
    }
}

/// The scores after some training, with the loss that decides between equal ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Evaluated {
    pub(crate) scores: Scores,
    /// The class that every row is predicted to be, where that is one.
    pub(crate) only_class: Option<u32>,
    /// See [`cross_entropy`]; against the labels, or where there are none against the teacher's choices.
    pub(crate) loss: Option<f64>,
}

/// A model gave a logit that is no number, so that nothing can be said about its predictions.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("row {row}: the logit of class {class} is {value}; the weights are damaged, or the training diverged")]
pub(crate) struct NotFinite {
    /// Row, counted from 0.
    pub(crate) row: usize,
    /// Class id.
    pub(crate) class: usize,
    /// The logit.
    pub(crate) value: f32,
}

/// The class with the largest logit of each row, `[N]` from `[N, K]`; the first of equals.
pub(crate) fn predictions(logits: &[f32], classes: usize) -> Vec<u32> {
    logits.chunks_exact(classes).map(|row| largest(row) as u32).collect()
}

/// The fraction of labelled rows whose predicted class is the label; 0 if there are none.
pub(crate) fn accuracy(predicted: &[u32], labels: &[Option<u32>]) -> f64 {
    let labelled = labels.iter().flatten().count();
    let right = predicted.iter().zip(labels).filter(|&(&predicted, &label)| label == Some(predicted)).count();
    share(right, labelled)
}

/// What [`macro_f1`] is called where it is printed.
pub(crate) const MACRO_F1: &str = "macro-F1 (classes that occur)";

/// The mean of `F1 = 2 TP / (2 TP + FP + FN)` over the classes that occur among the labels or the predictions of labelled
/// rows, as scikit-learn's `f1_score(average="macro")`; 0 without any.
pub(crate) fn macro_f1(predicted: &[u32], labels: &[Option<u32>], classes: usize) -> f64 {
    let mut hits = vec![0_usize; classes];
    // Per class: times predicted plus times labelled, which is 2 TP + FP + FN.
    let mut mentions = vec![0_usize; classes];
    for (&predicted, label) in predicted.iter().zip(labels) {
        let Some(label) = *label else { continue };
        mentions[predicted as usize] += 1;
        mentions[label as usize] += 1;
        if predicted == label {
            hits[label as usize] += 1;
        }
    }
    let occur = mentions.iter().filter(|&&mentions| mentions > 0).count();
    let sum: f64 = hits.iter().zip(&mentions).map(|(&hits, &mentions)| share(2 * hits, mentions)).sum();
    sum / occur.max(1) as f64
}

/// The fraction of rows for which two models predict the same class.
pub(crate) fn agreement(predicted: &[u32], teacher_predicted: &[u32]) -> f64 {
    let same = predicted.iter().zip(teacher_predicted).filter(|(ours, theirs)| ours == theirs).count();
    share(same, predicted.len())
}

/// The expected calibration error: `sum over bins of n_bin / n * |accuracy_bin - confidence_bin|`, where a row's
/// confidence is its largest softmax probability and bin `m` of `M` holds the confidences in `((m-1)/M, m/M]`
/// (Guo et al., 2017, "On Calibration of Modern Neural Networks"). Over labelled rows; 0 without any.
///
/// # Shapes
/// - `logits`: `[N, K]`, before softmax, with `K = classes`
/// - `labels`: `[N]`
pub(crate) fn expected_calibration_error(logits: &[f32], labels: &[Option<u32>], classes: usize) -> f64 {
    #[derive(Clone, Copy, Default)]
    struct Bin {
        right: f64,
        confidence: f64,
    }
    let mut bins = [Bin::default(); CALIBRATION_BINS];
    let mut labelled = 0_usize;
    for (row, label) in logits.chunks_exact(classes).zip(labels) {
        let Some(label) = *label else { continue };
        let predicted = largest(row);
        let top = f64::from(row[predicted]);
        let confidence = 1.0 / row.iter().map(|&logit| (f64::from(logit) - top).exp()).sum::<f64>();
        let number = (confidence * CALIBRATION_BINS as f64).ceil() as usize;
        let bin = &mut bins[number.clamp(1, CALIBRATION_BINS) - 1];
        bin.confidence += confidence;
        bin.right += f64::from(u8::from(predicted == label as usize));
        labelled += 1;
    }
    // n_bin cancels: n_bin / n * |right / n_bin - confidence / n_bin|.
    bins.iter().map(|bin| (bin.right - bin.confidence).abs()).sum::<f64>() / labelled.max(1) as f64
}

/// The mean of `-log softmax(logits)[answer]`, in nats, over the rows that have an answer; none without any.
///
/// # Shapes
/// - `logits`: `[N, K]`, before softmax, with `K = classes`
/// - `answers`: `[N]`, class ids below `K` or none
pub(crate) fn cross_entropy(logits: &[f32], answers: &[Option<u32>], classes: usize) -> Option<f64> {
    let (sum, count) = summed_cross_entropy(logits, answers, classes);
    (count > 0).then(|| sum / count as f64)
}

/// The sum behind [`cross_entropy`], and over how many rows it is.
pub(crate) fn summed_cross_entropy(logits: &[f32], answers: &[Option<u32>], classes: usize) -> (f64, usize) {
    let (mut sum, mut count) = (0.0, 0);
    for (row, answer) in logits.chunks_exact(classes).zip(answers) {
        let Some(answer) = *answer else { continue };
        sum -= log_softmax(row, 1.0).nth(answer as usize).unwrap_or(f64::NAN);
        count += 1;
    }
    (sum, count)
}

fn largest(row: &[f32]) -> usize {
    let mut best = 0;
    for (class, &logit) in row.iter().enumerate() {
        if logit > row[best] {
            best = class;
        }
    }
    best
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits whose softmax over two classes gives the second one `probability`.
    fn two_classes(probability: f64) -> [f32; 2] {
        [0.0, (probability / (1.0 - probability)).ln() as f32]
    }

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    }

    #[test]
    fn the_first_of_equal_logits_is_predicted() {
        assert_eq!(predictions(&[1.0, 3.0, 3.0, -2.0, -2.0, -5.0], 3), [1, 0]);
    }

    #[test]
    fn accuracy_is_over_labelled_rows() {
        close(accuracy(&[0, 1, 2, 2], &[Some(0), Some(2), None, Some(2)]), 2.0 / 3.0);
        close(accuracy(&[0, 1], &[None, None]), 0.0);
    }

    #[test]
    fn macro_f1_is_over_the_classes_that_occur() {
        // Class 0: TP 2, FN 1 -> 4/5. Class 1: TP 1, FP 1 -> 2/3. Classes 2 and 3 do not occur on labelled rows.
        let predicted = [0, 0, 1, 1, 3, 0];
        let labels = [Some(0), Some(0), Some(0), Some(1), None, None];
        close(macro_f1(&predicted, &labels, 4), (4.0 / 5.0 + 2.0 / 3.0) / 2.0);
        // Class 2 is predicted and class 3 a label, neither rightly: f1_score([0, 3], [0, 2], average="macro").
        close(macro_f1(&[0, 2], &[Some(0), Some(3)], 5), 1.0 / 3.0);
        close(macro_f1(&[1], &[None], 2), 0.0);
        close(macro_f1(&[1, 0], &[Some(0), Some(1)], 2), 0.0);
        close(macro_f1(&[1, 0], &[Some(1), Some(0)], 2), 1.0);
    }

    #[test]
    fn cross_entropy_is_that_of_the_answers() {
        let logits = [two_classes(0.65), two_classes(0.9), two_classes(0.99), [1e4, 0.0]].concat();
        let answers = [Some(1), Some(0), None, Some(0)];
        let expected = (-(0.65_f64.ln()) - 0.1_f64.ln()) / 3.0;
        close(cross_entropy(&logits, &answers, 2).expect("answers"), expected);
        assert_eq!(cross_entropy(&logits, &[None; 4], 2), None);
    }

    #[test]
    fn agreement_is_over_all_rows() {
        close(agreement(&[0, 1, 2, 3], &[0, 1, 1, 3]), 0.75);
        close(agreement(&[], &[]), 0.0);
    }

    #[test]
    fn ece_weighs_each_bin_by_its_rows() {
        // Bin (0.6, 0.667]: one row, right, 0.65. Bin (0.867, 0.933]: 0.9 twice, one right.
        let logits = [two_classes(0.65), two_classes(0.9), two_classes(0.9), two_classes(0.99)].concat();
        let labels = [Some(1), Some(1), Some(0), None];
        let expected = (1.0 - 0.65) / 3.0 + 2.0 / 3.0 * (0.9 - 0.5);
        close(expected_calibration_error(&logits, &labels, 2), expected);
    }

    #[test]
    fn over_and_under_confidence_in_one_bin_cancel() {
        // 0.94 and 0.98 share the last bin: right + wrong against 1.92.
        let logits = [two_classes(0.94), two_classes(0.98)].concat();
        close(expected_calibration_error(&logits, &[Some(1), Some(0)], 2), (1.92 - 1.0) / 2.0);
    }

    #[test]
    fn certainty_falls_into_the_last_bin() {
        close(expected_calibration_error(&[0.0, 1e4], &[Some(1)], 2), 0.0);
        close(expected_calibration_error(&[0.0, 1e4], &[Some(0)], 2), 1.0);
    }

    #[test]
    fn a_bin_holds_its_upper_edge() {
        // Three equal logits of four give 1/3 = 5/15, which shares the fifth bin with 0.3.
        let edge = [0.0, 0.0, 0.0, -1e4];
        let below = [0.3_f64, 0.28, 0.22, 0.2].map(|probability| probability.ln() as f32);
        let found = expected_calibration_error(&[edge, below].concat(), &[Some(0), Some(1)], 4);
        close(found, (1.0 - (1.0 / 3.0 + 0.3)) / 2.0);
    }

    #[test]
    fn scores_leave_out_what_cannot_be_told() {
        let logits = [0.0, 2.0, 1.0, 0.0];
        let scores = Scores::of(&logits, None, &[None, None], 2).expect("finite");
        assert_eq!(
            serde_json::to_string(&scores).expect("serialises"),
            r#"{"rows":2,"labelled":0,"accuracy":null,"macro_f1":null,"agreement":null,"ece":null}"#
        );
        let scores = Scores::of(&logits, Some(&[1, 1]), &[Some(1), None], 2).expect("finite");
        assert_eq!((scores.rows, scores.labelled), (2, 1));
        assert_eq!((scores.accuracy, scores.macro_f1, scores.agreement), (Some(1.0), Some(1.0), Some(0.5)));
    }

    #[test]
    fn a_logit_that_is_no_number_is_named() {
        let error = Scores::of(&[0.0, 1.0, f32::NAN, 1.0], None, &[Some(0), Some(1)], 2).expect_err("refused");
        assert!(error.to_string().starts_with("row 1: the logit of class 0 is NaN"), "{error}");
    }
}
