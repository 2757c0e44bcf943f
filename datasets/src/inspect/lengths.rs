//! How long rows are: quantiles, a histogram, and what a limit cuts.

use serde::Serialize;
use std::collections::BTreeMap;

/// Rows of each length.
#[derive(Debug, Default)]
pub(super) struct LengthCounts(BTreeMap<usize, usize>);

/// How long rows are.
#[derive(Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// `tokens`, special ones included, or `characters`.
    pub unit: &'static str,
    /// Of all rows together.
    pub total: usize,
    /// Of the shortest row.
    pub shortest: usize,
    /// Half of the rows are at most so long.
    pub median: usize,
    /// Nine of ten.
    pub p90: usize,
    /// Ninety-nine of a hundred.
    pub p99: usize,
    /// Of the longest row.
    pub longest: usize,
    /// Rows by length.
    pub histogram: Vec<Bin>,
    /// What a limit cuts, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

/// Rows of some lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// The smallest of them.
    pub from: usize,
    /// The largest.
    pub to: usize,
    /// How many rows.
    pub rows: usize,
}

/// What a limit cuts off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cut {
    /// The limit, in tokens.
    pub max_length: usize,
    /// Rows that are longer.
    pub rows: usize,
    /// Tokens that these lose.
    pub tokens: usize,
}

/// Bars of a histogram at most, besides the one for the longest rows.
const BINS: usize = 12;

impl LengthCounts {
    pub(super) fn add(&mut self, length: usize) {
        *self.0.entry(length).or_default() += 1;
    }

    pub(super) fn finish(self, tokens: bool, max_length: Option<usize>) -> Lengths {
        let rows: usize = self.0.values().sum();
        // The length that so many of a hundred rows do not exceed.
        let quantile = |percent: usize| {
            let wanted = (rows * percent).div_ceil(100).max(1);
            let mut below = 0;
            let found = self.0.iter().find(|(_, rows)| {
                below += **rows;
                below >= wanted
            });
            found.map_or(0, |(length, _)| *length)
        };
        let cut = max_length.map(|max_length| {
            let longer = || self.0.range(max_length + 1..);
            Cut {
                max_length,
                rows: longer().map(|(_, rows)| rows).sum(),
                tokens: longer().map(|(length, rows)| (length - max_length) * rows).sum(),
            }
        });
        let (shortest, longest) = (self.0.keys().next(), self.0.keys().next_back());
        Lengths {
            unit: if tokens { "tokens" } else { "characters" },
            total: self.0.iter().map(|(length, rows)| length * rows).sum(),
            shortest: shortest.copied().unwrap_or(0),
            median: quantile(50),
            p90: quantile(90),
            p99: quantile(99),
            longest: longest.copied().unwrap_or(0),
            histogram: self.histogram(quantile(99)),
            cut,
        }
    }

    /// Bars of one width for all lengths up to this one, and one bar for what is longer.
    fn histogram(&self, up_to: usize) -> Vec<Bin> {
        let Some((&longest, _)) = self.0.last_key_value() else { return Vec::new() };
        let width = round_width(up_to / BINS + 1);
        let bins = up_to / width + 1;
        let last = (bins * width).max(1) - 1;
        let ends = (0..bins)
            .map(|bin| (bin * width, (bin + 1) * width - 1))
            .chain((longest > last).then_some((last + 1, longest)));
        let bins = ends.map(|(from, to)| Bin { from, to, rows: self.0.range(from..=to).map(|(_, rows)| rows).sum() });
        bins.skip_while(|bin| bin.rows == 0).collect()
    }
}

/// The next width that reads well: 1, 2 or 5 with zeros behind it.
fn round_width(at_least: usize) -> usize {
    let mut power = 1;
    loop {
        if let Some(width) = [1, 2, 5].iter().map(|digit| digit * power).find(|width| *width >= at_least) {
            return width;
        }
        power *= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lengths(all: impl IntoIterator<Item = usize>, max_length: Option<usize>) -> Lengths {
        let mut counts = LengthCounts::default();
        all.into_iter().for_each(|length| counts.add(length));
        counts.finish(true, max_length)
    }

    #[test]
    fn quantiles_and_what_a_limit_cuts() {
        let found = lengths(1..=100, Some(90));
        assert_eq!((found.shortest, found.median, found.p90, found.p99, found.longest), (1, 50, 90, 99, 100));
        assert_eq!(found.total, 5050);
        // 91 to 100 lose 1 to 10 tokens.
        assert_eq!(found.cut, Some(Cut { max_length: 90, rows: 10, tokens: 55 }));
        assert_eq!(found.histogram.len(), 11);
        assert_eq!(found.histogram[0], Bin { from: 0, to: 9, rows: 9 });
        assert_eq!(found.histogram[9..], [Bin { from: 90, to: 99, rows: 10 }, Bin { from: 100, to: 100, rows: 1 }]);
    }

    #[test]
    fn nothing_and_one_row() {
        assert_eq!(lengths([], None).histogram, []);
        assert_eq!(lengths([7], None).histogram, [Bin { from: 7, to: 7, rows: 1 }]);
        assert_eq!(lengths([0], None).histogram, [Bin { from: 0, to: 0, rows: 1 }]);
    }

    proptest! {
        #[test]
        fn every_row_is_in_one_bar(all in prop::collection::vec(0usize..3000, 1..200)) {
            let found = lengths(all.iter().copied(), None);
            prop_assert_eq!(found.histogram.iter().map(|bin| bin.rows).sum::<usize>(), all.len());
            prop_assert!(found.histogram.len() <= BINS + 2);
            prop_assert!(found.histogram.windows(2).all(|pair| pair[0].to + 1 == pair[1].from));
        }
    }
}
