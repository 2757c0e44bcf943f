//! What a row's numbers may be, and the logits that are stored of them.

use anyhow::{Context, bail};
use cache::Quantity;
use datasets::LabelNames;

use super::layout::Answer;

/// How far the probabilities of a row may add up to something else than 1: they may have been written with few digits.
pub(super) const SUM_TOLERANCE: f64 = 1e-3;

/// What a probability of 0 counts as: the smallest number that f32 holds in full. Its logarithm is -87, so that at a
/// temperature of 4 the class still has less than a thousand-millionth of a class that is certain.
const LEAST_PROBABILITY: f64 = f32::MIN_POSITIVE as f64;

/// The classes of the first row, where nobody named them: those of columns in their order, those of an object by name.
pub(super) fn classes_of(answer: &Answer, in_columns: bool) -> anyhow::Result<LabelNames> {
    let names: Vec<String> = match answer {
        Answer::Named(named) => named.iter().map(|(class, _)| class.clone()).collect(),
        Answer::List(list) => {
            bail!("a list of {} numbers does not say which class is which; give --label-names in its order", list.len())
        }
    };
    Ok(if in_columns { LabelNames::new(names)? } else { LabelNames::sorted(names)? })
}

/// The numbers of a row in the order of the classes.
pub(super) fn in_order(answer: Answer, names: &LabelNames) -> anyhow::Result<Vec<f64>> {
    let count = names.len();
    match answer {
        Answer::List(list) if list.len() == count => Ok(list),
        Answer::List(list) => {
            bail!("{} numbers for the {count} classes {}", list.len(), names.names().join(", "))
        }
        Answer::Named(named) => {
            let mut numbers = vec![None; count];
            for (class, number) in named {
                let id = names.id(&class).with_context(|| {
                    format!(
                        "an answer for the class `{class}`; the classes are {}; of columns with a prefix give the prefix \
                         alone, as in --probabilities 'p_*'",
                        names.names().join(", ")
                    )
                })?;
                numbers[id as usize] = Some(number);
            }
            let all = numbers.iter().zip(names.names()).map(|(number, class)| {
                number
                    .with_context(|| format!("no answer for the class `{class}`; give one for each class, 0 for none"))
            });
            all.collect()
        }
    }
}

/// The logits to store of a row's numbers, in the order of the classes: those that are given, or the logarithms of
/// probabilities, whose softmax at temperature 1 gives them back.
pub(super) fn logits(given: Quantity, numbers: &[f64], names: &LabelNames) -> anyhow::Result<Vec<f32>> {
    let class = |at: usize| names.names().get(at).map_or("", String::as_str);
    if let Some(at) = numbers.iter().position(|number| !number.is_finite()) {
        bail!("the number of class `{}` is {}; compute the row again, or leave it out", class(at), numbers[at]);
    }
    match given {
        Quantity::Logits => {
            let logits: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
            match logits.iter().position(|logit| !logit.is_finite()) {
                Some(at) => bail!("the logit of class `{}` is {:e}, beyond what f32 holds", class(at), numbers[at]),
                None => Ok(logits),
            }
        }
        Quantity::Probabilities => {
            if let Some(at) = numbers.iter().position(|&number| number < 0.0) {
                bail!(
                    "the probability of class `{}` is {}; if these are logits, or logarithms of probabilities, give \
                     --logits",
                    class(at),
                    numbers[at]
                );
            }
            if !sum_to_one(numbers) {
                bail!(
                    "the probabilities sum to {:.6}, expected 1 (by at most {SUM_TOLERANCE} more or less); divide them by \
                     their sum if they are right otherwise",
                    numbers.iter().sum::<f64>()
                );
            }
            Ok(numbers.iter().map(|&number| number.max(LEAST_PROBABILITY).ln() as f32).collect())
        }
    }
}

/// Whether numbers may be probabilities.
pub(super) fn sum_to_one(numbers: &[f64]) -> bool {
    numbers.iter().all(|&number| number >= 0.0) && (numbers.iter().sum::<f64>() - 1.0).abs() <= SUM_TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> LabelNames {
        LabelNames::new(names.iter().map(|name| (*name).to_owned()).collect()).expect("class names")
    }

    fn named(answer: &[(&str, f64)]) -> Answer {
        Answer::Named(answer.iter().map(|(class, number)| ((*class).to_owned(), *number)).collect())
    }

    fn error<T: std::fmt::Debug>(result: anyhow::Result<T>) -> String {
        format!("{:#}", result.expect_err("refused"))
    }

    #[test]
    fn classes_are_those_of_the_first_row() {
        let answer = named(&[("b", 0.25), ("a", 0.75)]);
        assert_eq!(classes_of(&answer, true).expect("two").names(), ["b", "a"]);
        assert_eq!(classes_of(&answer, false).expect("two").names(), ["a", "b"]);
        assert!(error(classes_of(&Answer::List(vec![0.5, 0.5]), false)).contains("give --label-names in its order"));
    }

    #[test]
    fn numbers_go_to_their_classes_by_name() {
        let classes = names(&["x", "y", "z"]);
        let answer = named(&[("z", 3.0), ("x", 1.0), ("y", 2.0)]);
        assert_eq!(in_order(answer, &classes).expect("all"), [1.0, 2.0, 3.0]);
        assert_eq!(in_order(Answer::List(vec![1.0, 2.0, 3.0]), &classes).expect("all"), [1.0, 2.0, 3.0]);
        let wrong = |answer, expected: &str| {
            let error = error(in_order(answer, &classes));
            assert!(error.contains(expected), "{error}");
        };
        wrong(named(&[("x", 1.0), ("w", 2.0)]), "the class `w`; the classes are x, y, z");
        wrong(named(&[("x", 1.0), ("y", 2.0)]), "no answer for the class `z`");
        wrong(Answer::List(vec![1.0; 4]), "4 numbers for the 3 classes x, y, z");
        wrong(Answer::List(vec![1.0; 2]), "2 numbers for the 3 classes x, y, z");
    }

    #[test]
    fn a_softmax_gives_probabilities_back() {
        let given = [0.7, 0.2999, 1e-4, 0.0];
        let stored = logits(Quantity::Probabilities, &given, &names(&["a", "b", "c", "d"])).expect("probabilities");
        for temperature in [1.0, 4.0] {
            let powers: Vec<f64> = stored.iter().map(|&logit| (f64::from(logit) / temperature).exp()).collect();
            let sum: f64 = powers.iter().sum();
            let expected: Vec<f64> = given.iter().map(|p: &f64| p.powf(1.0 / temperature)).collect();
            let expected_sum: f64 = expected.iter().sum();
            for (power, expected) in powers.iter().zip(expected) {
                // Measured: 1.6e-10 at most, of the class that has none.
                assert!((power / sum - expected / expected_sum).abs() < 1e-6, "{power} {expected} at {temperature}");
            }
        }
    }

    #[test]
    fn numbers_that_are_no_probabilities_are_refused_by_class() {
        let classes = names(&["a", "b"]);
        let wrong = |numbers: &[f64], expected: &str| {
            let error = error(logits(Quantity::Probabilities, numbers, &classes));
            assert!(error.contains(expected), "{error}");
        };
        wrong(&[f64::NAN, 1.0], "the number of class `a` is NaN");
        wrong(&[0.5, f64::INFINITY], "the number of class `b` is inf");
        wrong(&[1.1, -0.1], "the probability of class `b` is -0.1; if these are logits");
        wrong(&[0.5, 0.4], "the probabilities sum to 0.900000, expected 1");
        wrong(&[0.0, 0.0], "the probabilities sum to 0.000000");
        wrong(&[0.5, 0.502], "sum to 1.002000");
        assert!(logits(Quantity::Probabilities, &[0.5, 0.5009], &classes).is_ok());
        assert!(logits(Quantity::Probabilities, &[1.0, 0.0], &classes).is_ok());
    }

    #[test]
    fn logits_are_stored_as_they_are_and_have_to_be_numbers() {
        let classes = names(&["a", "b"]);
        assert_eq!(logits(Quantity::Logits, &[-3.5, 12.0], &classes).expect("logits"), [-3.5, 12.0]);
        assert!(error(logits(Quantity::Logits, &[f64::NAN, 0.0], &classes)).contains("class `a` is NaN"));
        assert!(error(logits(Quantity::Logits, &[0.0, 1e39], &classes)).contains("class `b` is 1e39"));
    }
}
