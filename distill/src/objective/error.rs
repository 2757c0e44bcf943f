//! Why a loss cannot be created or evaluated, with the way out.

/// Why a loss cannot be created or evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum ObjectiveError {
    /// There are no terms.
    #[error("the objective has no term: at least one of weight_soft and weight_hard must be above 0")]
    Empty,
    /// A setting that makes no sense.
    #[error("the {setting} of `{term}` is {found}: it must be {expected}")]
    Setting {
        /// Name of the term.
        term: &'static str,
        /// Name of the setting.
        setting: &'static str,
        /// Its value.
        found: f64,
        /// The values that are allowed.
        expected: &'static str,
    },
    /// A term all of whose parts weigh nothing.
    #[error("{parts} of `{term}` are both 0, so that it would do nothing: one must be above 0")]
    NoPart {
        /// Name of the term.
        term: &'static str,
        /// Their names.
        parts: &'static str,
    },
    /// Smoothed labels in the focal loss.
    #[error(
        "the focal loss is of whole labels, not of smoothed ones: leave out one of focal_gamma and label_smoothing"
    )]
    SmoothedFocal,
    /// A term that takes each row once.
    #[error("`{term}` takes each row of a step once, and with `r_drop` each is there twice: leave out one of the two")]
    Views {
        /// Name of the term.
        term: &'static str,
    },
    /// A term between rows that are not in one pass.
    #[error(
        "`{term}` is between the rows of a step, and this step goes through the model in parts; raise --batch-tokens"
    )]
    MicroBatches {
        /// Name of the term.
        term: &'static str,
    },
    /// A student and a teacher that a term cannot compare.
    #[error("`{term}`: {why}")]
    Models {
        /// Name of the term.
        term: &'static str,
        /// What is the matter, with the way out.
        why: String,
    },
    /// A term on logits, which no layer of the student has, for a training of one layer.
    #[error(
        "`{term}` compares no layers, and the stage trains one layer after the other (layer_by_layer): give the term to a stage \
         behind it"
    )]
    OfNoLayer {
        /// Name of the term.
        term: &'static str,
    },
    /// Some of the teacher's logits, where all are needed.
    #[error("`{term}` needs all of the teacher's logits, and some of each row are stored")]
    PartOfLogits {
        /// Name of the term.
        term: &'static str,
    },
    /// More or fewer class weights than classes.
    #[error(
        "{found} class weights for {expected} classes: give one for each, in the order of the model's classes ({names}), \
         with --class-weights or in a recipe as `class_weights` of `hard_label`"
    )]
    ClassWeights {
        /// How many weights there are.
        found: usize,
        /// How many classes there are.
        expected: usize,
        /// The first of them.
        names: String,
    },
    /// R-Drop and nothing else.
    #[error("`r_drop` alone teaches nothing: add `soft_target` or `hard_label`, with a weight above 0")]
    RDropAlone,
    /// R-Drop for a model without dropout.
    #[error(
        "R-Drop compares two dropout masks, and the dropout is 0, so that it would do nothing: give --dropout, such as 0.1, \
         or leave out --r-drop (in a recipe `student.dropout` and the term `r_drop`)"
    )]
    NoDropout,
    /// The cache has no data for this temperature.
    #[error("the teacher is read at temperature {found}, which is not among those that the cache was made for")]
    UnknownTemperature {
        /// The temperature.
        found: f64,
    },
    /// No teacher outputs for terms that read them.
    #[error("the loss needs the teacher's logits, and this batch has none")]
    NoTeacher,
    /// A slice has the wrong length.
    #[error("{what}: {found} values, expected {expected} (rows times classes)")]
    Size {
        /// Which slice.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The expected length.
        expected: usize,
    },
    /// A label that is not a class id.
    #[error("row {row} of this step: label {label}, but there are {classes} classes, counted from 0")]
    Label {
        /// Row within the step.
        row: usize,
        /// Its label.
        label: u32,
        /// How many classes there are.
        classes: usize,
    },
    /// A logit that is infinite or not a number.
    #[error("row {row} of this step: the {model}'s logit of class {class} is {value}{}",
        if *model == "student" { "; the training diverged: try a lower learning rate" } else { "" })]
    NotFinite {
        /// Row within the step.
        row: usize,
        /// `student` or `teacher`.
        model: &'static str,
        /// Class id.
        class: usize,
        /// The logit.
        value: f32,
    },
}
