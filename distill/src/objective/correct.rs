//! What a teacher should have said.

use std::borrow::Cow;

/// The teacher's logits with the largest one and that of the row's label exchanged where these are two classes, so that it is
/// right and as sure as it was; as they are in a row without a label. `probability_shift_` of TextBrewer.
///
/// # Shapes
/// - `teacher`, result: `[K]`
pub(super) fn corrected(teacher: &[f32], label: Option<usize>) -> Cow<'_, [f32]> {
    let top = top_class(teacher);
    match label {
        Some(label) if label != top => {
            let mut corrected = teacher.to_vec();
            corrected.swap(label, top);
            Cow::Owned(corrected)
        }
        _ => Cow::Borrowed(teacher),
    }
}

/// The class with the largest logit; of equals the first.
pub(super) fn top_class(logits: &[f32]) -> usize {
    let better = |best: usize, class: usize| if logits[class] > logits[best] { class } else { best };
    (0..logits.len()).reduce(better).unwrap_or_default()
}
