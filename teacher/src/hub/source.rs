//! Hub options, settings from the environment, and the interface of a place that has model files.

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;

/// Which revision of a model to load, and whether to use the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HubOptions {
    /// Branch, tag or commit; `main` when none is given.
    pub revision: Option<String>,
    /// Use only the local cache, as with HF_HUB_OFFLINE=1 or TRANSFORMERS_OFFLINE=1.
    pub offline: bool,
}

/// Settings of the Hub client. A field that is `None` is left to `hf-hub`, which reads HF_ENDPOINT, HF_HOME,
/// HF_HUB_CACHE, HF_TOKEN and their like itself.
#[derive(Clone, Default)]
pub(super) struct HubEnvironment {
    pub(super) endpoint: Option<String>,
    pub(super) cache: Option<PathBuf>,
    pub(super) token: Option<String>,
    /// Delay before the first retry; doubled each time.
    pub(super) pause: Option<Duration>,
    pub(super) offline: bool,
}

impl HubEnvironment {
    pub(super) fn from_env() -> Self {
        Self { offline: is_offline(|name| std::env::var(name).ok()), ..Self::default() }
    }
}

/// Whether the environment asks to stay offline: the first variable that is set, of those that `huggingface_hub` reads.
pub(super) fn is_offline(variable: impl Fn(&str) -> Option<String>) -> bool {
    let said = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().filter_map(variable);
    said.filter(|value| !value.is_empty()).map(|value| is_yes(&value)).next().unwrap_or(false)
}

/// Whether `huggingface_hub` reads this value of a variable as true.
pub(super) fn is_yes(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

/// A place with the files of one model.
pub(super) trait Source {
    /// The path of the file of this name, if it exists.
    fn find(&self, file: &str) -> Result<Option<PathBuf>, Error>;
    /// The error for a file that is needed and missing.
    fn missing(&self, wanted: &str, way_out: &'static str) -> Error;
    fn folder(&self) -> Option<PathBuf>;
    fn commit(&self) -> Option<String>;
}

/// The configuration of a model.
pub(super) const CONFIG_FILE: &str = "config.json";
