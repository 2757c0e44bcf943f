//! Chooses some rows of a data set: at random, by class, or so that they stand for all of them. What asks a teacher is not here.

mod texts;

use std::collections::BTreeMap;

pub use texts::Similarity;

/// So many rows drawn by the seed, in the order drawn.
pub fn sample(rows: usize, wanted: usize, seed: u64) -> Vec<usize> {
    crate::order(seed, 0, rows).into_iter().take(wanted).map(|row| row as usize).collect()
}

/// How many rows of each class are taken, of so many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shares {
    /// As large a part of each class as of all, and at least one row of each where there are enough.
    Kept,
    /// As many of each class; of those that have fewer all, and more of the others.
    Equal,
}

impl Shares {
    /// Rows to take of each class, together `wanted` or all that there are. Classes are in the order given.
    pub fn of(self, classes: &[usize], wanted: usize) -> Vec<usize> {
        let wanted = wanted.min(classes.iter().sum());
        match self {
            Self::Kept => kept(classes, wanted),
            Self::Equal => equal(classes, wanted),
        }
    }
}

/// Largest remainders, so that the parts add up.
fn kept(classes: &[usize], wanted: usize) -> Vec<usize> {
    let all: usize = classes.iter().sum();
    if all == 0 {
        return vec![0; classes.len()];
    }
    let exact = |count: usize| (count as u128 * wanted as u128) / all as u128;
    let remainder = |count: usize| (count as u128 * wanted as u128) % all as u128;
    let there = classes.iter().filter(|count| **count > 0).count();
    let least = usize::from(wanted >= there);
    let mut shares: Vec<usize> = classes.iter().map(|count| (exact(*count) as usize).max(least.min(*count))).collect();
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by_key(|class| (std::cmp::Reverse(remainder(classes[*class])), *class));
    // Too few of them: the largest remainders get one more. Too many, since small classes got one: the largest classes give.
    while shares.iter().sum::<usize>() < wanted {
        let before: usize = shares.iter().sum();
        for class in &order {
            if shares.iter().sum::<usize>() < wanted && shares[*class] < classes[*class] {
                shares[*class] += 1;
            }
        }
        if shares.iter().sum::<usize>() == before {
            break;
        }
    }
    while shares.iter().sum::<usize>() > wanted {
        let Some(largest) = (0..shares.len()).max_by_key(|class| (shares[*class], std::cmp::Reverse(*class))) else {
            break;
        };
        shares[largest] -= 1;
    }
    shares
}

fn equal(classes: &[usize], wanted: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by_key(|class| (classes[*class], *class));
    let (mut shares, mut left) = (vec![0; classes.len()], wanted);
    for (place, class) in order.iter().enumerate() {
        // What a small class lacks is shared among those that come.
        let share = (left / (order.len() - place)).min(classes[*class]);
        shares[*class] = share;
        left -= share;
    }
    // The rest of a division goes to the largest.
    for class in order.iter().rev() {
        let more = left.min(classes[*class] - shares[*class]);
        let more = more.min(1.max(left.saturating_sub(order.len())));
        shares[*class] += more;
        left -= more;
    }
    shares
}

/// The rows of each class, in the order of the classes; those without one together.
pub fn by_class(classes: &[Option<u32>]) -> Vec<Vec<usize>> {
    let mut rows: BTreeMap<Option<u32>, Vec<usize>> = BTreeMap::new();
    for (row, class) in classes.iter().enumerate() {
        rows.entry(*class).or_default().push(row);
    }
    rows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_as_large_as_the_classes_or_as_each_other() {
        assert_eq!(Shares::Kept.of(&[50, 30, 20], 10), [5, 3, 2]);
        assert_eq!(Shares::Kept.of(&[97, 2, 1], 10), [8, 1, 1], "each has one");
        assert_eq!(Shares::Kept.of(&[97, 2, 1], 2), [2, 0, 0], "unless there are too few");
        assert_eq!(Shares::Equal.of(&[50, 30, 2], 12), [5, 5, 2]);
        assert_eq!(Shares::Equal.of(&[50, 30, 20], 11), [4, 4, 3]);
        assert_eq!(Shares::Equal.of(&[5, 3], 100), [5, 3]);
        assert_eq!(Shares::Kept.of(&[], 3), [0; 0]);
    }

    #[test]
    fn a_sample_is_of_different_rows_and_of_its_seed() {
        let mut drawn = sample(100, 30, 4);
        assert_eq!(drawn, sample(100, 30, 4));
        assert_ne!(drawn, sample(100, 30, 5));
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 30);
        assert_eq!(by_class(&[Some(1), None, Some(0), Some(1)]), [vec![1], vec![2], vec![0, 3]]);
    }

    proptest! {
        #[test]
        fn shares_add_up_and_no_class_gives_more_than_it_has(
            classes in prop::collection::vec(0usize..50, 1..12), wanted in 0usize..300
        ) {
            for shares in [Shares::Kept.of(&classes, wanted), Shares::Equal.of(&classes, wanted)] {
                prop_assert_eq!(shares.iter().sum::<usize>(), wanted.min(classes.iter().sum()));
                prop_assert!(shares.iter().zip(&classes).all(|(share, count)| share <= count));
            }
        }
    }
}
