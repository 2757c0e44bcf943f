//! `distill export`. Writes a folder that Hugging Face transformers loads as it is.

use crate::cli::ExportArgs;
use crate::ui::Ui;

/// Writes a folder that Hugging Face transformers loads as it is.
pub(crate) fn run(_args: ExportArgs, _ui: &Ui) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
