//! One model on the Hub, through the cache on disk. `hf-hub` speaks the protocol; what it leaves open is settled here:
//! files of one commit, sizes that are checked, tries that are repeated, errors that say what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFClient, HFError, HFRepositorySync, RepoTypeModel};

use super::source::{CONFIG_FILE, HubEnvironment, HubOptions, Source};
use crate::Error;

/// Attempts at a file that arrives incomplete. `hf-hub` itself retries requests that fail earlier.
const ATTEMPTS: usize = 3;

/// Progress of the download of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// The file's name in the repository.
    pub file: String,
    /// Bytes so far.
    pub bytes: u64,
    /// Bytes in all; 0 when the Hub does not say.
    pub total_bytes: u64,
}

/// Called for each chunk received, on another thread.
pub type OnDownload = Arc<dyn Fn(&Download) + Send + Sync>;

pub(super) struct HubModel {
    repository: HFRepositorySync<RepoTypeModel>,
    name: String,
    endpoint: String,
    cache: PathBuf,
    /// As it was asked for.
    revision: String,
    /// As it turned out to be, so that every file is of the same commit whoever pushes meanwhile.
    commit: Option<String>,
    offline: bool,
    on_download: Option<OnDownload>,
}

impl HubModel {
    pub(super) fn open(
        environment: &HubEnvironment,
        name: &str,
        options: &HubOptions,
        on_download: Option<OnDownload>,
    ) -> Result<Self, Error> {
        let revision = options.revision.clone().unwrap_or_else(|| "main".to_owned());
        if !is_revision(&revision) {
            return Err(Error::BadRevision { revision });
        }
        let mut builder = HFClient::builder();
        if let Some(endpoint) = &environment.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(cache) = &environment.cache {
            builder = builder.cache_dir(cache);
        }
        if let Some(token) = &environment.token {
            builder = builder.token(token);
        }
        if let Some(pause) = environment.pause {
            builder = builder.retry_base_delay(pause);
        }
        let settings = |error: HFError| Error::HubSettings { finding: with_causes(&error) };
        let client = builder.build().map_err(settings)?;
        let (endpoint, cache) = (client.endpoint().to_owned(), client.cache_dir().to_owned());
        let (owner, short_name) = hf_hub::split_id(name);
        let repository = hf_hub::HFClientSync::from_inner(client).map_err(settings)?.model(owner, short_name);
        let offline = options.offline || environment.offline;
        let mut model =
            Self { repository, name: name.to_owned(), endpoint, cache, revision, commit: None, offline, on_download };
        model.commit = model.find(CONFIG_FILE)?.and_then(|config| commit_of(&config));
        Ok(model)
    }

    fn revision(&self) -> &str {
        self.commit.as_ref().unwrap_or(&self.revision)
    }

    /// Asks the cache alone.
    fn cached(&self, file: &str) -> Result<PathBuf, HFError> {
        self.repository.download_file().filename(file).revision(self.revision()).local_files_only(true).send()
    }

    /// Asks the Hub, once.
    fn download(&self, file: &str) -> Result<PathBuf, Failure> {
        let watch = Arc::new(Watch {
            file: file.to_owned(),
            announced: AtomicU64::new(0),
            on_download: self.on_download.clone(),
        });
        let path = self
            .repository
            .download_file()
            .filename(file)
            .revision(self.revision())
            .progress(Arc::clone(&watch))
            .send()?;
        // hf-hub keeps whatever the second request brought, an error page as well: nobody but the size tells.
        let announced = watch.announced.load(Ordering::Relaxed);
        let found = fs::metadata(&path).map_err(HFError::from)?.len();
        if announced != 0 && found != announced {
            discard(&path);
            return Err(Failure::Incomplete(format!("{found} bytes of {announced}")));
        }
        Ok(path)
    }

    fn error(&self, file: &str, error: HFError) -> Error {
        let (name, endpoint, file) = (self.name.clone(), self.endpoint.clone(), file.to_owned());
        match error {
            HFError::AuthRequired { context } | HFError::Forbidden { context } => {
                let message = context.server_message.map(|message| format!(": {message}")).unwrap_or_default();
                Error::Denied { name, endpoint, status: context.status.as_u16(), message }
            }
            HFError::Http { context } | HFError::RateLimited { context, .. } => {
                Error::HubFailed { name, endpoint, file, finding: context.status.to_string() }
            }
            error @ HFError::Request { .. } => {
                Error::Unreachable { name, endpoint, file, finding: with_causes(&error) }
            }
            HFError::CacheLockTimeout { path } => Error::CacheLocked { name, file, lock: path },
            HFError::Io(source) => Error::HubCache { name, file, cache: self.cache.clone(), source },
            error => Error::HubFailed { name, endpoint, file, finding: with_causes(&error) },
        }
    }
}

impl Source for HubModel {
    fn find(&self, file: &str) -> Result<Option<PathBuf>, Error> {
        // What a commit holds never changes, so what the cache knows of it needs no question.
        if self.offline || self.commit.is_some() {
            match self.cached(file) {
                Ok(path) => return Ok(Some(path)),
                Err(HFError::EntryNotFound { .. }) => return Ok(None),
                Err(HFError::LocalEntryNotFound { .. }) if self.offline => return Ok(None),
                Err(HFError::LocalEntryNotFound { .. }) => {}
                Err(error) => return Err(self.error(file, error)),
            }
        }
        let mut finding = String::new();
        for _ in 0..ATTEMPTS {
            match self.download(file) {
                Ok(path) => return Ok(Some(path)),
                Err(Failure::Hub(HFError::EntryNotFound { .. })) => return Ok(None),
                Err(Failure::Hub(error)) => return Err(self.error(file, error)),
                Err(Failure::Incomplete(what)) => finding = what,
            }
        }
        let (name, endpoint, file) = (self.name.clone(), self.endpoint.clone(), file.to_owned());
        Err(Error::Incomplete { name, endpoint, file, attempts: ATTEMPTS, finding })
    }

    fn missing(&self, wanted: &str, way_out: &'static str) -> Error {
        let (name, endpoint, wanted) = (self.name.clone(), self.endpoint.clone(), wanted.to_owned());
        if self.offline {
            return Error::NotInCache { name, revision: self.revision.clone(), wanted, cache: self.cache.clone() };
        }
        // The Hub answers alike for a file, a revision and a model that are not there.
        if self.commit.is_none() {
            if matches!(self.repository.exists().send(), Ok(false)) {
                return Error::NoSuchModel { name, endpoint };
            }
            if matches!(self.repository.revision_exists().revision(&self.revision).send(), Ok(false)) {
                return Error::NoSuchRevision { name, revision: self.revision.clone(), endpoint };
            }
        }
        Error::MissingFile { place: format!("`{name}` on {endpoint}"), wanted, way_out }
    }

    fn folder(&self) -> Option<PathBuf> {
        None
    }

    fn commit(&self) -> Option<String> {
        self.commit.clone()
    }
}

/// Why one try at a file failed.
enum Failure {
    Hub(HFError),
    /// Worth another try.
    Incomplete(String),
}

impl From<HFError> for Failure {
    fn from(error: HFError) -> Self {
        match &error {
            // A connection that was made, and then broke in the middle of the answer.
            HFError::Request { source, .. } if source.is_body() || source.is_decode() => {
                Self::Incomplete(with_causes(&error))
            }
            _ => Self::Hub(error),
        }
    }
}

/// Listens to one download: the size that the Hub announces, and how far it has come.
struct Watch {
    file: String,
    announced: AtomicU64,
    on_download: Option<OnDownload>,
}

impl ProgressHandler for Watch {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else { return };
        let (bytes, total_bytes) = match event {
            DownloadEvent::Start { total_bytes, .. } => {
                self.announced.store(*total_bytes, Ordering::Relaxed);
                (0, *total_bytes)
            }
            DownloadEvent::Progress { files } => match files.first() {
                Some(file) => (file.bytes_completed, file.total_bytes),
                None => return,
            },
            DownloadEvent::AggregateProgress { bytes_completed, total_bytes, .. } => (*bytes_completed, *total_bytes),
            DownloadEvent::Complete => return,
        };
        if let Some(on_download) = &self.on_download {
            on_download(&Download { file: self.file.clone(), bytes, total_bytes });
        }
    }
}

/// Takes a bad file out of the cache: the link under its name and the bytes it leads to. What cannot be removed is
/// found wrong again by the next try.
fn discard(path: &Path) {
    if let Ok(blob) = fs::canonicalize(path) {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(path);
}

/// The commit in the path of a cached file, `snapshots/COMMIT/config.json`.
fn commit_of(config: &Path) -> Option<String> {
    let commit = config.parent()?.file_name()?.to_str()?;
    let is_commit = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit.to_owned())
}

/// Whether Git could have a reference of this name. It becomes a path in the cache, so it must not lead out of it.
fn is_revision(revision: &str) -> bool {
    let letters = revision.chars().all(|letter| !letter.is_control() && !" \\:?*[~^".contains(letter));
    let parts = revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    letters && parts && !revision.contains("..")
}

/// An error with what caused it: the outer message of a network error says next to nothing.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !message.contains(&next) {
            message = format!("{message}: {next}");
        }
        cause = error.source();
    }
    message
}
