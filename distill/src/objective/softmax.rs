//! The log-softmax that the loss terms and the validation loss share.

/// `log(softmax(logits / temperature))` of one class after another, in f64.
pub(crate) fn log_softmax(logits: &[f32], temperature: f64) -> impl Iterator<Item = f64> {
    let scaled = move |logit: &f32| f64::from(*logit) / temperature;
    let top = logits.iter().map(scaled).fold(f64::NEG_INFINITY, f64::max);
    let log_sum = top + logits.iter().map(|logit| (scaled(logit) - top).exp()).sum::<f64>().ln();
    logits.iter().map(move |logit| scaled(logit) - log_sum)
}
