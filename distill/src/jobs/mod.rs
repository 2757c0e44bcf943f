//! The jobs that commands run. A job knows nothing of flags and returns its results instead of printing them.

mod augment;
pub(crate) mod bench;
mod beside;
pub(crate) mod cache;
pub(crate) mod capture;
pub(crate) mod compare;
pub(crate) mod data;
pub(crate) mod evaluate;
pub(crate) mod export;
mod finetune;
pub(crate) mod pipeline;
pub(crate) mod plot;
pub(crate) mod predict;
pub(crate) mod propose;
mod run_folder;
mod staged;
mod student;
mod teacher;
mod texts;
mod train;
mod train_report;
pub(crate) mod tune;

pub(crate) use augment::Augmenting;
pub(crate) use finetune::Finetuning;
pub(crate) use run_folder::Existing;
pub(crate) use student::planned;
pub(crate) use teacher::Teacher;
pub(crate) use texts::Texts;
pub(crate) use train::Training;
pub(crate) use train_report::TrainReport;
