//! A Hub on the loopback interface, for tests: the part of its protocol that downloads use, and its ways to fail.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::source::HubEnvironment;

pub(super) const MODEL: &str = "owner/tiny";
pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The revisions that lead to [`COMMIT`].
const REVISIONS: [&str; 4] = ["main", "v1", "feature/x", COMMIT];

/// One model's repository, served until the test ends.
pub(super) struct Loopback {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    files: BTreeMap<String, Vec<u8>>,
    token: Option<String>,
    faults: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<Request>>,
}

#[derive(Clone, Debug)]
pub(super) struct Request {
    /// Such as `HEAD /owner/tiny/resolve/main/config.json`.
    pub(super) line: String,
    pub(super) authorization: Option<String>,
    if_none_match: Option<String>,
}

/// What goes wrong the next `times` that somebody asks for a file in this way.
pub(super) struct Fault {
    pub(super) method: &'static str,
    pub(super) file: &'static str,
    pub(super) times: usize,
    pub(super) kind: FaultKind,
}

#[derive(Clone, Copy)]
pub(super) enum FaultKind {
    Status(u16),
    /// The connection ends after half of the file.
    Cut,
    /// Nothing says how long the answer is, and it ends after half of the file.
    CutWithoutLength,
}

impl Loopback {
    pub(super) fn serve(files: &[(&str, &[u8])]) -> Self {
        Self::start(files, None)
    }

    pub(super) fn serve_to(token: &str, files: &[(&str, &[u8])]) -> Self {
        Self::start(files, Some(token.to_owned()))
    }

    pub(super) fn fail(&self, fault: Fault) -> &Self {
        self.shared.faults.lock().unwrap().push(fault);
        self
    }

    /// The settings of somebody who uses this Hub, with a cache of their own and without patience.
    pub(super) fn environment(&self, cache: &Path) -> HubEnvironment {
        environment(self.port, cache)
    }

    /// The requests since the last call.
    pub(super) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut *self.shared.requests.lock().unwrap())
    }

    fn start(files: &[(&str, &[u8])], token: Option<String>) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
        let shared = Arc::new(Shared { files, token, faults: Mutex::default(), requests: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                std::thread::spawn(move || served.answer(stream));
            }
        });
        Self { port, shared }
    }
}

pub(super) fn environment(port: u16, cache: &Path) -> HubEnvironment {
    HubEnvironment {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        cache: Some(cache.to_owned()),
        pause: Some(Duration::from_millis(1)),
        ..HubEnvironment::default()
    }
}

/// A port that nobody listens on.
pub(super) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[derive(Default)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut: Option<FaultKind>,
}

impl Shared {
    /// Answers one request and closes the connection. Who goes away early is no concern of this side.
    fn answer(&self, mut stream: TcpStream) {
        let Some(request) = read_request(&stream) else { return };
        self.requests.lock().unwrap().push(request.clone());
        let is_head = request.line.starts_with("HEAD");
        let answer = self.answer_to(&request);
        let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", answer.status);
        if !matches!(answer.cut, Some(FaultKind::CutWithoutLength)) {
            head += &format!("Content-Length: {}\r\n", answer.body.len());
        }
        for (name, value) in answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        let mut bytes = format!("{head}\r\n").into_bytes();
        if !is_head {
            let length = if answer.cut.is_some() { answer.body.len() / 2 } else { answer.body.len() };
            bytes.extend(&answer.body[..length]);
        }
        let _ = stream.write_all(&bytes);
    }

    fn answer_to(&self, request: &Request) -> Answer {
        let (method, path) = request.line.split_once(' ').unwrap();
        let fault = self.next_fault(method, path);
        if let Some(FaultKind::Status(status)) = fault {
            return Answer { status, body: b"<html>something went wrong</html>".to_vec(), ..Answer::default() };
        }
        let expected = self.token.as_ref().map(|token| format!("Bearer {token}"));
        if expected.is_some() && expected != request.authorization {
            let headers = vec![("X-Error-Message", "Invalid username or password.".to_owned())];
            return Answer { status: 401, headers, ..Answer::default() };
        }
        // The Hub leads an old name without an owner to its new place.
        if let Some(rest) = path.strip_prefix("/tiny/resolve/") {
            let headers = vec![("Location", format!("/{MODEL}/resolve/{rest}"))];
            return Answer { status: 307, headers, ..Answer::default() };
        }
        if let Some(rest) = path.strip_prefix("/api/models/") {
            let known = rest == MODEL || rest.strip_prefix(&format!("{MODEL}/revision/")).is_some_and(is_known);
            return Answer { status: if known { 200 } else { 404 }, body: b"{}".to_vec(), ..Answer::default() };
        }
        let Some((revision, file)) =
            path.strip_prefix(&format!("/{MODEL}/resolve/")).and_then(|rest| rest.split_once('/'))
        else {
            return Answer { status: 404, ..Answer::default() };
        };
        if !is_known(revision) {
            return Answer { status: 404, ..Answer::default() };
        }
        let mut headers = vec![("X-Repo-Commit", COMMIT.to_owned())];
        let Some(body) = self.files.get(file) else {
            return Answer { status: 404, headers, ..Answer::default() };
        };
        let etag = format!("\"{}\"", blake3::hash(body).to_hex());
        headers.push(("ETag", etag.clone()));
        if request.if_none_match == Some(etag) {
            return Answer { status: 304, headers, ..Answer::default() };
        }
        Answer { status: 200, headers, body: body.clone(), cut: fault }
    }

    fn next_fault(&self, method: &str, path: &str) -> Option<FaultKind> {
        let mut faults = self.faults.lock().unwrap();
        let matches = |fault: &&mut Fault| fault.times > 0 && fault.method == method && path.ends_with(fault.file);
        let fault = faults.iter_mut().find(matches)?;
        fault.times -= 1;
        Some(fault.kind)
    }
}

fn is_known(revision: &str) -> bool {
    REVISIONS.iter().any(|known| known.replace('/', "%2F") == revision)
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let line = first.strip_suffix(" HTTP/1.1")?.to_owned();
    let mut request = Request { line, authorization: None, if_none_match: None };
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            return Some(request);
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.to_owned()),
            "if-none-match" => request.if_none_match = Some(value.to_owned()),
            _ => {}
        }
    }
    None
}
