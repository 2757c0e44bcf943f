//! A student's scores on the validation rows.

use cache::CacheReader;
use nn::Model;
use tracing::trace_span;

use super::rows::FitRows;
use crate::scores::Evaluated;
use crate::signal::cached;
use crate::tasks::Targets;

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
    let _span = trace_span!("evaluate").entered();
    let choices = || match cache {
        Some(cache) => cached::choices(cache, &rows.keys),
        None => Ok(None),
    };
    targets.score(student, &rows.encodings, &rows.labels, choices, batch_tokens).map(Some)
}
