//! A student's scores on the validation rows.

use anyhow::bail;
use cache::CacheReader;
use nn::Model;
use tracing::debug_span;

use super::rows::FitRows;
use crate::recipe::{FitRecipe, Metric, ScheduleKind};
use crate::scores::Evaluated;
use crate::signal::cached;
use crate::tasks::Targets;

/// Refuses settings that wait for a figure which evaluations on these rows do not have.
pub(super) fn check_metric(
    recipe: &FitRecipe,
    targets: &Targets,
    rows: &FitRows,
    cache: Option<&CacheReader>,
) -> anyhow::Result<()> {
    let waits = recipe.patience.is_some() || recipe.schedule == ScheduleKind::Plateau;
    if recipe.metric.is_none() && !waits {
        return Ok(());
    }
    if rows.encodings.is_empty() {
        bail!("there are no validation rows, and --metric, --patience and --schedule plateau go by what they say");
    }
    let answered = match cache {
        Some(cache) => cached::choices(cache, &rows.keys)?.is_some(),
        None => false,
    };
    let known = targets.metrics(rows.labels.iter().any(Option::is_some), answered);
    let wanted = recipe.metric.map_or(vec![Metric::Accuracy, Metric::Agreement], |metric| vec![metric]);
    if !wanted.iter().any(|metric| known.contains(metric)) {
        let names = |metrics: &[Metric]| metrics.iter().map(|metric| metric.name()).collect::<Vec<_>>().join(" or ");
        let known = if known.is_empty() { "nothing".to_owned() } else { names(&known) };
        bail!("the validation rows have no {}: they can be compared by {known}; see --metric", names(&wanted));
    }
    Ok(())
}

/// Scores and loss on these rows, none without any; agreement where the cache has all of them.
pub(super) fn evaluate(
    student: &mut Model,
    targets: &Targets,
    rows: &FitRows,
    cache: Option<&CacheReader>,
    batch_tokens: usize,
) -> anyhow::Result<Option<Evaluated>> {
    if rows.encodings.is_empty() {
        return Ok(None);
    }
    let _span = debug_span!("evaluate").entered();
    let choices = || match cache {
        Some(cache) => cached::choices(cache, &rows.keys),
        None => Ok(None),
    };
    targets.score(student, &rows.encodings, &rows.labels, choices, batch_tokens).map(Some)
}
