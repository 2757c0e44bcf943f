//! Values by hand, gradients by finite differences, and the laws that the terms obey.

use super::*;
use proptest::prelude::*;

mod logits;
mod tokens;

const SOFT: LossTermRecipe = LossTermRecipe::soft_target(1.0, 2.0);
const HARD: LossTermRecipe = LossTermRecipe::hard_label(1.0);

const R_DROP: LossTermRecipe = LossTermRecipe::RDrop(RDrop { weight: 1.0 });

fn classes(count: usize) -> Vec<String> {
    (0..count).map(|class| class.to_string()).collect()
}

fn focal(focal_gamma: f64, class_weights: Option<&[f64]>) -> LossTermRecipe {
    let class_weights = class_weights.map(|weights| ClassWeights::Listed(weights.to_vec()));
    LossTermRecipe::HardLabel(HardLabel {
        weight: 1.0,
        final_weight: None,
        class_weights,
        focal_gamma,
        label_smoothing: 0.0,
    })
}

fn objective(terms: &[LossTermRecipe]) -> Objective {
    Objective::new(terms, &classes(4), &[]).expect("a sound objective")
}

struct Evaluated {
    loss: f64,
    report: LossReport,
    d_logits: Vec<f32>,
}

/// Evaluates all rows as one step in one piece.
fn evaluate(
    terms: &[LossTermRecipe],
    classes: usize,
    student: &[f32],
    teacher: &[f32],
    labels: &[Option<u32>],
) -> Evaluated {
    let teacher = TeacherSignal::Dense(teacher.to_vec());
    evaluate_signal(terms, classes, student, &teacher, labels)
}

fn evaluate_signal(
    terms: &[LossTermRecipe],
    classes: usize,
    student: &[f32],
    teacher: &TeacherSignal,
    labels: &[Option<u32>],
) -> Evaluated {
    let rows = ObjectiveRows { first_row: 0, classes, student_logits: student, teacher: Some(teacher), labels };
    let mut d_logits = vec![f32::NAN; student.len()];
    let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
    let objective = Objective::new(terms, &names, labels).expect("a sound objective");
    let report = objective.evaluate(&rows, &objective.counts(labels.iter()), &mut d_logits).expect("evaluates");
    Evaluated { loss: report.total(), report, d_logits }
}

fn dense(logits: &[f32]) -> TeacherSignal {
    TeacherSignal::Dense(logits.to_vec())
}

fn close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found}, expected {expected}");
}

#[test]
fn soft_target_by_hand() {
    // At T = 2 the teacher's [2 ln 3, 0] is (3/4, 1/4) and the student's [0, 0] is (1/2, 1/2).
    let teacher = [2.0 * 3.0_f32.ln(), 0.0];
    let found = evaluate(&[SOFT], 2, &[0.0, 0.0], &teacher, &[None]);
    let divergence = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
    close(found.loss, 4.0 * divergence, 1e-7);
    close(found.d_logits[0].into(), 2.0 * (0.5 - 0.75), 1e-6);
    close(found.d_logits[1].into(), 2.0 * (0.5 - 0.25), 1e-6);
}

#[test]
fn hard_label_by_hand() {
    // Student (1/2, 1/3, 1/6); the second row has no label and counts for nothing.
    let student = [6.0_f32.ln(), 4.0_f32.ln(), 2.0_f32.ln(), 1.0, 2.0, 3.0];
    let found = evaluate(&[HARD], 3, &student, &student, &[Some(1), None]);
    close(found.loss, 3.0_f64.ln(), 1e-7);
    for (found, expected) in found.d_logits.iter().zip([0.5, -2.0 / 3.0, 1.0 / 6.0, 0.0, 0.0, 0.0]) {
        close((*found).into(), expected, 1e-7);
    }
    assert_eq!(found.report.terms[0].loss.count, 1.0);
}

/// Rows, their labels and class weights of the values from PyTorch below.
const LOGITS: [f32; 12] = [0.5, -1.0, 2.0, 1.5, 0.25, -0.75, -0.3, 0.8, 0.1, 2.0, -2.0, 0.0];
const LABELS: [Option<u32>; 4] = [Some(2), Some(0), Some(1), Some(1)];
const WEIGHTS: [f64; 3] = [0.5, 2.0, 1.25];

/// Compares with what PyTorch 2.11 says in f64, which the logits, being f32, are within 1e-7 of.
fn as_in_pytorch(terms: &[LossTermRecipe], labels: &[Option<u32>], loss: f64, gradient: [f64; 12]) {
    let found = evaluate(terms, 3, &LOGITS, &LOGITS[..3 * labels.len()], labels);
    close(found.loss, loss, 2e-7);
    for (found, expected) in found.d_logits.iter().zip(gradient) {
        close((*found).into(), expected, 1e-7);
    }
}

#[test]
fn class_weights_are_those_of_pytorch() {
    // torch.nn.CrossEntropyLoss(weight=WEIGHTS)(LOGITS, LABELS) and its gradient.
    #[rustfmt::skip]
    as_in_pytorch(&[focal(0.0, Some(&WEIGHTS))], &LABELS, 1.7323263332066812, [
        0.0381066069869645, 0.008502733319714663, -0.04660934030667915,
        -0.024483448595559572, 0.017898835130230568, 0.006584613465329001,
        0.06328724056798268, -0.1577007090928638, 0.09441346852488111,
        0.3015002894599425, -0.3423039165299246, 0.040803627069982036,
    ]);
}

#[test]
fn the_focal_loss_is_that_of_pytorch() {
    // u = log_softmax(LOGITS)[LABELS]; (-(1 - u.exp()) ** gamma * u).mean(), and its gradient by autograd.
    #[rustfmt::skip]
    as_in_pytorch(&[focal(0.5, None)], &LABELS, 1.200955600579186, [
        0.029262250521703947, 0.006529290645211275, -0.03579154116691522,
        -0.053107819676569065, 0.038824927166891184, 0.014282892509677876,
        0.0417808863372114, -0.10411064446440609, 0.062329758127194684,
        0.22216023085890493, -0.25222634862610616, 0.030066117767201167,
    ]);
    #[rustfmt::skip]
    as_in_pytorch(&[focal(2.0, None)], &LABELS, 1.0434744979795831, [
        0.005576813279853174, 0.001244355240251529, -0.006821168520104702,
        -0.014996942773097035, 0.010963643667495842, 0.0040332991056011925,
        0.02296887987512243, -0.0572344221499856, 0.03426554227486318,
        0.23793146918134986, -0.27013199195391124, 0.03220052277256137,
    ]);
    // Each row times WEIGHTS[LABELS], the sum divided by that of the weights.
    #[rustfmt::skip]
    as_in_pytorch(&[focal(2.0, Some(&WEIGHTS))], &LABELS, 1.4435051995156336, [
        0.004849402852046239, 0.0010820480350013295, -0.005931450887047568,
        -0.00521632792107723, 0.003813441275650728, 0.0014028866454265018,
        0.03195670243495295, -0.07963050038258868, 0.04767379794763573,
        0.33103508755666067, -0.3758358148923983, 0.04480072733573756,
    ]);
}

#[test]
fn r_drop_is_that_of_its_authors_code() {
    // Two rows in two views each: 0.5 * (F.cross_entropy(p, y) + F.cross_entropy(q, y)) + 0.7 * KL, where KL is
    // compute_kl_loss of the authors' README, divided by the two rows.
    #[rustfmt::skip]
    as_in_pytorch(&[HARD, LossTermRecipe::RDrop(RDrop { weight: 0.7 })], &[Some(2), Some(1)], 2.9037967520049506, [
        -0.14129931103481366, -0.04120721971406967, 0.1825065307488833,
        0.303893157507542, 0.0980162676449613, -0.4019094251525033,
        -0.18387108105547867, 0.13840119356890795, 0.04546988748657063,
        0.39154484507373355, -0.3520717854712657, -0.03947305960246789,
    ]);
    let terms = [HARD, LossTermRecipe::RDrop(RDrop { weight: 0.7 })];
    let found = evaluate(&terms, 3, &LOGITS, &LOGITS[..6], &[Some(2), Some(1)]);
    // Counts are of rows, not of views.
    let [hard, r_drop] = [found.report.terms[0].loss, found.report.terms[1].loss];
    assert_eq!((hard.count, r_drop.count), (2.0, 2.0));
    close(hard.mean(), 1.8922336003177649, 2e-7);
    close(r_drop.mean(), 1.44509021669598, 2e-7);
}

#[test]
fn equal_views_have_the_loss_of_one() {
    let twice: Vec<f32> = LOGITS.chunks_exact(3).flat_map(|row| [row, row].concat()).collect();
    let teacher: Vec<f32> = LOGITS.iter().rev().copied().collect();
    let terms = [SOFT, focal(1.5, Some(&WEIGHTS))];
    let once = evaluate(&terms, 3, &LOGITS, &teacher, &LABELS);
    let found = evaluate(&[&terms[..], &[R_DROP]].concat(), 3, &twice, &teacher, &LABELS);
    close(found.loss, once.loss, 1e-12);
    assert_eq!(found.report.terms[2].loss, Weighted { sum: 0.0, count: 4.0 });
    for (views, gradient) in found.d_logits.chunks_exact(6).zip(once.d_logits.chunks_exact(3)) {
        for class in 0..3 {
            assert_eq!(views[class], views[3 + class]);
            close((2.0 * views[class]).into(), gradient[class].into(), 1e-7);
        }
    }
}

#[test]
fn a_step_whose_labels_weigh_nothing_has_no_hard_term() {
    let found = evaluate(&[SOFT, focal(0.0, Some(&[0.0, 1.0]))], 2, &[0.5, -0.5], &[1.0, -2.0], &[Some(0)]);
    let soft_alone = evaluate(&[SOFT], 2, &[0.5, -0.5], &[1.0, -2.0], &[None]);
    assert_eq!(found.loss, soft_alone.loss);
    assert_eq!(found.d_logits, soft_alone.d_logits);
}

#[test]
fn the_focal_loss_is_finite_however_sure_the_student_is() {
    for gamma in [1e-3, 0.5, 1.0, 2.0, 100.0] {
        for margin in [1e-6_f32, 1.0, 10.0, 36.0, 40.0, 100.0, 800.0, 1e4, 1e30] {
            for label in [0, 1] {
                let found = evaluate(&[focal(gamma, None)], 2, &[margin, 0.0], &[0.0; 2], &[Some(label)]);
                assert!(found.loss.is_finite() && found.loss >= 0.0, "{gamma} {margin} {label}: {}", found.loss);
                let [first, second] = found.d_logits[..] else { panic!("two classes") };
                assert!(first.is_finite() && first == -second, "{gamma} {margin} {label}: {first} {second}");
                // Towards the label, if anywhere.
                assert!(if label == 0 { first <= 0.0 } else { first > 0.0 }, "{gamma} {margin} {label}: {first}");
            }
        }
    }
    // 1 - p is exp(-40), far below what 1.0 - p can be in f64: the loss is about (1 - p)^1.5, its gradient 1.5 times that.
    let found = evaluate(&[focal(0.5, None)], 2, &[40.0, 0.0], &[0.0; 2], &[Some(0)]);
    close(found.loss / (-60.0_f64).exp(), 1.0, 1e-12);
    close(f64::from(found.d_logits[0]) / (-60.0_f64).exp(), -1.5, 1e-6);
}

#[test]
fn only_the_plain_terms_are_fused() {
    let fused = |terms: &[LossTermRecipe]| objective(terms).fused().is_some();
    assert!(fused(&[SOFT, HARD]) && fused(&[HARD]));
    assert!(!fused(&[SOFT, focal(2.0, None)]) && !fused(&[focal(0.0, Some(&[1.0; 4]))]) && !fused(&[HARD, R_DROP]));
}

#[test]
fn without_its_teacher_a_loss_keeps_what_is_not_the_teacher_s() {
    let halved = |weight, focal_gamma| {
        let class_weights = Some(ClassWeights::Balanced);
        LossTermRecipe::HardLabel(HardLabel {
            weight,
            final_weight: None,
            class_weights,
            focal_gamma,
            label_smoothing: 0.0,
        })
    };
    assert_eq!(without_teacher(&[SOFT]), [HARD]);
    assert_eq!(without_teacher(&[SOFT, LossTermRecipe::hard_label(0.3)]), [HARD]);
    assert_eq!(without_teacher(&[halved(0.5, 2.0), SOFT, R_DROP]), [halved(1.0, 2.0), R_DROP]);
    assert_eq!(without_teacher(&[SOFT, R_DROP]), [HARD, R_DROP]);
}

#[test]
fn each_term_is_divided_by_its_own_count() {
    let student = [0.3, -0.2, 0.9, 0.1, -1.0, 0.4];
    let teacher = [1.0, 0.0, 0.5, -0.5, 0.2, 0.1];
    let labels = [Some(0), None, Some(1)];
    let both = evaluate(
        &[LossTermRecipe::soft_target(0.7, 3.0), LossTermRecipe::hard_label(0.3)],
        2,
        &student,
        &teacher,
        &labels,
    );
    let soft = both.report.terms[0].loss;
    let hard = both.report.terms[1].loss;
    assert_eq!((soft.count, hard.count), (3.0, 2.0));
    close(both.loss, 0.7 * soft.sum / 3.0 + 0.3 * hard.sum / 2.0, 1e-15);
}

#[test]
fn a_step_without_labels_has_no_hard_term() {
    let found = evaluate(&[SOFT, HARD], 2, &[0.5, -0.5], &[1.0, -2.0], &[None]);
    let soft_alone = evaluate(&[SOFT], 2, &[0.5, -0.5], &[1.0, -2.0], &[None]);
    assert_eq!(found.loss, soft_alone.loss);
    assert_eq!(found.d_logits, soft_alone.d_logits);
}

#[test]
fn the_soft_gradient_keeps_its_size_at_high_temperatures() {
    // For T far above the logits T^2 * KL tends to that of centred logits: d = (s - t - mean) / K.
    let (student, teacher) = ([0.4, -0.3, 0.2], [-0.1, 0.5, 0.3]);
    let mean = (0.5 - 0.8 - 0.1) / 3.0;
    for temperature in [1e3, 1e4] {
        let term = LossTermRecipe::soft_target(1.0, temperature);
        let found = evaluate(&[term], 3, &student, &teacher, &[None]);
        for (d_logit, difference) in found.d_logits.iter().zip([0.5, -0.8, -0.1]) {
            close((*d_logit).into(), (difference - mean) / 3.0, 1e-3);
        }
    }
}

#[test]
fn far_apart_logits_stay_finite() {
    let found = evaluate(&[SOFT, HARD], 2, &[-1e4, 1e4], &[1e4, -1e4], &[Some(0)]);
    // KL is 1e4 at T = 2, times 4; the cross-entropy is 2e4.
    close(found.loss, 4e4 + 2e4, 1e-6);
    assert_eq!(found.d_logits, [-3.0, 3.0]);
}

#[test]
fn a_logit_that_is_no_number_names_the_row_of_the_step() {
    let labels = [Some(0), Some(1)];
    let rows = ObjectiveRows {
        first_row: 30,
        classes: 2,
        student_logits: &[0.0, 0.0, 1.0, f32::NAN],
        teacher: None,
        labels: &labels,
    };
    let objective = objective(&[HARD]);
    let step = objective.counts([Some(0); 32].iter());
    let error = objective.evaluate(&rows, &step, &mut [0.0; 4]).expect_err("refused");
    assert_eq!(
        error.to_string(),
        "row 31 of this step: the student's logit of class 1 is NaN; the training diverged: try a lower learning rate"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let sound = ObjectiveRows {
        first_row: 0,
        classes: 2,
        student_logits: &[0.0, 1.0],
        teacher: Some(&dense(&[0.0, 1.0])),
        labels: &[Some(1)],
    };
    let objective = objective(&[SOFT, HARD]);
    let step = objective.counts([Some(1)].iter());
    let check = |rows: ObjectiveRows<'_>, expected: &str| {
        let error = objective.evaluate(&rows, &step, &mut [0.0; 2]).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(ObjectiveRows { teacher: None, ..sound }, "needs the teacher's logits");
    check(ObjectiveRows { student_logits: &[0.0], ..sound }, "student logits: 1 values, expected 2");
    check(ObjectiveRows { teacher: Some(&dense(&[0.0; 4])), ..sound }, "teacher logits: 4 values, expected 2");
    check(ObjectiveRows { labels: &[Some(2)], ..sound }, "label 2, but there are 2 classes");
    check(ObjectiveRows { teacher: Some(&dense(&[0.0, f32::INFINITY])), ..sound }, "the teacher's logit of class 1");
}

#[test]
fn an_objective_without_sense_is_refused() {
    let refused = |terms: &[LossTermRecipe], expected: &str| {
        let error = check(terms, 0.1).expect_err("refused").to_string();
        assert!(error.contains(expected), "{terms:?}: {error}");
        assert!(Objective::new(terms, &classes(2), &[]).is_err());
    };
    refused(&[], "has no term");
    refused(&[LossTermRecipe::hard_label(0.0)], "the weight of `hard_label` is 0");
    refused(&[LossTermRecipe::hard_label(f64::NAN)], "NaN");
    refused(&[LossTermRecipe::soft_target(1.0, 0.0)], "the temperature of `soft_target` is 0");
    refused(&[LossTermRecipe::soft_target(1.0, f64::INFINITY)], "inf");
    refused(&[focal(-0.5, None)], "the focal_gamma of `hard_label` is -0.5: it must be a number, 0 or more");
    refused(&[focal(f64::INFINITY, None)], "inf");
    refused(&[R_DROP], "`r_drop` alone teaches nothing");
    refused(&[HARD, LossTermRecipe::RDrop(RDrop { weight: -1.0 })], "the weight of `r_drop` is -1");
    assert_eq!(check(&[HARD, R_DROP], 0.0), Err(ObjectiveError::NoDropout));
    assert_eq!((check(&[HARD], 0.0), check(&[HARD, R_DROP], 0.1)), (Ok(()), Ok(())));
    let weights = Objective::new(&[focal(0.0, Some(&[1.0, 2.0]))], &classes(3), &[]).expect_err("refused");
    assert!(weights.to_string().starts_with("2 class weights for 3 classes"), "{weights}");
}

#[test]
fn a_term_is_written_by_its_name_and_takes_no_stray_field() {
    let json = serde_json::to_string(&SOFT).expect("serialises");
    assert_eq!(json, r#"{"term":"soft_target","weight":1.0,"temperature":2.0}"#);
    assert_eq!(serde_json::from_str::<LossTermRecipe>(&json).expect("reads"), SOFT);
    let stray = r#"{"term":"hard_label","weight":1.0,"temperature":2.0}"#;
    assert!(serde_json::from_str::<LossTermRecipe>(stray).is_err());
    for (term, json) in [
        (HARD, r#"{"term":"hard_label","weight":1.0}"#),
        (R_DROP, r#"{"term":"r_drop","weight":1.0}"#),
        (
            focal(2.0, Some(&[1.0, 2.5])),
            r#"{"term":"hard_label","weight":1.0,"class_weights":[1.0,2.5],"focal_gamma":2.0}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&term).expect("serialises"), json);
        assert_eq!(serde_json::from_str::<LossTermRecipe>(json).expect("reads"), term);
    }
}

/// Three times 1.6e-5, the largest seen in 12,000 cases like these in f64; it is what central differences of width 0.02
/// leave out, of R-Drop and the focal loss most.
const DIFFERENCE_TOLERANCE: f64 = 5e-5;

/// Student logits, teacher logits and labels of a few rows.
#[derive(Debug, Clone)]
struct Case {
    classes: usize,
    student: Vec<f32>,
    teacher: Vec<f32>,
    labels: Vec<Option<u32>>,
}

fn cases() -> impl Strategy<Value = Case> {
    (1_usize..6, 2_usize..6).prop_flat_map(|(rows, classes)| {
        let logits = || proptest::collection::vec(-6.0_f32..6.0, rows * classes);
        let labels = proptest::collection::vec(proptest::option::of(0..classes as u32), rows);
        (logits(), logits(), labels).prop_map(move |(student, teacher, labels)| Case {
            classes,
            student,
            teacher,
            labels,
        })
    })
}

fn terms() -> impl Strategy<Value = Vec<LossTermRecipe>> {
    (0.1_f64..2.0, 0.5_f64..8.0, 0.1_f64..2.0).prop_map(|(soft, temperature, hard)| {
        vec![LossTermRecipe::soft_target(soft, temperature), LossTermRecipe::hard_label(hard)]
    })
}

/// Those, with class weights and the focal loss where they are drawn, and R-Drop.
fn all_terms() -> impl Strategy<Value = Vec<LossTermRecipe>> {
    let balanced = proptest::option::of(Just(ClassWeights::Balanced));
    let gamma = prop_oneof![Just(0.0), 0.3_f64..4.0];
    (terms(), balanced, gamma, proptest::option::of(0.1_f64..3.0)).prop_map(|(mut terms, balanced, gamma, r_drop)| {
        if let LossTermRecipe::HardLabel(hard) = &mut terms[1] {
            (hard.class_weights, hard.focal_gamma) = (balanced, gamma);
        }
        terms.extend(r_drop.map(|weight| LossTermRecipe::RDrop(RDrop { weight })));
        terms
    })
}

/// The student's logits of a case in the views that these terms need: the second has the rows in reverse.
fn in_views(case: &Case, terms: &[LossTermRecipe]) -> Vec<f32> {
    if !terms.iter().any(is_r_drop) {
        return case.student.clone();
    }
    let rows = case.student.chunks_exact(case.classes);
    rows.clone().zip(rows.rev()).flat_map(|(first, second)| [first, second].concat()).collect()
}

proptest! {
    #[test]
    fn gradients_are_finite_differences(case in cases(), terms in all_terms()) {
        let student = in_views(&case, &terms);
        let loss = |student: &[f32]| evaluate(&terms, case.classes, student, &case.teacher, &case.labels).loss;
        let found = evaluate(&terms, case.classes, &student, &case.teacher, &case.labels);
        for position in 0..student.len() {
            let (mut above, mut below) = (student.clone(), student.clone());
            above[position] += 1e-2;
            below[position] -= 1e-2;
            // The step that f32 really took.
            let width = f64::from(above[position]) - f64::from(below[position]);
            let expected = (loss(&above) - loss(&below)) / width;
            close(found.d_logits[position].into(), expected, DIFFERENCE_TOLERANCE);
        }
    }

    #[test]
    fn micro_batches_add_up_to_the_step(case in cases(), terms in all_terms(), cut in 0_usize..6) {
        let student = in_views(&case, &terms);
        let whole = evaluate(&terms, case.classes, &student, &case.teacher, &case.labels);
        let cut = cut.min(case.labels.len());
        let objective = Objective::new(&terms, &classes(case.classes), &case.labels).expect("a sound objective");
        let width = objective.views() * case.classes;
        let step = objective.counts(case.labels.iter());
        let mut d_logits = vec![f32::NAN; student.len()];
        let (first, second) = d_logits.split_at_mut(cut * width);
        let part = |first_row, span: std::ops::Range<usize>, d_logits: &mut [f32]| {
            let rows = ObjectiveRows {
                first_row,
                classes: case.classes,
                student_logits: &student[span.start * width..span.end * width],
                teacher: Some(&dense(&case.teacher[span.start * case.classes..span.end * case.classes])),
                labels: &case.labels[span],
            };
            objective.evaluate(&rows, &step, d_logits).expect("evaluates")
        };
        let mut report = part(0, 0..cut, first);
        report += &part(cut, cut..case.labels.len(), second);
        close(report.total(), whole.loss, 1e-12);
        prop_assert_eq!(d_logits, whole.d_logits);
    }

    #[test]
    fn a_constant_added_to_a_models_logits_changes_nothing(case in cases(), terms in terms()) {
        let shifted: Vec<f32> = case.teacher.iter().map(|logit| logit + 4.0).collect();
        let found = evaluate(&terms, case.classes, &case.student, &case.teacher, &case.labels);
        let moved = evaluate(&terms, case.classes, &case.student, &shifted, &case.labels);
        close(moved.loss, found.loss, 1e-5);
    }

    #[test]
    fn the_soft_term_is_least_at_the_teacher(case in cases(), temperature in 0.5_f64..8.0) {
        let term = [LossTermRecipe::soft_target(1.0, temperature)];
        let found = evaluate(&term, case.classes, &case.student, &case.teacher, &case.labels);
        let equal = evaluate(&term, case.classes, &case.teacher, &case.teacher, &case.labels);
        prop_assert!(found.loss >= -1e-12);
        prop_assert_eq!(equal.loss, 0.0);
        prop_assert!(equal.d_logits.iter().all(|&d_logit| d_logit == 0.0));
    }

    #[test]
    fn scaling_logits_and_temperature_together_scales_the_soft_term_by_its_square(case in cases()) {
        // Halving is exact in f32: KL is the same, T^2 is four times smaller.
        let half = |logits: &[f32]| logits.iter().map(|logit| logit / 2.0).collect::<Vec<_>>();
        let at = |temperature, student: &[f32], teacher: &[f32]| {
            let term = [LossTermRecipe::soft_target(1.0, temperature)];
            evaluate(&term, case.classes, student, teacher, &case.labels)
        };
        let warm = at(4.0, &case.student, &case.teacher);
        let cool = at(2.0, &half(&case.student), &half(&case.teacher));
        close(warm.loss, 4.0 * cool.loss, 1e-12);
    }
}

/// The largest `k` logits of each row and the tails at these temperatures.
fn top_k(teacher: &[f32], classes: usize, k: usize, temperatures: &[f64]) -> TeacherSignal {
    let (mut indices, mut logits, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    for row in teacher.chunks_exact(classes) {
        let mut order: Vec<u32> = (0..classes as u32).collect();
        order.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
        indices.extend(&order[..k]);
        logits.extend(order[..k].iter().map(|&class| row[class as usize]));
        for temperature in temperatures {
            let rest =
                order[k..].iter().map(|&class| (f64::from(row[class as usize]) / temperature).exp()).sum::<f64>();
            tails.push(rest.ln() as f32);
        }
    }
    TeacherSignal::TopK { k, indices, logits, temperatures: temperatures.to_vec(), tails }
}

const TEACHER: [f32; 12] = [2.0, -1.0, 0.5, 1.5, -0.5, 0.0, 0.3, 0.1, -2.0, 1.0, 0.9, -0.7];
const STUDENT: [f32; 12] = [0.1, 0.2, -0.3, 1.1, 0.4, -0.9, 2.0, -1.5, 0.6, 0.0, -0.2, 0.8];

#[test]
fn with_all_classes_but_one_stored_nothing_is_lost() {
    // The rest is one class alone then, and its tail is its logit.
    let whole = evaluate(&[SOFT], 6, &STUDENT, &TEACHER, &[None, None]);
    let stored = evaluate_signal(&[SOFT], 6, &STUDENT, &top_k(&TEACHER, 6, 5, &[1.0, 2.0]), &[None, None]);
    close(stored.loss, whole.loss, 1e-7);
    for (stored, whole) in stored.d_logits.iter().zip(&whole.d_logits) {
        close((*stored).into(), (*whole).into(), 1e-7);
    }
}

#[test]
fn the_gradient_of_stored_signals_is_that_of_their_loss() {
    let sample = TeacherSignal::Sample { draws: 5, indices: vec![0, 0, 3, 2, 0, 4, 3, 3, 1, 0] };
    for signal in [top_k(&TEACHER, 6, 2, &[2.0]), top_k(&TEACHER, 6, 1, &[1.0, 2.0, 4.0]), sample] {
        let found = evaluate_signal(&[SOFT], 6, &STUDENT, &signal, &[None, None]);
        for position in 0..STUDENT.len() {
            let moved = |by: f32| {
                let mut student = STUDENT;
                student[position] += by;
                evaluate_signal(&[SOFT], 6, &student, &signal, &[None, None]).loss
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            // Measured: at most 3e-6, from the third derivative.
            close(found.d_logits[position].into(), difference, 1e-5);
        }
    }
}

#[test]
fn what_the_rest_hides_is_what_the_loss_of_the_largest_classes_lacks() {
    let whole = evaluate(&[SOFT], 6, &STUDENT, &TEACHER, &[None, None]);
    let stored = evaluate_signal(&[SOFT], 6, &STUDENT, &top_k(&TEACHER, 6, 2, &[2.0]), &[None, None]);
    assert!(stored.loss > 0.0 && stored.loss < whole.loss, "{} {}", stored.loss, whole.loss);
    // A student that says what the teacher says has neither loss nor gradient.
    let same = evaluate_signal(&[SOFT], 6, &TEACHER, &top_k(&TEACHER, 6, 2, &[2.0]), &[None, None]);
    close(same.loss, 0.0, 1e-7);
    same.d_logits.iter().for_each(|&gradient| close(gradient.into(), 0.0, 1e-7));
}

#[test]
fn the_mean_gradient_over_samples_is_that_of_the_whole() {
    // All outcomes of two draws from three classes, weighed by their probabilities.
    let (teacher, student) = ([1.0_f32, 0.0, -0.5], [0.2_f32, -0.4, 0.3]);
    let mass: f64 = teacher.iter().map(|&z| (f64::from(z) / 2.0).exp()).sum();
    let p = |class: usize| (f64::from(teacher[class]) / 2.0).exp() / mass;
    let mut mean = [0.0_f64; 3];
    for (first, second) in (0..9).map(|pair| (pair / 3, pair % 3)) {
        let signal = TeacherSignal::Sample { draws: 2, indices: vec![first as u32, second as u32] };
        let found = evaluate_signal(&[SOFT], 3, &student, &signal, &[None]);
        for (mean, gradient) in mean.iter_mut().zip(found.d_logits) {
            *mean += p(first) * p(second) * f64::from(gradient);
        }
    }
    let whole = evaluate(&[SOFT], 3, &student, &teacher, &[None]);
    for (mean, whole) in mean.into_iter().zip(whole.d_logits) {
        close(mean, whole.into(), 1e-7);
    }
}

#[test]
fn a_temperature_that_the_tails_are_not_of_is_refused() {
    let signal = top_k(&TEACHER, 6, 2, &[1.0, 4.0]);
    let labels = [None, None];
    let rows =
        ObjectiveRows { first_row: 0, classes: 6, student_logits: &STUDENT, teacher: Some(&signal), labels: &labels };
    let objective = objective(&[SOFT]);
    let refused = objective.evaluate(&rows, &objective.counts(labels.iter()), &mut [0.0; 12]);
    assert_eq!(refused, Err(ObjectiveError::UnknownTemperature { found: 2.0 }));
}
