//! What terms on the values of tokens see: those of student and teacher at the same tokens of a row, layer by layer.

use std::collections::BTreeMap;

use nn::{EncoderConfig, Tap};
use rayon::prelude::*;

use super::error::ObjectiveError;
use super::layers::{Counted, LayerMap};

/// A kind of values that every layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hidden,
    Query,
    Key,
    Value,
}

/// What a term compares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compares<'a> {
    pub(super) kinds: &'static [Kind],
    pub(super) layers: &'a LayerMap,
    pub(super) counted: Counted,
    pub(super) needs: Needs,
}

/// What both models must have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// The width of the values.
    Width,
    /// The number of attention heads.
    Heads,
    /// Widths that so many heads divide; if not given, the teacher's number of heads.
    Divided(Option<usize>),
}

/// A term's comparisons, for a student and its teacher.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Comparisons {
    /// The taps of each pair of layers: `[student, teacher]`, by kind.
    pub(super) pairs: Vec<[Vec<Tap>; 2]>,
    /// Heads that the values are split into.
    pub(super) heads: usize,
}

/// The values of a row at one pair of layers, by kind.
pub(super) struct TokenRow<'a> {
    /// `[T, width]` each.
    pub(super) student: Vec<&'a [f32]>,
    /// The same, in the teacher's width.
    pub(super) teacher: Vec<&'a [f32]>,
    /// `T`
    pub(super) tokens: usize,
    pub(super) heads: usize,
    /// Pairs of layers that the term compares.
    pub(super) pairs: usize,
}

/// The values of a micro-batch.
///
/// # Shapes
/// - `starts`: offsets of its rows, `[B + 1]`; each value: `[tokens, width]`
pub(crate) struct TokenValues<'a> {
    pub(crate) starts: &'a [u32],
    pub(crate) student: &'a BTreeMap<Tap, Vec<f32>>,
    pub(crate) teacher: &'a BTreeMap<Tap, Vec<f32>>,
}

impl Kind {
    fn tap(self, layer: usize) -> Tap {
        match self {
            Self::Hidden => Tap::Hidden(layer),
            Self::Query => Tap::Query(layer),
            Self::Key => Tap::Key(layer),
            Self::Value => Tap::Value(layer),
        }
    }
}

impl Comparisons {
    /// Those of a term, between these two models. An error if the layers are not there, or if the models differ in what the
    /// term needs to be the same.
    pub(super) fn of(
        term: &'static str,
        compares: Compares<'_>,
        student: &EncoderConfig,
        teacher: &EncoderConfig,
    ) -> Result<Self, ObjectiveError> {
        let Compares { kinds, layers, counted, needs } = compares;
        let refuse = |why: String| ObjectiveError::Models { term, why };
        let pairs = layers.pairs(counted, [student.num_layers, teacher.num_layers]).map_err(refuse)?;
        let of_kinds = |layer: usize| kinds.iter().map(|kind| kind.tap(layer)).collect();
        let pairs = pairs.into_iter().map(|pair| pair.map(of_kinds)).collect();
        let heads = match needs {
            Needs::Width => {
                let [ours, theirs] = [student, teacher].map(|model| model.hidden_size);
                if ours != theirs {
                    return Err(refuse(format!(
                        "the student's hidden states are {ours} wide, the teacher's {theirs}: give the student --hidden-size \
                         {theirs}, or take a term on relations between tokens, such as qkv_relations"
                    )));
                }
                1
            }
            Needs::Heads => {
                let [ours, theirs] = [student, teacher].map(|model| model.num_heads);
                if ours != theirs {
                    return Err(refuse(format!(
                        "the student has {ours} attention heads, the teacher {theirs}: give the student --num-heads {theirs}, \
                         or take qkv_relations, which splits both into the same number"
                    )));
                }
                ours
            }
            Needs::Divided(asked) => {
                let heads = asked.unwrap_or(teacher.num_heads);
                for (model, of) in [("student", student), ("teacher", teacher)] {
                    let width = of.inner_size();
                    if heads == 0 || width % heads != 0 {
                        return Err(refuse(format!(
                            "{heads} heads do not divide the {model}'s width of {width}; give another number as `heads`"
                        )));
                    }
                }
                heads
            }
        };
        Ok(Self { pairs, heads })
    }

    /// Adds a term's gradient, and returns its loss times the weight of the rows, `add` being the term for a row at a pair of
    /// layers. Rows are computed side by side, each by
    /// itself, so that bits do not depend on the number of threads.
    pub(super) fn add(
        &self,
        values: &TokenValues<'_>,
        gradients: &mut BTreeMap<Tap, Vec<f32>>,
        add: impl Fn(&TokenRow<'_>, &mut [&mut [f32]]) -> f64 + Sync,
    ) -> f64 {
        let mut loss = 0.0;
        let all = *values.starts.last().unwrap_or(&0) as usize;
        for [ours, theirs] in &self.pairs {
            let rows = values.starts.windows(2).map(|ends| ends[0] as usize..ends[1] as usize);
            let part = |all_values: &'_ BTreeMap<Tap, Vec<f32>>, tap: &Tap, row: &std::ops::Range<usize>| {
                let width = all_values[tap].len() / all.max(1);
                row.start * width..row.end * width
            };
            let mut taken: Vec<(Tap, Vec<f32>)> =
                ours.iter().map(|tap| (*tap, gradients.remove(tap).unwrap_or_default())).collect();
            for (tap, gradient) in &mut taken {
                gradient.resize(values.student[tap].len(), 0.0);
            }
            let mut rests: Vec<&mut [f32]> = taken.iter_mut().map(|(_, gradient)| gradient.as_mut_slice()).collect();
            let mut work = Vec::with_capacity(values.starts.len());
            for row in rows {
                let student = ours.iter().map(|tap| &values.student[tap][part(values.student, tap, &row)]).collect();
                let teacher = theirs.iter().map(|tap| &values.teacher[tap][part(values.teacher, tap, &row)]).collect();
                let gradient: Vec<&mut [f32]> = ours
                    .iter()
                    .zip(&mut rests)
                    .map(|(tap, rest)| {
                        let length = part(values.student, tap, &row).len();
                        let (first, others) = std::mem::take(rest).split_at_mut(length);
                        *rest = others;
                        first
                    })
                    .collect();
                let (tokens, heads, pairs) = (row.len(), self.heads, self.pairs.len());
                work.push((TokenRow { student, teacher, tokens, heads, pairs }, gradient));
            }
            let losses: Vec<f64> = work.into_par_iter().map(|(row, mut gradient)| add(&row, &mut gradient)).collect();
            loss += losses.iter().sum::<f64>();
            gradients.extend(taken);
        }
        loss
    }
}
