//! Which parameters a training changes, at which rate, how gradients are clipped, and the average that is kept of weights.

use crate::support::Workplace;

const FINETUNE: &str =
    "finetune --model teacher --data train.tsv --epochs 1 --learning-rate 1e-3 --output tuned --overwrite";

/// The largest change of each of [`NAMES`] by a fine-tuning with these flags.
fn changes(place: &Workplace, flags: &str) -> Vec<f32> {
    place.json(&format!("{FINETUNE} {flags}"));
    let change = |name: &&str| {
        let [before, after] =
            ["teacher", "tuned"].map(|model| place.tensor(&format!("{model}/model.safetensors"), name));
        before.iter().zip(&after).map(|(before, after)| (before - after).abs()).fold(0.0, f32::max)
    };
    NAMES.iter().map(change).collect()
}

const NAMES: [&str; 5] = [
    "bert.embeddings.word_embeddings.weight",
    "bert.encoder.layer.0.output.dense.weight",
    "bert.encoder.layer.3.output.dense.weight",
    "bert.encoder.layer.3.output.dense.bias",
    "classifier.weight",
];

#[test]
fn what_is_frozen_stays_bit_for_bit() {
    let place = Workplace::new();
    let changed = |flags: &str| -> Vec<bool> { changes(&place, flags).iter().map(|change| *change > 0.0).collect() };
    assert_eq!(changed(""), [true; 5]);
    assert_eq!(changed("--freeze embeddings,0-2"), [false, false, true, true, true]);
    assert_eq!(changed("--freeze 0,encoder.layer.3.output.dense.bias,head"), [true, false, true, false, false]);
    assert_eq!(place.read_json("tuned/distill.json")["inputs"]["fit"]["freeze"][2], "head");
}

#[test]
fn lower_layers_learn_more_slowly() {
    let place = Workplace::new();
    let equal = changes(&place, "");
    let decayed = changes(&place, "--layer-decay 0.3 --head-learning-rate 3e-3");
    // 0.3 to the powers 5 (embeddings), 4 and 1; AdamW's steps are nearly as large as the rate.
    for (index, below) in [(0, 0.05), (1, 0.05), (2, 0.7)] {
        assert!(decayed[index] < below * equal[index], "{}: {} after {}", NAMES[index], decayed[index], equal[index]);
    }
    assert!(decayed[4] > 1.5 * equal[4], "the head: {} after {}", decayed[4], equal[4]);
}

#[test]
fn the_average_of_the_weights_is_what_is_evaluated_and_kept() {
    let place = Workplace::new();
    let own = changes(&place, "--keep last");
    let averaged = changes(&place, "--keep last --ema-decay 0.99");
    assert!(
        averaged.iter().zip(&own).all(|(averaged, own)| averaged != own && *averaged > 0.0),
        "{averaged:?} {own:?}"
    );
    let sum = |changes: &[f32]| changes.iter().sum::<f32>();
    assert!(sum(&averaged) < sum(&own), "it has not come as far: {averaged:?} after {own:?}");
    // An average of the last weights alone is these, but for rounding.
    let last = changes(&place, "--keep last --ema-decay 0");
    assert!(last.iter().zip(&own).all(|(last, own)| (last - own).abs() < 1e-6), "{last:?} {own:?}");
}

#[test]
fn clipping_and_freezing_that_make_no_sense_are_refused() {
    let place = Workplace::new();
    for (flags, expected) in [
        ("--freeze 4", ["--freeze 4", "layers from 0 to 3"]),
        ("--freeze encoder.layers.0", ["--freeze encoder.layers.0", "embeddings, head"]),
        ("--freeze embeddings,0-3,head", ["--freeze embeddings,0-3,head", "no parameter is left to train"]),
        ("--freeze 2-9", ["--freeze 2-9", "layers from 0 to 3"]),
        ("--freeze head --head-learning-rate 1e-2", ["--head-learning-rate 0.01", "the head is frozen"]),
    ] {
        place.refuses(&format!("{FINETUNE} {flags}"), &expected);
    }
    for (flags, expected) in [
        ("--max-gradient-value 1 --max-gradient-norm 1", "cannot be used with"),
        ("--ema-decay 1", "from 0 to below 1"),
        ("--layer-decay 0", "above 0"),
    ] {
        let done = place.run(&format!("{FINETUNE} {flags}"));
        assert_eq!(done.code, Some(2), "{flags}");
        assert!(done.stderr.contains(expected), "{flags}: {}", done.stderr);
    }
    let small = changes(&place, "--max-gradient-value 1e-12");
    assert!(small.iter().all(|change| *change > 0.0), "AdamW divides by the gradient's size: {small:?}");
}
