//! Reads teacher outputs from a cache, for training and reports.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use cache::{CacheReader, HiddenTokens, LogitForm, StoredRow};
use datasets::Key;
use nn::Tap;
use tracing::debug_span;

use super::TeacherSignal;
use crate::scores;

/// The teacher's outputs for the rows with these keys.
pub(crate) fn signal(cache: &CacheReader, keys: &[Key]) -> anyhow::Result<TeacherSignal> {
    let _span = debug_span!("read cache", rows = keys.len()).entered();
    let mut signal = match &cache.captured().logits {
        LogitForm::Dense { .. } => TeacherSignal::Dense(Vec::with_capacity(keys.len() * cache.captured().width)),
        LogitForm::TopK { k, temperatures, .. } => TeacherSignal::TopK {
            k: *k,
            indices: Vec::new(),
            logits: Vec::new(),
            temperatures: temperatures.clone(),
            tails: Vec::new(),
        },
        LogitForm::Sample { draws, .. } => TeacherSignal::Sample { draws: *draws, indices: Vec::new() },
    };
    let mut missing = None;
    cache.get_many(keys, |key, row| match (row, &mut signal) {
        (None, _) => missing = missing.or(Some(*key)),
        (Some(row), TeacherSignal::Dense(all)) => row.append_logits(all),
        (Some(row), TeacherSignal::TopK { indices, logits, tails, .. }) => {
            indices.extend(row.indices());
            row.append_logits(logits);
            tails.extend(row.tails());
        }
        (Some(row), TeacherSignal::Sample { indices, .. }) => indices.extend(row.indices()),
    })?;
    if let Some(key) = missing {
        bail!("the row with key {} is not in the cache", cache::key_hex(&key));
    }
    Ok(signal)
}

/// The hidden states of the rows with these keys and so many tokens, `[tokens, width]` at each tap; where first tokens alone are
/// stored, those of the others are 0.
pub(crate) fn hidden_states(
    cache: &CacheReader,
    keys: &[Key],
    tokens: &[usize],
    taps: &BTreeSet<Tap>,
) -> anyhow::Result<BTreeMap<Tap, Vec<f32>>> {
    let _span = debug_span!("read hidden states", rows = keys.len()).entered();
    let form = cache.captured().hidden_states.as_ref().context("the cache has no hidden states")?;
    let (width, all) = (form.width, form.tokens == HiddenTokens::All);
    let mut values: BTreeMap<Tap, Vec<f32>> = taps.iter().map(|tap| (*tap, Vec::new())).collect();
    let (mut missing, mut row_tokens) = (None, tokens.iter());
    cache.get_many(keys, |key, row| {
        let tokens = row_tokens.next().copied().unwrap_or_default();
        let Some(stored) = row.and_then(|row| row.hidden_states(tokens)) else {
            missing = missing.or(Some(*key));
            return;
        };
        let of_layer = width * if all { tokens } else { 1 };
        for (layer, of_layer) in form.layers.iter().zip(stored.chunks_exact(of_layer)) {
            if let Some(values) = values.get_mut(&Tap::Hidden(*layer)) {
                let end = values.len() + tokens * width;
                values.extend_from_slice(of_layer);
                values.resize(end, 0.0);
            }
        }
    })?;
    if let Some(key) = missing {
        bail!("the hidden states of the row with key {} are not in the cache, or damaged", cache::key_hex(&key));
    }
    Ok(values)
}

/// Whether all logits are stored.
pub(crate) fn whole_rows(cache: &CacheReader) -> bool {
    matches!(cache.captured().logits, LogitForm::Dense { .. })
}

/// The teacher's predicted class for each row; `None` unless it is known for all of them.
pub(crate) fn choices(cache: &CacheReader, keys: &[Key]) -> anyhow::Result<Option<Vec<u32>>> {
    let mut choices = Vec::with_capacity(keys.len());
    for key in keys {
        match choice(cache, key)? {
            Some(choice) => choices.push(choice),
            None => return Ok(None),
        }
    }
    Ok(Some(choices))
}

/// The teacher's predicted class; `None` if the row is not cached, or if its sample does not determine it.
pub(crate) fn choice(cache: &CacheReader, key: &Key) -> anyhow::Result<Option<u32>> {
    Ok(cache.get(key)?.and_then(|row| first_choice(&row)))
}

fn first_choice(row: &StoredRow<'_>) -> Option<u32> {
    match row.captured().logits {
        LogitForm::Dense { .. } => {
            let width = row.captured().width;
            let logits: Vec<f32> = row.logits().take(width).collect();
            scores::predictions(&logits, width).first().copied()
        }
        LogitForm::TopK { .. } => row.indices().next(),
        LogitForm::Sample { .. } => None,
    }
}

/// The teacher's accuracy on the rows that are cached and labelled, and their number; `None` if there are none.
pub(crate) fn accuracy(
    cache: &CacheReader,
    keys: &[Key],
    labels: &[Option<u32>],
) -> anyhow::Result<Option<(f64, usize)>> {
    let (mut right, mut labelled) = (0, 0);
    for (key, label) in keys.iter().zip(labels) {
        if let Some(label) = label
            && let Some(choice) = choice(cache, key)?
        {
            labelled += 1;
            right += usize::from(choice == *label);
        }
    }
    Ok((labelled > 0).then(|| (right as f64 / labelled as f64, labelled)))
}
