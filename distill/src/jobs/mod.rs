//! The jobs: what commands do once their flags are read. A job knows no flags, prints no result, and gives its figures back.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod capture;
pub(crate) mod evaluate;
pub(crate) mod export;
mod finetune;
pub(crate) mod pipeline;
pub(crate) mod predict;
pub(crate) mod propose;
mod run_folder;
mod student;
mod train;
mod train_report;

pub(crate) use finetune::Finetuning;
pub(crate) use run_folder::Existing;
pub(crate) use train::Training;
pub(crate) use train_report::TrainReport;
