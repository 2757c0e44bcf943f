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
/// HF_HUB_CACHE, HF_TOKEN and their like itself, but takes a `~` or a variable in them as it is written.
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
        let variable = |name: &str| std::env::var(name).ok();
        Self { offline: is_offline(variable), cache: expanded_cache(variable), ..Self::default() }
    }
}

/// Whether the environment asks to stay offline: the first variable that is set, of those that `huggingface_hub` reads.
pub(super) fn is_offline(variable: impl Fn(&str) -> Option<String>) -> bool {
    let said = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"].into_iter().filter_map(variable);
    said.filter(|value| !value.is_empty()).map(|value| is_yes(&value)).next().unwrap_or(false)
}

/// The Hub's cache where the environment names it with a `~` or a variable, which `huggingface_hub` expands and `hf-hub`
/// does not.
pub(super) fn expanded_cache(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let said = |name: &str| variable(name).filter(|value| !value.is_empty());
    let caches = || ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].into_iter().find_map(said);
    let (path, within) = caches().map(|path| (path, "")).or_else(|| Some((said("HF_HOME")?, "hub")))?;
    let expanded = expand(&path, &variable);
    (expanded != path).then(|| {
        let cache = PathBuf::from(expanded);
        if within.is_empty() { cache } else { cache.join(within) }
    })
}

/// As `os.path.expandvars(os.path.expanduser(path))`: a variable that is not set stays as it is written.
fn expand(path: &str, variable: &impl Fn(&str) -> Option<String>) -> String {
    let home = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut rest = match (home, variable("HOME")) {
        (Some(rest), Some(home)) => format!("{}{rest}", home.trim_end_matches('/')),
        _ => path.to_owned(),
    };
    let mut expanded = String::new();
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        let behind = &rest[at + 1..];
        let (name, end) = match behind.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 2),
            None => {
                let end = behind.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(behind.len());
                (&behind[..end], end)
            }
        };
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => expanded.push_str(&value),
            None => expanded.push_str(&rest[at..at + 1 + end]),
        }
        rest = behind[end..].to_owned();
    }
    expanded + &rest
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
