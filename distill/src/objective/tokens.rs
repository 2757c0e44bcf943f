//! What terms on the values of tokens see: those of student and teacher at the same tokens of a row, layer by layer.

use std::collections::BTreeMap;
use std::ops::Range;

use nn::{EncoderConfig, Tap};

use super::error::ObjectiveError;
use super::layers::{Counted, LayerMap};
use super::projection::Projection;

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
    /// Whether it reads the first token of each row alone.
    pub(super) first_tokens: bool,
}

/// What both models must have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// The width of hidden states; a student of another one gets a projection.
    Width,
    /// The number of attention heads.
    Heads,
    /// Nothing.
    Nothing,
    /// Widths that so many heads divide; if not given, the teacher's number of heads.
    Divided(Option<usize>),
}

/// A term's comparisons, for a student and its teacher.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Comparisons {
    /// The pairs of layers, as they are typed.
    pub(super) layers: String,
    /// The taps of each pair of layers: `[student, teacher]`, by kind.
    pub(super) pairs: Vec<[Vec<Tap>; 2]>,
    /// Heads that the values are split into.
    pub(super) heads: usize,
    /// The widths of student and teacher, where a projection makes one of the other.
    pub(super) projected: Option<[usize; 2]>,
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

/// A row with its gradient of each kind, `[T, width]` in the student's width.
pub(super) type BatchRow<'a> = (TokenRow<'a>, Vec<&'a mut [f32]>);

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
        let Compares { kinds, layers, counted, needs, .. } = compares;
        let refuse = |why: String| ObjectiveError::Models { term, why };
        let pairs = layers.pairs(counted, [student.num_layers, teacher.num_layers]).map_err(refuse)?;
        let typed = LayerMap::Pairs(pairs.clone()).to_string();
        let of_kinds = |layer: usize| kinds.iter().map(|kind| kind.tap(layer)).collect();
        let pairs = pairs.into_iter().map(|pair| pair.map(of_kinds)).collect();
        let widths = [student, teacher].map(|model| model.hidden_size);
        let projected = Some(widths).filter(|[ours, theirs]| needs == Needs::Width && ours != theirs);
        let heads = match needs {
            Needs::Width | Needs::Nothing => 1,
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
        Ok(Self { layers: typed, pairs, heads, projected })
    }

    /// Adds a term's gradient, and returns its loss times the weight of the rows, `add` being the term for all rows at a
    /// pair of layers. Hidden states of another width are compared through the projection.
    pub(super) fn add(
        &self,
        values: &TokenValues<'_>,
        mut projection: Option<&mut Projection>,
        gradients: &mut BTreeMap<Tap, Vec<f32>>,
        add: impl Fn(Vec<BatchRow<'_>>) -> f64,
    ) -> f64 {
        let mut loss = 0.0;
        for [ours, theirs] in &self.pairs {
            let student: Vec<&[f32]> = ours.iter().map(|tap| values.student[tap].as_slice()).collect();
            let teacher: Vec<&[f32]> = theirs.iter().map(|tap| values.teacher[tap].as_slice()).collect();
            // Out of the map for as long as all of them are written to.
            let mut taken: Vec<Vec<f32>> = ours.iter().map(|tap| gradients.remove(tap).unwrap_or_default()).collect();
            for (gradient, values) in taken.iter_mut().zip(&student) {
                gradient.resize(values.len(), 0.0);
            }
            match projection.as_deref_mut() {
                None => {
                    let gradients = taken.iter_mut().map(Vec::as_mut_slice).collect();
                    loss += self.add_pair(values.starts, &student, &teacher, gradients, &add);
                }
                Some(projection) => {
                    let projected = projection.apply(student[0]);
                    let mut d_projected = vec![0.0; projected.len()];
                    loss += self.add_pair(values.starts, &[&projected], &teacher, vec![&mut d_projected], &add);
                    projection.add_gradient(student[0], &d_projected, &mut taken[0]);
                }
            }
            gradients.extend(ours.iter().copied().zip(taken));
        }
        loss
    }

    /// One pair of layers.
    fn add_pair(
        &self,
        starts: &[u32],
        student: &[&[f32]],
        teacher: &[&[f32]],
        mut gradients: Vec<&mut [f32]>,
        add: &impl Fn(Vec<BatchRow<'_>>) -> f64,
    ) -> f64 {
        let all = *starts.last().unwrap_or(&0) as usize;
        let part = |values: &[f32], row: &Range<usize>| {
            let width = values.len() / all.max(1);
            row.start * width..row.end * width
        };
        let mut work = Vec::with_capacity(starts.len());
        for row in starts.windows(2).map(|ends| ends[0] as usize..ends[1] as usize) {
            let of_row = |values: &[&'_ [f32]]| -> Vec<Range<usize>> {
                values.iter().map(|values| part(values, &row)).collect()
            };
            let (ours, theirs) = (of_row(student), of_row(teacher));
            let mut gradient = Vec::with_capacity(gradients.len());
            for (rest, span) in gradients.iter_mut().zip(&ours) {
                let (first, others) = std::mem::take(rest).split_at_mut(span.len());
                gradient.push(first);
                *rest = others;
            }
            let student = student.iter().zip(ours).map(|(values, span)| &values[span]).collect();
            let teacher = teacher.iter().zip(theirs).map(|(values, span)| &values[span]).collect();
            let (tokens, heads, pairs) = (row.len(), self.heads, self.pairs.len());
            work.push((TokenRow { student, teacher, tokens, heads, pairs }, gradient));
        }
        add(work)
    }
}
