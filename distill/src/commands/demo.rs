//! `distill demo`. All of it on the data set and the teacher that the program carries.

use crate::cli::DemoArgs;
use crate::ui::Ui;

/// All of it on the data set and the teacher that the program carries.
pub(crate) fn run(_args: DemoArgs, _ui: &Ui) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
