//! The terms on logits against values and gradients of PyTorch 2.11 in f64: the authors' code, or its operators where that is
//! all there is.

use super::*;

/// The teacher's logits.
const TEACHER: [f32; 12] = [1.0, 0.5, -1.5, 2.0, -0.25, 0.75, -1.3, 0.4, 1.1, 0.6, -0.2, 1.9];

const NO_LABELS: [Option<u32>; 4] = [None; 4];

/// A term as it is written on the command line.
fn term(text: &str) -> LossTermRecipe {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Measured: at most 1.2e-7 off, from the logits in f32; standardised ones are rounded to f32 once more.
fn as_in_pytorch(text: &str, labels: &[Option<u32>], loss: f64, gradient: [f64; 12]) {
    let found = evaluate(&[term(text)], 3, &LOGITS, &TEACHER, labels);
    close(found.loss, loss, 4e-7 * loss.max(1.0));
    for (found, expected) in found.d_logits.iter().zip(gradient) {
        close((*found).into(), expected, 3e-7);
    }
}

#[test]
fn divergences_are_those_of_pytorch() {
    // F.kl_div of both log-softmaxes, exchanged; and the Jensen-Shannon divergence by its definition; times T^2.
    #[rustfmt::skip]
    as_in_pytorch("soft_target,weight=1,temperature=2,divergence=\"reverse\"", &NO_LABELS, 1.0201107080138618, [
        -0.15515195818251587, -0.10618900742442167, 0.2613409656069375,
        -0.015220579095983098, 0.06380008209513027, -0.0485795029991472,
        0.055673154043586644, 0.030753424339243038, -0.08642657838282959,
        0.18222642393506872, -0.047362793236154735, -0.13486363069891388,
    ]);
    #[rustfmt::skip]
    as_in_pytorch("soft_target,weight=1,temperature=2,divergence=\"jensen_shannon\"", &NO_LABELS, 0.23126054775444332, [
        -0.02953701529820137, -0.025298120817402594, 0.054835136115603964,
        -0.001882998385461675, 0.014753562568303572, -0.012870564182841897,
        0.013055741382935412, 0.009203704544359164, -0.022259445927294574,
        0.044456336002679536, -0.011396378735178713, -0.03305995726750082,
    ]);
}

#[test]
fn standardised_logits_are_those_of_their_authors_code() {
    // kd_loss of sunshangquan/logit-standardization-KD with logit_stand, its weight left out.
    #[rustfmt::skip]
    as_in_pytorch("soft_target,weight=1,temperature=2,standardize=true", &NO_LABELS, 0.5009039477724286, [
        -0.04798757317685816, 0.02399378083004564, 0.02399379234681252,
        -0.021560532322278638, 0.04851120189177658, -0.026950669569497945,
        0.0978036667255029, 0.05588783658899912, -0.15369150331450201,
        0.026946520191551422, 0.026946517302100553, -0.05389303749365198,
    ]);
}

#[test]
fn a_corrected_teacher_has_the_label_on_top() {
    // The plain term with the teacher's largest logit and that of the label exchanged, row by row.
    #[rustfmt::skip]
    as_in_pytorch("soft_target,weight=1,temperature=2,correct_teacher=true", &LABELS, 0.9509005479906997, [
        0.06993898721738527, -0.12274289379189264, 0.05280390657450729,
        0.0, 0.05661793312783821, -0.05661793312783821,
        0.05135551450538135, -0.03012604803201449, -0.021229466473366876,
        0.19318394505910974, -0.22208107873548344, 0.028897133676373588,
    ]);
    let plain = evaluate(&[SOFT], 3, &LOGITS, &TEACHER, &LABELS);
    let corrected = term("soft_target,weight=1,temperature=2,correct_teacher=true");
    assert_eq!(evaluate(&[corrected], 3, &LOGITS, &TEACHER, &NO_LABELS).d_logits, plain.d_logits);
}

#[test]
fn the_squared_error_is_that_of_pytorch() {
    // torch.nn.MSELoss; with a temperature, kd_mse_loss of TextBrewer.
    #[rustfmt::skip]
    as_in_pytorch("logits_mse,weight=1", &NO_LABELS, 2.372499980181456, [
        -0.08333333333333333, -0.25, 0.5833333333333333,
        -0.08333333333333333, 0.08333333333333333, -0.25,
        0.1666666567325592, 0.06666666766007741, -0.16666667039195696,
        0.23333332935969034, -0.2999999995032946, -0.3166666626930237,
    ]);
    #[rustfmt::skip]
    as_in_pytorch("logits_mse,weight=1,temperature=2", &NO_LABELS, 0.593124995045364, [
        -0.020833333333333332, -0.0625, 0.14583333333333331,
        -0.020833333333333332, 0.020833333333333332, -0.0625,
        0.0416666641831398, 0.016666666915019352, -0.04166666759798924,
        0.058333332339922585, -0.07499999987582365, -0.07916666567325592,
    ]);
}

#[test]
fn decoupled_distillation_is_that_of_its_authors_code() {
    // dkd_loss of megvii-research/mdistiller.
    #[rustfmt::skip]
    as_in_pytorch("decoupled,weight=1,temperature=2", &LABELS, 5.162451496301725, [
        0.3148285446477178, -0.5403660190953726, 0.225537474447655,
        0.0, 0.9796746496148365, -0.9796746496148367,
        0.8551874680575398, 0.04348542875815869, -0.8986728968156986,
        1.5876972589234668, -0.04845181526583501, -1.5392454436576317,
    ]);
    #[rustfmt::skip]
    as_in_pytorch("decoupled,weight=1,temperature=2,alpha=0.5,beta=2", &LABELS, 1.4153108375262635, [
        0.040412074034264014, -0.1531808112580915, 0.1127687372238275,
        0.0, 0.24491866240370913, -0.2449186624037092,
        0.20890295162262512, 0.021742714379079344, -0.2306456660017045,
        0.4057795935309379, -0.024225907632917505, -0.3815536858980204,
    ]);
    // Without labels the target is the teacher's first class.
    #[rustfmt::skip]
    as_in_pytorch("decoupled,weight=1,temperature=2", &NO_LABELS, 9.19681031051872, [
        -0.1027945806557625, -2.175779864074012, 2.278574444729774,
        0.0, 0.9796746496148365, -0.9796746496148367,
        0.3004251026776813, -0.20558415941414185, -0.09484094326354005,
        1.2559172955845628, -1.1111851657912883, -0.14473212979327482,
    ]);
}

#[test]
fn dist_is_that_of_its_authors_code() {
    // DIST of hunto/DIST_KD.
    #[rustfmt::skip]
    as_in_pytorch("dist,weight=1", &NO_LABELS, 2.051072115956858, [
        -0.0736642658335834, -0.015134352628283899, 0.0887986184618673,
        -0.16205512817206758, 0.13662557172369533, 0.025429556448372224,
        0.1654292592969362, 0.06837724400625332, -0.23380650330318953,
        0.07277062054742661, 0.005206831835849037, -0.07797745238327564,
    ]);
    #[rustfmt::skip]
    as_in_pytorch("dist,weight=1,temperature=4,beta=0.5,gamma=2", &NO_LABELS, 40.7383664992751, [
        -1.9337005143260628, -1.5382886650613372, 3.4719891793873994,
        -4.426930682425192, 3.129919008127297, 1.2970116742978957,
        4.039718975480476, -0.7158151205934256, -3.32390385488705,
        2.230856995729346, 0.9001748286091004, -3.1310318243384465,
    ]);
}

#[test]
fn smoothed_labels_are_those_of_pytorch() {
    // torch.nn.CrossEntropyLoss(weight, label_smoothing); a class that weighs nothing still takes part of the smoothing.
    #[rustfmt::skip]
    as_in_pytorch("hard_label,weight=1,label_smoothing=0.1", &LABELS, 1.3614002654776942, [
        0.03548926470167584, 0.0014448099843385291, -0.03693407468601437,
        -0.05372324804556711, 0.043125817666079556, 0.010597430379487545,
        0.037154370066511115, -0.09668071701411576, 0.05952634694760463,
        0.20836999971600034, -0.22936427333921663, 0.020994273623216257,
    ]);
    #[rustfmt::skip]
    as_in_pytorch("hard_label,weight=1,label_smoothing=0.3,class_weights=[0.5,2,1.25]", &LABELS, 1.7158198054615388, [
        0.029410954813051456, -0.02627987537593751, -0.0031310794371139394,
        0.021020738666873397, -0.00882929775681785, -0.012191440910055557,
        0.04747177289372097, -0.10952459550148787, 0.06205282260776687,
        0.25888585472178594, -0.27335994331161245, 0.01447408858982645,
    ]);
    #[rustfmt::skip]
    as_in_pytorch("hard_label,weight=1,label_smoothing=0.3,class_weights=[0,2,1.25]", &LABELS, 1.8198631899455506, [
        0.0400663753462941, -0.029155221347652388, -0.010911153998641699,
        0.04447487826173259, -0.025352972133478712, -0.019121906128253877,
        0.05978383875408126, -0.12516132331379023, 0.06537748455970892,
        0.2848100948648385, -0.2995454259124942, 0.014735331047655644,
    ]);
}

#[test]
fn weights_and_temperatures_move_along_a_line() {
    let terms = [
        term("soft_target,weight=0.8,final_weight=0,temperature=4,final_temperature=1"),
        term("hard_label,weight=0,final_weight=1"),
        term("logits_mse,weight=0.5"),
    ];
    assert_eq!(check(&terms, 0.1), Ok(()));
    let objective = Objective::new(&terms, &classes(3), &[]).expect("a sound objective");
    let at = |part: f64| objective.at(part).expect("it moves").recipes().cloned().collect::<Vec<_>>();
    let mse = terms[2].clone();
    assert_eq!(at(0.0), [LossTermRecipe::soft_target(0.8, 4.0), LossTermRecipe::hard_label(0.0), mse.clone()]);
    assert_eq!(at(0.5), [LossTermRecipe::soft_target(0.4, 2.5), LossTermRecipe::hard_label(0.5), mse.clone()]);
    assert_eq!(at(1.0), [LossTermRecipe::soft_target(0.0, 1.0), LossTermRecipe::hard_label(1.0), mse]);
    assert_eq!(super::objective(&[SOFT, HARD]).at(0.5), None);
    // With a temperature that moves the tails of the largest logits are of no use, with a weight alone they are.
    let needs = |text: &str| Objective::new(&[term(text)], &classes(3), &[]).expect("sound").needs_all_logits();
    assert_eq!(needs("soft_target,weight=1,temperature=4,final_temperature=1"), Some("soft_target"));
    assert_eq!(needs("soft_target,weight=1,temperature=4,final_weight=0"), None);
    let never = check(&[HARD, term("soft_target,weight=0,final_weight=0,temperature=4")], 0.1).expect_err("refused");
    assert!(never.to_string().contains("larger of weight and final_weight of `soft_target` is 0"), "{never}");
}

#[test]
fn a_step_in_parts_or_in_views_has_no_term_between_rows() {
    let objective = Objective::new(&[term("dist,weight=1")], &classes(3), &[]).expect("a sound objective");
    assert_eq!(objective.couples_rows(), Some("dist"));
    let rows = ObjectiveRows {
        first_row: 0,
        classes: 3,
        student_logits: &LOGITS[..6],
        teacher: Some(&dense(&TEACHER[..6])),
        labels: &[None; 2],
    };
    let refused = objective.evaluate(&rows, &objective.counts(NO_LABELS.iter()), &mut [0.0; 6]);
    assert_eq!(refused, Err(ObjectiveError::MicroBatches { term: "dist" }));
    assert_eq!(check(&[term("dist,weight=1"), R_DROP], 0.1), Err(ObjectiveError::Views { term: "dist" }));
    assert_eq!(check(&[term("dist,weight=1,gamma=0"), R_DROP], 0.1), Ok(()));
}

#[test]
fn some_of_the_logits_are_not_enough() {
    for text in [
        "logits_mse,weight=1",
        "decoupled,weight=1,temperature=2",
        "soft_target,weight=1,temperature=2,standardize=true",
    ] {
        let objective = Objective::new(&[term(text)], &classes(3), &[]).expect("a sound objective");
        let name = objective.needs_all_logits().expect("needs them");
        let signal = top_k(&TEACHER, 3, 2, &[1.0, 2.0]);
        let rows = ObjectiveRows {
            first_row: 0,
            classes: 3,
            student_logits: &LOGITS,
            teacher: Some(&signal),
            labels: &NO_LABELS,
        };
        let refused = objective.evaluate(&rows, &objective.counts(NO_LABELS.iter()), &mut [0.0; 12]);
        assert_eq!(refused, Err(ObjectiveError::PartOfLogits { term: name }), "{text}");
    }
    assert_eq!(objective(&[SOFT, HARD]).needs_all_logits(), None);
}

#[test]
fn terms_without_sense_are_refused() {
    let refused = |text: &str, expected: &str| {
        let error = check(&[term(text)], 0.1).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    };
    refused("logits_mse,weight=1,temperature=0", "the temperature of `logits_mse` is 0");
    refused(
        "decoupled,weight=1,temperature=2,alpha=-1",
        "the alpha of `decoupled` is -1: it must be a number, 0 or more",
    );
    refused("decoupled,weight=1,temperature=2,alpha=0,beta=0", "alpha and beta of `decoupled` are both 0");
    refused("dist,weight=1,beta=0,gamma=0", "beta and gamma of `dist` are both 0");
    refused("hard_label,weight=1,label_smoothing=1", "the label_smoothing of `hard_label` is 1");
    refused(
        "hard_label,weight=1,label_smoothing=0.1,focal_gamma=2",
        "leave out one of focal_gamma and label_smoothing",
    );
    for (text, expected) in [
        ("logits_mes,weight=1", "unknown variant"),
        ("logits_mse", "missing field `weight`"),
        ("logits_mse,weigth=1", "unknown field `weigth`"),
        ("logits_mse,weight=a", ""),
    ] {
        let error = text.parse::<LossTermRecipe>().expect_err(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// Not exceeded in 20,000 cases.
const LOGITS_TOLERANCE: f64 = 1e-4;

/// A term on logits and label smoothing, with what is drawn of their settings; not `dist`, which bends too sharply for
/// differences where a student's probabilities are nearly equal.
fn terms_on_logits() -> impl Strategy<Value = Vec<LossTermRecipe>> {
    let temperature = 1.0_f64..6.0;
    let text =
        (0..5, temperature, 0.2_f64..2.0, any::<bool>()).prop_map(|(kind, temperature, factor, corrects)| match kind {
            0 => format!(
                "soft_target,weight=0.7,temperature={temperature},divergence=\"reverse\",correct_teacher={corrects}"
            ),
            1 => format!("soft_target,weight=0.7,temperature={temperature},divergence=\"jensen_shannon\""),
            2 => format!("soft_target,weight=0.7,temperature={temperature},correct_teacher={corrects}"),
            3 => format!("logits_mse,weight={factor},temperature={temperature},correct_teacher={corrects}"),
            _ => format!("decoupled,weight=0.7,temperature={temperature},alpha={factor},correct_teacher={corrects}"),
        });
    let smoothing = prop_oneof![Just(0.0), 0.05_f64..0.5];
    (text, smoothing).prop_map(|(text, label_smoothing)| {
        vec![term(&text), term(&format!("hard_label,weight=0.5,label_smoothing={label_smoothing}"))]
    })
}

proptest! {
    #[test]
    fn gradients_on_logits_are_finite_differences(case in cases(), terms in terms_on_logits()) {
        let loss = |student: &[f32]| evaluate(&terms, case.classes, student, &case.teacher, &case.labels).loss;
        let found = evaluate(&terms, case.classes, &case.student, &case.teacher, &case.labels);
        for position in 0..case.student.len() {
            let (mut above, mut below) = (case.student.clone(), case.student.clone());
            above[position] += 1e-2;
            below[position] -= 1e-2;
            let width = f64::from(above[position]) - f64::from(below[position]);
            let expected = (loss(&above) - loss(&below)) / width;
            close(found.d_logits[position].into(), expected, LOGITS_TOLERANCE * expected.abs().max(1.0));
        }
    }

    #[test]
    fn every_term_is_least_at_its_teacher(case in cases(), terms in terms_on_logits()) {
        let terms = &terms[..1];
        let nobody = vec![None; case.labels.len()];
        let found = evaluate(terms, case.classes, &case.student, &case.teacher, &nobody);
        let equal = evaluate(terms, case.classes, &case.teacher, &case.teacher, &nobody);
        prop_assert!(found.loss >= -1e-9);
        prop_assert!(equal.loss.abs() < 1e-9, "{}", equal.loss);
        prop_assert!(equal.d_logits.iter().all(|&d_logit| d_logit.abs() < 1e-9));
    }
}
