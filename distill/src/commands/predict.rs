//! `distill predict`. Classifies lines of text.

use crate::cli::PredictArgs;
use crate::ui::Ui;

/// Classifies lines of text.
pub(crate) fn run(_args: PredictArgs, _ui: &Ui) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
