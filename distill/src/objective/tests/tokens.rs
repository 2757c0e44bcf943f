//! The terms on tokens against values and gradients of PyTorch (tests/fixtures/make_token_terms.py).

use std::collections::BTreeMap;

use nn::{EncoderConfig, Family, Tap};

use super::*;

const STARTS: [u32; 5] = [0, 2, 5, 6, 8];

/// A model of two layers with two heads, that wide.
fn model(width: usize) -> EncoderConfig {
    EncoderConfig { num_heads: 2, num_layers: 2, ..Family::BERT.small(width) }
}

/// The values of such a model: 1.5 sin(1.3 i + ..), as in the script.
fn values(seed: u32, width: usize) -> BTreeMap<Tap, Vec<f32>> {
    let kinds: [fn(usize) -> Tap; 4] = [Tap::Hidden, Tap::Query, Tap::Key, Tap::Value];
    let mut values = BTreeMap::new();
    for (kind, tap) in kinds.into_iter().enumerate() {
        for layer in 0..if kind == 0 { 3 } else { 2 } {
            let phase = 0.7 * f64::from(seed) + 2.1 * kind as f64 + 0.9 * layer as f64;
            let value = |i: usize| ((1.3 * i as f64 + phase).sin() * 1.5) as f32;
            values.insert(tap(layer), (0..8 * width).map(value).collect());
        }
    }
    values
}

/// The loss and the gradients of a term between such models, in micro-batches that end behind these rows.
fn found(text: &str, width: usize, teacher_width: usize, ends: &[usize]) -> (f64, BTreeMap<Tap, Vec<f32>>) {
    let term: LossTermRecipe = text.parse().expect("a term");
    let objective = Objective::new(&[HARD, term], &classes(3), &[]).expect("a sound objective");
    let objective = objective.between(&model(width), &model(teacher_width)).expect("comparable");
    let (student, teacher) = (values(1, width), values(if teacher_width == width { 2 } else { 3 }, teacher_width));
    let mut counts = objective.counts([].iter());
    objective.count_tokens(&mut counts, &STARTS);
    let mut projections = objective.projections(5);
    let (mut report, mut gradients, mut first) = (objective.no_loss(), BTreeMap::<Tap, Vec<f32>>::new(), 0);
    for &end in ends {
        let tokens = STARTS[first] as usize..STARTS[end] as usize;
        let part = |values: &BTreeMap<Tap, Vec<f32>>, width: usize| -> BTreeMap<Tap, Vec<f32>> {
            values.iter().map(|(tap, all)| (*tap, all[tokens.start * width..tokens.end * width].to_vec())).collect()
        };
        let starts: Vec<u32> = STARTS[first..=end].iter().map(|start| start - STARTS[first]).collect();
        let (student, teacher) = (part(&student, width), part(&teacher, teacher_width));
        let values = TokenValues { starts: &starts, student: &student, teacher: &teacher };
        for (tap, gradient) in objective.evaluate_tokens(&values, &counts, &mut projections, &mut report) {
            gradients.entry(tap).or_default().extend(gradient);
        }
        first = end;
    }
    (report.total(), gradients)
}

#[test]
fn terms_on_tokens_are_those_of_pytorch() {
    let expected: serde_json::Value = serde_json::from_str(include_str!("tokens.json")).expect("JSON");
    for (text, teacher_width) in [
        ("hidden_mse,weight=1", 4),
        ("hidden_cosine,weight=1", 4),
        ("feature_map,weight=1,mean=0.5,variance=0.3", 4),
        ("pkd,weight=1", 4),
        ("attention_scores_mse,weight=1", 4),
        ("attention_kl,weight=1", 4),
        ("value_relation,weight=1", 4),
        ("qkv_relations,weight=1,heads=2", 6),
        ("rkd,weight=1", 6),
    ] {
        let name = text.split(',').next().expect("a name");
        let expected = &expected[name];
        let (loss, gradients) = found(text, 4, teacher_width, &[4]);
        let theirs = expected["loss"].as_f64().expect("a number");
        // Measured: at most 1.1e-7, of values and gradients in f32.
        close(loss, theirs, 1e-6 * theirs.abs().max(1.0));
        let all = expected["gradients"].as_object().expect("gradients");
        let names: Vec<String> = gradients.keys().map(ToString::to_string).collect();
        let mut known: Vec<&String> = all.keys().collect();
        known.sort_by_key(|name| names.iter().position(|other| other == *name));
        assert_eq!(names.iter().collect::<Vec<_>>(), known, "{text}");
        for (tap, gradient) in &gradients {
            let theirs = all[&tap.to_string()].as_array().expect("numbers");
            assert_eq!(theirs.len(), gradient.len());
            for (found, expected) in gradient.iter().zip(theirs) {
                close((*found).into(), expected.as_f64().expect("a number"), 1e-6);
            }
        }
        if name == "rkd" {
            continue;
        }
        // A step in two parts.
        let (parts, in_parts) = found(text, 4, teacher_width, &[1, 4]);
        close(parts, loss, 1e-12);
        assert!(in_parts == gradients, "{text}");
    }
}

#[test]
fn terms_on_tokens_say_what_the_models_lack() {
    let refused = |text: &str, student: EncoderConfig, expected: &str| {
        let term: LossTermRecipe = text.parse().expect("a term");
        let objective = Objective::new(&[term], &classes(3), &[]).expect("a sound objective");
        let error = objective.between(&student, &model(24)).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    };
    refused("hidden_mse,weight=1,layers=\"0:0,3:1\"", model(24), "hidden states of the student are 0 to 2");
    refused("attention_kl,weight=1,layers=\"0:2\"", model(24), "layers of the teacher are 0 to 1, and `layers` says 2");
    let heads = EncoderConfig { num_heads: 4, ..model(16) };
    refused("attention_kl,weight=1", heads, "the student has 4 attention heads, the teacher 2");
    refused("qkv_relations,weight=1,heads=5", model(24), "5 heads do not divide the student's width of 24");
    refused("pkd,weight=1", EncoderConfig { num_layers: 1, ..model(24) }, "none between its ends");
    assert!("hidden_mse,weight=1,layers=\"some\"".parse::<LossTermRecipe>().is_err());
    assert_eq!(
        check(&["hidden_mse,weight=1".parse().expect("a term"), R_DROP], 0.1),
        Err(ObjectiveError::Views { term: "hidden_mse" })
    );
}

#[test]
fn hidden_states_of_another_width_are_compared_through_a_projection() {
    for text in [
        "hidden_mse,weight=1",
        "hidden_cosine,weight=1,layers=\"1:2,2:2\"",
        "feature_map,weight=1,mean=1,variance=0.5",
        "pkd,weight=1",
    ] {
        let term: LossTermRecipe = text.parse().expect("a term");
        let objective = Objective::new(&[HARD, term], &classes(3), &[]).expect("a sound objective");
        let objective = objective.between(&model(4), &model(6)).expect("comparable");
        let mut counts = objective.counts([].iter());
        objective.count_tokens(&mut counts, &STARTS);
        let teacher = values(3, 6);
        let loss = |student: &BTreeMap<Tap, Vec<f32>>| {
            let values = TokenValues { starts: &STARTS, student, teacher: &teacher };
            let (mut report, mut projections) = (objective.no_loss(), objective.projections(5));
            let gradients = objective.evaluate_tokens(&values, &counts, &mut projections, &mut report);
            (report.total(), gradients, projections)
        };
        let student = values(1, 4);
        let (_, gradients, projections) = loss(&student);
        assert!(
            !projections.is_empty() && projections != objective.projections(5),
            "{text}: no gradient in the projection"
        );
        for (tap, gradient) in &gradients {
            for (place, found) in gradient.iter().enumerate() {
                let moved = |by: f32| {
                    let mut student = student.clone();
                    student.get_mut(tap).expect("a tap")[place] += by;
                    loss(&student).0
                };
                let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                close((*found).into(), difference, 2e-4);
            }
        }
    }
    let same = Objective::new(&["hidden_mse,weight=1".parse().expect("a term")], &classes(3), &[]).expect("sound");
    assert!(same.between(&model(4), &model(4)).expect("comparable").projections(5).is_empty());
}
