//! Scores between the tokens of a row, head by head, and what a loss on them says of the values they are made of. Only the
//! scores of one row and head are held at a time.

/// Scores between tokens: `a b^T / sqrt(d)` of one head.
///
/// # Shapes
/// - `a`, `b`: `[T, width]`; `head`: the first of its `d` columns and their number; result `[T, T]`
pub(super) fn scores(a: &[f32], b: &[f32], tokens: usize, head: [usize; 2]) -> Vec<f32> {
    let width = a.len() / tokens;
    let [first, size] = head;
    let factor = 1.0 / (size as f32).sqrt();
    // Transposed, so that the innermost loop is over tokens.
    let mut columns = vec![0.0; size * tokens];
    for (token, row) in b.chunks_exact(width).enumerate() {
        for (column, value) in row[first..first + size].iter().enumerate() {
            columns[column * tokens + token] = factor * value;
        }
    }
    let mut scores = vec![0.0; tokens * tokens];
    for (row, scores) in a.chunks_exact(width).zip(scores.chunks_exact_mut(tokens)) {
        for (value, column) in row[first..first + size].iter().zip(columns.chunks_exact(tokens)) {
            for (score, other) in scores.iter_mut().zip(column) {
                *score += value * other;
            }
        }
    }
    scores
}

/// Adds the gradient with respect to `a`, given that with respect to [`scores`] of `a` and `b`: `gradient b / sqrt(d)`. With
/// `transposed`, the gradient is read the other way, which makes it that with respect to `b`.
///
/// # Shapes
/// - `d_scores`: `[T, T]`; `b`, `d_a`: `[T, width]`
pub(super) fn add_gradient(d_scores: &[f32], b: &[f32], head: [usize; 2], d_a: &mut [f32], transposed: bool) {
    let tokens = d_scores.len().isqrt();
    let width = b.len() / tokens;
    let [first, size] = head;
    let factor = 1.0 / (size as f32).sqrt();
    for (token, d_row) in d_a.chunks_exact_mut(width).enumerate() {
        let d_row = &mut d_row[first..first + size];
        for (other, row) in b.chunks_exact(width).enumerate() {
            let at = if transposed { other * tokens + token } else { token * tokens + other };
            let by = factor * d_scores[at];
            for (d_value, value) in d_row.iter_mut().zip(&row[first..first + size]) {
                *d_value += by * value;
            }
        }
    }
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

/// Heads of values that wide: the first column of each, and their number of columns.
pub(super) fn heads(width: usize, heads: usize) -> impl Iterator<Item = [usize; 2]> {
    let size = width / heads;
    (0..heads).map(move |head| [head * size, size])
}

/// The divergence of a relation of values with themselves, summed over heads and the tokens of a row; adds its gradient.
///
/// # Shapes
/// - `student`, `gradient`: `[T, width]`; `teacher`: `[T, width]` of its own width
pub(super) fn add_own(
    student: &[f32],
    teacher: &[f32],
    tokens: usize,
    split: usize,
    scale: f64,
    gradient: &mut [f32],
) -> f64 {
    let widths = [student, teacher].map(|values| values.len() / tokens);
    let mut loss = 0.0;
    for (ours, theirs) in heads(widths[0], split).zip(heads(widths[1], split)) {
        let (mut q, mut p) = (scores(student, student, tokens, ours), scores(teacher, teacher, tokens, theirs));
        loss += divergence(&mut q, &mut p, scale);
        add_gradient(&q, student, ours, gradient, false);
        add_gradient(&q, student, ours, gradient, true);
    }
    loss
}
