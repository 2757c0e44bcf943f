//! Scores between the tokens of a row, head by head, and what a loss on them says of the values they are made of. Only the
//! scores of one row and head are held at a time.

use nn::matrix::{Into, View, product};

/// The columns of one head in values of all heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadColumns {
    first: usize,
    size: usize,
}

impl HeadColumns {
    /// Those of each of so many heads.
    pub(super) fn of(width: usize, heads: usize) -> impl Iterator<Item = Self> {
        let size = width / heads;
        (0..heads).map(move |head| Self { first: head * size, size })
    }

    /// `[T, d]` of values `[T, width]`.
    fn view<'a>(&self, values: &'a [f32], tokens: usize) -> View<'a> {
        View::new(&values[self.first..], tokens, self.size, values.len() / tokens)
    }

    /// `1 / sqrt(d)`
    fn factor(&self) -> f32 {
        1.0 / (self.size as f32).sqrt()
    }
}

/// Scores between tokens: `a b^T / sqrt(d)` of one head.
///
/// # Shapes
/// - `a`, `b`: `[T, width]`; result `[T, T]`
pub(super) fn scores(a: &[f32], b: &[f32], tokens: usize, head: HeadColumns) -> Vec<f32> {
    let mut scores = vec![0.0; tokens * tokens];
    let [a, b] = [a, b].map(|values| head.view(values, tokens));
    product(a, b.transposed(), head.factor(), &mut scores, tokens, Into::Fresh);
    scores
}

/// Adds the gradient with respect to `a`, given that with respect to [`scores`] of `a` and `b`: `gradient b / sqrt(d)`. With
/// `transposed`, the gradient is read the other way, which makes it that with respect to `b`.
///
/// # Shapes
/// - `d_scores`: `[T, T]`; `b`, `d_a`: `[T, width]`
pub(super) fn add_gradient(d_scores: &[f32], b: &[f32], head: HeadColumns, d_a: &mut [f32], transposed: bool) {
    let tokens = d_scores.len().isqrt();
    let width = b.len() / tokens;
    let d_scores = View::new(d_scores, tokens, tokens, tokens);
    let d_scores = if transposed { d_scores.transposed() } else { d_scores };
    product(d_scores, head.view(b, tokens), head.factor(), &mut d_a[head.first..], width, Into::Sum);
}

/// The divergence of the student's softmax from the teacher's, summed over the tokens of a row: `KL(teacher || student)`. The
/// student's scores become its gradient with respect to them, times `scale`: `scale * (q - p)`.
///
/// # Shapes
/// - `student`, `teacher`: `[T, T]`, raw scores
pub(super) fn divergence(student: &mut [f32], teacher: &mut [f32], scale: f64) -> f64 {
    let tokens = student.len().isqrt();
    let scale = scale as f32;
    let mut loss = 0.0;
    for (student, teacher) in student.chunks_exact_mut(tokens).zip(teacher.chunks_exact_mut(tokens)) {
        log_softmax(student);
        log_softmax(teacher);
        let mut of_token = 0.0_f32;
        for (log_q, log_p) in student.iter_mut().zip(teacher.iter()) {
            let p = log_p.exp();
            of_token += p * (log_p - *log_q);
            *log_q = scale * (log_q.exp() - p);
        }
        loss += f64::from(of_token);
    }
    loss
}

fn log_softmax(scores: &mut [f32]) {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = scores.iter().map(|score| (score - top).exp()).sum();
    let log_sum = top + sum.ln();
    scores.iter_mut().for_each(|score| *score -= log_sum);
}

/// The divergence of a relation of values with themselves, summed over heads and the tokens of a row; adds its gradient.
///
/// # Shapes
/// - `student`, `gradient`: `[T, width]`; `teacher`: `[T, width]` of its own width
pub(super) fn add_own(
    student: &[f32],
    teacher: &[f32],
    tokens: usize,
    heads: usize,
    scale: f64,
    gradient: &mut [f32],
) -> f64 {
    let widths = [student, teacher].map(|values| values.len() / tokens);
    let mut loss = 0.0;
    for (ours, theirs) in HeadColumns::of(widths[0], heads).zip(HeadColumns::of(widths[1], heads)) {
        let (mut q, mut p) = (scores(student, student, tokens, ours), scores(teacher, teacher, tokens, theirs));
        loss += divergence(&mut q, &mut p, scale);
        add_gradient(&q, student, ours, gradient, false);
        add_gradient(&q, student, ours, gradient, true);
    }
    loss
}
