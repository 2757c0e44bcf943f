//! What can be said of a difference: over seeds, and over rows.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;
use statrs::distribution::{Binomial, ContinuousCDF, DiscreteCDF, StudentsT};

/// Resamples of the test rows.
const RESAMPLES: usize = 2000;

/// Mean and spread of several runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) mean: f64,
    /// Sample standard deviation; none of a single run.
    pub(crate) spread: Option<f64>,
    /// One value a seed, in the order of the seeds.
    pub(crate) values: Vec<f64>,
}

impl Summary {
    pub(crate) fn of(values: Vec<f64>) -> Self {
        let mean = mean(&values);
        Self { mean, spread: deviation(&values), values }
    }
}

/// A difference between two arms, seed by seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Difference {
    pub(crate) mean: f64,
    /// 95 % confidence interval: Student's t over the seeds, or with a single seed a bootstrap over the test rows.
    pub(crate) interval: Option<[f64; 2]>,
    /// The same over the test rows, by bootstrap of the rows' mean over the seeds; for what is a mean over rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interval_over_rows: Option<[f64; 2]>,
}

impl Difference {
    /// Of what `first` and `second` have at each seed; `rows` has the difference of each row where there is one.
    pub(crate) fn of(first: &[f64], second: &[f64], rows: Option<&[f64]>) -> Self {
        let paired: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
        let interval_over_rows = rows.map(bootstrap);
        Self { mean: mean(&paired), interval: t_interval(&paired).or(interval_over_rows), interval_over_rows }
    }
}

/// The mean of some values; 0 of none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The interval that holds the mean of what these are drawn from with 95 % confidence.
pub(crate) fn t_interval(values: &[f64]) -> Option<[f64; 2]> {
    // Equal values of few seeds say nothing of how others would lie.
    let deviation = deviation(values).filter(|deviation| *deviation > 0.0)?;
    let mean = mean(values);
    let half = t_quantile(values.len() - 1)? * deviation / (values.len() as f64).sqrt();
    Some([mean - half, mean + half])
}

/// The 0.975 quantile of Student's t: two of its tails hold 5 %. None without a degree of freedom.
fn t_quantile(freedom: usize) -> Option<f64> {
    Some(StudentsT::new(0.0, 1.0, freedom as f64).ok()?.inverse_cdf(0.975))
}

/// The middle 95 % of the means of rows drawn again and again; the same for the same rows.
fn bootstrap(rows: &[f64]) -> [f64; 2] {
    let mut dice = StdRng::seed_from_u64(0);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..rows.len()).map(|_| rows[dice.random_range(0..rows.len())]).sum::<f64>() / rows.len() as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    [means[RESAMPLES / 40 - 1], means[RESAMPLES - RESAMPLES / 40]]
}

/// McNemar's test of two classifiers on the same rows, in its exact form.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct McNemar {
    /// Rows that the first alone has right.
    pub(crate) first_alone: usize,
    pub(crate) second_alone: usize,
    /// How likely as uneven a split is if both are as good.
    pub(crate) p: f64,
}

impl McNemar {
    /// Of whether each has each row right.
    pub(crate) fn of(rows: impl Iterator<Item = (bool, bool)>) -> Self {
        let (mut first_alone, mut second_alone) = (0, 0);
        for row in rows {
            match row {
                (true, false) => first_alone += 1,
                (false, true) => second_alone += 1,
                _ => {}
            }
        }
        Self { first_alone, second_alone, p: two_sided(first_alone, second_alone) }
    }
}

/// Twice the smaller tail of a fair binomial distribution, at most 1.
fn two_sided(one: usize, other: usize) -> f64 {
    let tail = |fair: Binomial| fair.cdf(one.min(other) as u64);
    Binomial::new(0.5, (one + other) as u64).map_or(1.0, |fair| (2.0 * tail(fair)).min(1.0))
}

/// A class on which the arms differ by more than their seeds do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct ClassChange {
    pub(crate) class: String,
    /// Test rows of the class.
    pub(crate) rows: usize,
    /// Part of them that the first arm has right, over the seeds.
    pub(crate) first: f64,
    pub(crate) second: f64,
}

/// Test rows that a class must have for its change to be named.
const FEWEST_ROWS: usize = 5;

/// Classes that are named at most.
const MOST_CLASSES: usize = 6;

/// The classes whose recall differs by more than chance, the largest changes first. `right` has for each arm and each seed
/// whether each row is right.
pub(crate) fn changes(names: &[String], labels: &[u32], right: [&[Vec<bool>]; 2]) -> Vec<ClassChange> {
    let mut rows: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (row, &label) in labels.iter().enumerate() {
        rows.entry(label).or_default().push(row);
    }
    let mut found = Vec::new();
    for (class, rows) in rows.into_iter().filter(|(_, rows)| rows.len() >= FEWEST_ROWS) {
        let recall = |right: &Vec<bool>| rows.iter().filter(|&&row| right[row]).count() as f64 / rows.len() as f64;
        let [first, second] = right.map(|runs| runs.iter().map(recall).collect::<Vec<f64>>());
        let paired: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a - b).collect();
        let by_seeds = t_interval(&paired).is_none_or(|[low, high]| low > 0.0 || high < 0.0);
        let runs = right[0].iter().zip(right[1]);
        let rows_of = runs.flat_map(|(a, b)| rows.iter().map(|&row| (a[row], b[row])));
        // As many classes are looked at, so each has to be that much surer.
        let by_rows = McNemar::of(rows_of).p < 0.05 / names.len() as f64;
        if by_seeds && by_rows {
            let class = names[class as usize].clone();
            found.push(ClassChange { class, rows: rows.len(), first: mean(&first), second: mean(&second) });
        }
    }
    found.sort_by(|a, b| (b.first - b.second).abs().total_cmp(&(a.first - a.second).abs()));
    found.truncate(MOST_CLASSES);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-3 * expected.abs().max(1e-3), "{found}, expected {expected}");
    }

    /// `scipy.stats`: `std(ddof=1)`, and `t.interval(0.95, 4, mean, sem)`.
    #[test]
    fn differences_are_taken_seed_by_seed() {
        let (first, second) = ([0.81, 0.83, 0.80, 0.84, 0.82], [0.80, 0.80, 0.80, 0.80, 0.80]);
        near(Summary::of(first.to_vec()).spread.expect("of five"), 0.015811);
        let difference = Difference::of(&first, &second, None);
        near(difference.mean, 0.02);
        let [low, high] = difference.interval.expect("of five");
        near(low, 0.0003676);
        near(high, 0.0396324);
        assert_eq!(Summary::of(vec![0.5]).spread, None);
        assert_eq!(Difference::of(&[0.5], &[0.4], None).interval, None);
    }

    #[test]
    fn rows_are_drawn_again() {
        // 60 better, 20 worse of 200: mean 0.2, standard error sqrt((0.4 - 0.04) / 200) = 0.0424.
        let rows: Vec<f64> = (0..200)
            .map(|row| {
                if row < 60 {
                    1.0
                } else if row < 80 {
                    -1.0
                } else {
                    0.0
                }
            })
            .collect();
        let difference = Difference::of(&[0.7], &[0.5], Some(&rows));
        let [low, high] = difference.interval.expect("over rows");
        assert!((low - 0.117).abs() < 0.012 && (high - 0.283).abs() < 0.012, "{low} to {high}");
        assert_eq!(difference.interval, difference.interval_over_rows);
        assert_eq!(Difference::of(&[0.7], &[0.5], Some(&rows)), difference, "the same every time");
    }

    /// `statsmodels.stats.contingency_tables.mcnemar(exact=True)`.
    #[test]
    fn mcnemar_is_exact() {
        near(two_sided(10, 2), 0.03857);
        near(two_sided(121, 59), 4.434e-6);
        // A thousand rows and more, whose 2^-n is no number any more.
        near(two_sided(1000, 900), 0.023109);
        assert_eq!(two_sided(5, 5), 1.0);
        assert_eq!(two_sided(0, 0), 1.0);
        let found = McNemar::of([(true, false), (true, true), (false, true), (true, false)].into_iter());
        assert_eq!((found.first_alone, found.second_alone, found.p), (2, 1, 1.0));
    }

    #[test]
    fn a_class_stands_out_where_every_seed_says_so() {
        let labels: Vec<u32> = (0..20).map(|row| row / 10).collect();
        let run = |right_of_first: usize, right_of_second: usize| -> Vec<bool> {
            (0..20).map(|row| if row < 10 { row < right_of_first } else { row - 10 < right_of_second }).collect()
        };
        let first = [run(9, 5), run(10, 7), run(9, 3)];
        let second = [run(3, 5), run(4, 3), run(3, 6)];
        let found = changes(&["a".to_owned(), "b".to_owned()], &labels, [&first, &second]);
        let classes: Vec<&str> = found.iter().map(|change| change.class.as_str()).collect();
        assert_eq!((classes, found[0].rows), (vec!["a"], 10));
        near(found[0].first - found[0].second, 0.6);
    }
}
