//! `distill propose`: students that fit what there is room and time for, without training any.

use crate::cli::ProposeArgs;
use crate::jobs::propose::{Proposing, Report};
use crate::ui::Ui;

pub(crate) fn run(args: ProposeArgs, ui: &Ui) -> anyhow::Result<()> {
    let compute = args.device.resolve()?;
    let report = Proposing {
        teacher: &args.teacher,
        hub: &args.hub.clone().into(),
        data: &args.data,
        columns: &(&args.columns).into(),
        limits: args.limits(),
        compute: &compute,
    }
    .run()?;
    Ok(ui.result(&report, Report::text)?)
}
