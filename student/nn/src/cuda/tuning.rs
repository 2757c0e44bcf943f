//! Choosing among cuBLASLt's algorithms by timing them, and keeping what was chosen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// The algorithms that were the fastest on one GPU, with one version of cuBLASLt. Another choice gives other bits, so what
/// has to come to the same bits again takes these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductChoices {
    /// The GPU's name.
    pub gpu: String,
    /// The version of cuBLASLt.
    pub cublaslt: String,
    /// For each shape of a product the algorithm's number in cuBLASLt's own order, from 0.
    pub algorithms: BTreeMap<String, usize>,
}

/// Rounds that are timed, behind one that is not.
const ROUNDS: usize = 3;
/// In each, an algorithm runs again and again for about so long, at most [`MOST_RUNS`] times.
const ROUND: Duration = Duration::from_millis(1);
const MOST_RUNS: u32 = 10;
/// The first algorithm stays if none takes less than this share of its time: less is noise, and changes bits for nothing.
const WORTH_IT: f64 = 0.98;

/// The number of the fastest of `count` algorithms. `run` runs one so many times and waits for it; it returns false for one
/// that refuses.
pub(super) fn fastest<E>(count: usize, mut run: impl FnMut(usize, u32) -> Result<bool, E>) -> Result<usize, E> {
    let mut runs = vec![0; count];
    let mut seconds = vec![f64::INFINITY; count];
    for (algorithm, runs) in runs.iter_mut().enumerate() {
        // Once for what a first run has to load, once to see how long it takes.
        if run(algorithm, 1)? {
            let start = Instant::now();
            run(algorithm, 1)?;
            let one = start.elapsed().as_secs_f64().max(1e-9);
            *runs = ((ROUND.as_secs_f64() / one) as u32).clamp(1, MOST_RUNS);
        }
    }
    // Side by side, so that a clock that falls in between falls for all.
    for _ in 0..ROUNDS {
        for (algorithm, (&runs, seconds)) in
            runs.iter().zip(&mut seconds).enumerate().filter(|(_, (runs, _))| **runs > 0)
        {
            let start = Instant::now();
            run(algorithm, runs)?;
            *seconds = seconds.min(start.elapsed().as_secs_f64() / f64::from(runs));
        }
    }
    let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let first_stays = seconds.first().is_none_or(|&first| least.is_infinite() || least >= first * WORTH_IT);
    let best = if first_stays { None } else { seconds.iter().position(|&seconds| seconds == least) };
    Ok(best.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_wins_and_the_first_against_those_that_are_no_faster() {
        let winner = |milliseconds: &[f64]| {
            let run = |algorithm: usize, runs: u32| {
                let each = milliseconds[algorithm];
                if each > 0.0 {
                    std::thread::sleep(Duration::from_secs_f64(each * f64::from(runs) / 1e3));
                }
                Ok::<_, ()>(each > 0.0)
            };
            fastest(milliseconds.len(), run).expect("no run fails")
        };
        assert_eq!(winner(&[30.0, 30.0, 2.0, 30.0]), 2);
        assert_eq!(winner(&[2.0, 30.0]), 0);
        // 0 stands for one that refuses.
        assert_eq!(winner(&[0.0, 30.0, 2.0]), 2);
        assert_eq!(winner(&[0.0, 0.0]), 0);
        assert_eq!(winner(&[]), 0);
    }
}
