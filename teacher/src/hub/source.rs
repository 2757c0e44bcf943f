//! What is asked for, what the environment says about the Hub, and what a place of model files has to answer.

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;

/// How to look for a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubOptions {
    /// Branch, tag or commit; `main` when none is given.
    pub revision: Option<String>,
    /// Use the cache alone, as the variables HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE also ask.
    pub offline: bool,
}

/// What the environment says about the Hub. A field that is none is left to `hf-hub`, which reads HF_ENDPOINT, HF_HOME,
/// HF_HUB_CACHE, HF_TOKEN and their like itself.
#[derive(Clone, Default)]
pub(super) struct HubEnvironment {
    pub(super) endpoint: Option<String>,
    pub(super) cache: Option<PathBuf>,
    pub(super) token: Option<String>,
    /// Before a request is repeated for the first time; it doubles each time after.
    pub(super) pause: Option<Duration>,
    pub(super) offline: bool,
}

impl HubEnvironment {
    pub(super) fn from_env() -> Self {
        Self { offline: is_offline(|name| std::env::var(name).ok()), ..Self::default() }
    }
}

/// Whether the environment asks to stay offline: the first of the variables that `huggingface_hub` looks at and that says
/// anything.
pub(super) fn is_offline(variable: impl Fn(&str) -> Option<String>) -> bool {
    let said = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().filter_map(variable);
    said.filter(|value| !value.is_empty()).map(|value| is_yes(&value)).next().unwrap_or(false)
}

/// How `huggingface_hub` reads a switch.
pub(super) fn is_yes(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

/// Somewhere the files of one model are.
pub(super) trait Source {
    /// The file of this name, or none when there is none.
    fn find(&self, file: &str) -> Result<Option<PathBuf>, Error>;
    /// What to say when something that is needed is not there.
    fn missing(&self, wanted: &str, way_out: &'static str) -> Error;
    fn folder(&self) -> Option<PathBuf>;
    fn commit(&self) -> Option<String>;
}

/// The file that every model has.
pub(super) const CONFIG_FILE: &str = "config.json";
