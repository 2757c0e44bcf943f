use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::loopback::{COMMIT, Fault, FaultKind, Loopback, MODEL, closed_port, environment};
use super::source::{is_offline, is_yes};
use super::*;

const CONFIG: &[u8] = b"{\"model_type\": \"bert\"}";
const WEIGHTS_BYTES: &[u8] = &[7; 50_000];
const TINY: [(&str, &[u8]); 3] =
    [("config.json", CONFIG), ("model.safetensors", WEIGHTS_BYTES), ("vocab.txt", b"[PAD]\n[UNK]\n")];

#[test]
fn a_model_is_downloaded_once_and_whole() {
    let hub = Loopback::serve(&[TINY[0], TINY[1], TINY[2], ("README.md", b"long"), ("pytorch_model.bin", b"unused")]);
    let cache = tempfile::tempdir().unwrap();
    let files = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
    assert_eq!((files.name.as_str(), files.folder, files.commit.as_deref()), (MODEL, None, Some(COMMIT)));
    assert_eq!(fs::read(&files.config).unwrap(), CONFIG);
    assert_eq!(fs::read(&files.weights[0]).unwrap(), WEIGHTS_BYTES);
    assert!(files.vocab_txt.is_some() && files.tokenizer_json.is_none() && files.merges_txt.is_none());
    assert_eq!(
        fetched(&hub),
        [
            "GET /owner/tiny/resolve/main/config.json".to_owned(),
            format!("GET /owner/tiny/resolve/{COMMIT}/vocab.txt"),
            format!("GET /owner/tiny/resolve/{COMMIT}/model.safetensors"),
        ]
    );
    // As Python's huggingface_hub lays it out.
    let snapshot = cache.path().join("models--owner--tiny/snapshots").join(COMMIT);
    assert_eq!(files.config, snapshot.join("config.json"));
    assert_eq!(fs::read_to_string(cache.path().join("models--owner--tiny/refs/main")).unwrap(), COMMIT);
}

#[test]
fn a_model_in_the_cache_costs_one_question() {
    let hub = Loopback::serve(&TINY);
    let cache = tempfile::tempdir().unwrap();
    let first = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
    hub.requests();
    let second = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
    assert_eq!(first, second);
    let asked: Vec<String> = hub.requests().into_iter().map(|request| request.line).collect();
    assert_eq!(asked, ["HEAD /owner/tiny/resolve/main/config.json"]);
}

#[test]
fn offline_asks_nobody() {
    let hub = Loopback::serve(&TINY);
    let cache = tempfile::tempdir().unwrap();
    let online = hub.environment(cache.path());
    let first = online.locate(MODEL, &HubOptions::default(), None).unwrap();
    hub.requests();
    let by_flag = online.locate(MODEL, &HubOptions { offline: true, revision: None }, None).unwrap();
    let by_variable = HubEnvironment { offline: true, ..online }.locate(MODEL, &HubOptions::default(), None).unwrap();
    assert_eq!((&by_flag, &by_variable), (&first, &first));
    assert!(hub.requests().is_empty());
}

#[test]
fn offline_without_the_model_says_how_to_get_it() {
    let cache = tempfile::tempdir().unwrap();
    let offline = HubEnvironment { offline: true, ..environment(closed_port(), cache.path()) };
    let error = offline.locate(MODEL, &HubOptions::default(), None).unwrap_err();
    assert!(matches!(&error, Error::NotInCache { wanted, .. } if wanted == "config.json"), "{error}");
}

#[test]
fn offline_without_the_weights_names_them() {
    let hub = Loopback::serve(&TINY);
    let cache = tempfile::tempdir().unwrap();
    let files = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
    fs::remove_file(&files.weights[0]).unwrap();
    let offline = HubOptions { offline: true, revision: None };
    let error = hub.environment(cache.path()).locate(MODEL, &offline, None).unwrap_err();
    assert!(matches!(&error, Error::NotInCache { wanted, .. } if wanted.contains("model.safetensors")), "{error}");
}

#[test]
fn a_revision_is_asked_for_by_name() {
    for (revision, in_path) in [("v1", "v1"), ("feature/x", "feature%2Fx"), (COMMIT, COMMIT)] {
        let hub = Loopback::serve(&TINY);
        let cache = tempfile::tempdir().unwrap();
        let options = HubOptions { revision: Some(revision.to_owned()), offline: false };
        let files = hub.environment(cache.path()).locate(MODEL, &options, None).unwrap();
        assert_eq!(files.commit.as_deref(), Some(COMMIT));
        assert_eq!(fetched(&hub)[0], format!("GET /owner/tiny/resolve/{in_path}/config.json"));
    }
}

#[test]
fn a_revision_cannot_lead_out_of_the_cache() {
    let cache = tempfile::tempdir().unwrap();
    for revision in ["../../x", "/etc", "a b", "", "a/../b", ".hidden"] {
        let options = HubOptions { revision: Some(revision.to_owned()), offline: false };
        let error = environment(closed_port(), cache.path()).locate(MODEL, &options, None).unwrap_err();
        assert!(matches!(&error, Error::BadRevision { .. }), "{error}");
    }
}

#[test]
fn an_old_name_without_an_owner_is_followed() {
    let hub = Loopback::serve(&TINY);
    let cache = tempfile::tempdir().unwrap();
    let files = hub.environment(cache.path()).locate("tiny", &HubOptions::default(), None).unwrap();
    assert_eq!(fs::read(&files.weights[0]).unwrap(), WEIGHTS_BYTES);
}

#[test]
fn the_token_goes_with_every_request() {
    let hub = Loopback::serve_to("secret", &TINY);
    let cache = tempfile::tempdir().unwrap();
    let environment = HubEnvironment { token: Some("secret".to_owned()), ..hub.environment(cache.path()) };
    environment.locate(MODEL, &HubOptions::default(), None).unwrap();
    let requests = hub.requests();
    assert!(requests.len() > 3);
    assert!(requests.iter().all(|request| request.authorization.as_deref() == Some("Bearer secret")));
}

#[test]
fn without_a_valid_token_the_way_to_one_is_named() {
    let hub = Loopback::serve_to("secret", &TINY);
    let cache = tempfile::tempdir().unwrap();
    let environment = HubEnvironment { token: Some("wrong".to_owned()), ..hub.environment(cache.path()) };
    let error = environment.locate(MODEL, &HubOptions::default(), None).unwrap_err().to_string();
    assert!(error.contains("401: Invalid username or password.") && error.contains("HF_TOKEN"), "{error}");
}

#[test]
fn a_gated_model_is_refused() {
    let hub = Loopback::serve(&TINY);
    hub.fail(Fault { method: "HEAD", file: "config.json", times: 99, kind: FaultKind::Status(403) });
    let error = refusal(&hub);
    assert!(matches!(&error, Error::Denied { status: 403, .. }), "{error}");
}

#[test]
fn a_model_the_hub_does_not_know() {
    let hub = Loopback::serve(&TINY);
    let cache = tempfile::tempdir().unwrap();
    let error = hub.environment(cache.path()).locate("owner/huge", &HubOptions::default(), None).unwrap_err();
    assert!(matches!(&error, Error::NoSuchModel { name, .. } if name == "owner/huge"), "{error}");
}

#[test]
fn a_revision_the_model_does_not_have() {
    let hub = Loopback::serve(&TINY);
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions { revision: Some("v2".to_owned()), offline: false };
    let error = hub.environment(cache.path()).locate(MODEL, &options, None).unwrap_err();
    assert!(matches!(&error, Error::NoSuchRevision { revision, .. } if revision == "v2"), "{error}");
}

#[test]
fn a_repository_without_a_model() {
    let error = refusal(&Loopback::serve(&[("README.md", b"hello")])).to_string();
    assert!(error.contains("no config.json"), "{error}");
    let error = refusal(&Loopback::serve(&[TINY[0], ("tf_model.h5", b"tensorflow")])).to_string();
    assert!(error.contains("no model.safetensors or pytorch_model.bin"), "{error}");
}

#[test]
fn a_server_that_recovers_is_waited_for() {
    let hub = Loopback::serve(&TINY);
    for (method, file) in [("HEAD", "config.json"), ("GET", "config.json"), ("GET", "model.safetensors")] {
        hub.fail(Fault { method, file, times: 2, kind: FaultKind::Status(503) });
    }
    let cache = tempfile::tempdir().unwrap();
    let files = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
    assert_eq!(fs::read(&files.weights[0]).unwrap(), WEIGHTS_BYTES);
}

#[test]
fn a_server_that_does_not_recover_is_given_up() {
    let hub = Loopback::serve(&TINY);
    hub.fail(Fault { method: "HEAD", file: "config.json", times: 99, kind: FaultKind::Status(503) });
    let error = refusal(&hub);
    assert!(matches!(&error, Error::HubFailed { finding, .. } if finding.contains("503")), "{error}");
}

#[test]
fn an_error_page_is_never_taken_for_the_file() {
    let hub = Loopback::serve(&TINY);
    hub.fail(Fault { method: "GET", file: "model.safetensors", times: 999, kind: FaultKind::Status(500) });
    let cache = tempfile::tempdir().unwrap();
    let error = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap_err();
    assert!(matches!(&error, Error::Incomplete { file, .. } if file == "model.safetensors"), "{error}");
    assert_kept(cache.path(), &[TINY[0], TINY[2]]);
}

#[test]
fn a_connection_cut_in_the_middle_of_a_file_is_tried_again() {
    for kind in [FaultKind::Cut, FaultKind::CutWithoutLength] {
        let hub = Loopback::serve(&TINY);
        hub.fail(Fault { method: "GET", file: "model.safetensors", times: 2, kind });
        let cache = tempfile::tempdir().unwrap();
        let files = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
        assert_eq!(fs::read(&files.weights[0]).unwrap(), WEIGHTS_BYTES);
    }
}

#[test]
fn a_file_that_never_comes_whole_is_not_kept() {
    for kind in [FaultKind::Cut, FaultKind::CutWithoutLength] {
        let hub = Loopback::serve(&TINY);
        hub.fail(Fault { method: "GET", file: "model.safetensors", times: 999, kind });
        let cache = tempfile::tempdir().unwrap();
        let error = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap_err();
        assert!(matches!(&error, Error::Incomplete { attempts: 3, .. }), "{error}");
        assert_kept(cache.path(), &[TINY[0], TINY[2]]);
        // And once the line is good again, so is the model.
        let files =
            Loopback::serve(&TINY).environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
        assert_eq!(fs::read(&files.weights[0]).unwrap(), WEIGHTS_BYTES);
    }
}

#[test]
fn no_network_is_said_so() {
    let cache = tempfile::tempdir().unwrap();
    let error = environment(closed_port(), cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap_err();
    assert!(matches!(&error, Error::Unreachable { .. }) && error.to_string().contains("--offline"), "{error}");
}

#[test]
fn no_network_but_a_cache_is_enough() {
    let hub = Loopback::serve(&TINY);
    let cache = tempfile::tempdir().unwrap();
    let online = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
    let cut_off = environment(closed_port(), cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
    assert_eq!(online, cut_off);
}

#[test]
fn an_endpoint_that_is_no_address() {
    let cache = tempfile::tempdir().unwrap();
    let settings = HubEnvironment { endpoint: Some(String::new()), ..environment(1, cache.path()) };
    let error = settings.locate(MODEL, &HubOptions::default(), None).unwrap_err();
    assert!(matches!(&error, Error::HubSettings { .. }), "{error}");
}

#[test]
fn a_cache_that_cannot_be_written() {
    let hub = Loopback::serve(&TINY);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = hub.environment(&file).locate(MODEL, &HubOptions::default(), None).unwrap_err();
    assert!(matches!(&error, Error::HubCache { .. }), "{error}");
}

#[test]
fn shards_are_found_through_their_index() {
    let index = br#"{"weight_map": {"a": "model-00002.safetensors", "b": "model-00001.safetensors", "c": "model-00002.safetensors"}}"#;
    let hub = Loopback::serve(&[
        TINY[0],
        ("model.safetensors.index.json", index),
        ("model-00001.safetensors", b"one"),
        ("model-00002.safetensors", b"two"),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let files = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
    let contents: Vec<Vec<u8>> = files.weights.iter().map(|shard| fs::read(shard).unwrap()).collect();
    assert_eq!(contents, [b"one", b"two"]);
}

#[test]
fn a_pickle_is_taken_where_there_is_nothing_better() {
    let hub = Loopback::serve(&[TINY[0], ("pytorch_model.bin", b"pickle")]);
    let cache = tempfile::tempdir().unwrap();
    let files = hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap();
    assert_eq!(fs::read(&files.weights[0]).unwrap(), b"pickle");
}

#[test]
fn a_download_tells_how_far_it_has_come() {
    let hub = Loopback::serve(&TINY);
    let cache = tempfile::tempdir().unwrap();
    let seen: Arc<Mutex<Vec<Download>>> = Arc::default();
    let sink = Arc::clone(&seen);
    let on_download: OnDownload = Arc::new(move |download| sink.lock().unwrap().push(download.clone()));
    hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), Some(on_download)).unwrap();
    let total_bytes = WEIGHTS_BYTES.len() as u64;
    let last = seen.lock().unwrap().last().cloned();
    assert_eq!(last, Some(Download { file: "model.safetensors".to_owned(), bytes: total_bytes, total_bytes }));
}

// Folders.

#[test]
fn a_folder_is_taken_as_it_is() {
    let folder = folder(&[TINY[0], TINY[1], ("tokenizer.json", b"{}")]);
    let files = locate_in(folder.path()).unwrap();
    assert_eq!(files.folder.as_deref(), Some(folder.path()));
    assert_eq!((files.commit, files.config), (None, folder.path().join("config.json")));
    assert_eq!(files.weights, [folder.path().join("model.safetensors")]);
    assert_eq!(files.tokenizer_json, Some(folder.path().join("tokenizer.json")));
    assert_eq!((files.vocab_txt, files.tokenizer_config, files.special_tokens_map), (None, None, None));
}

#[test]
fn a_folder_that_lacks_something() {
    let error = locate_in(folder(&[TINY[1]]).path()).unwrap_err();
    assert!(matches!(&error, Error::MissingFile { wanted, .. } if wanted == "config.json"), "{error}");
    let error = locate_in(folder(&[TINY[0]]).path()).unwrap_err();
    assert!(matches!(&error, Error::MissingFile { wanted, .. } if wanted.contains("model.safetensors")), "{error}");
    let index = br#"{"weight_map": {"a": "model-00001.safetensors"}}"#;
    let error = locate_in(folder(&[TINY[0], ("model.safetensors.index.json", index)]).path()).unwrap_err();
    assert!(matches!(&error, Error::MissingFile { wanted, .. } if wanted == "model-00001.safetensors"), "{error}");
}

#[test]
fn an_index_that_makes_no_sense() {
    for index in [
        r#"{"weight_map": {"a": "../../secret.safetensors"}}"#,
        r#"{"weight_map": {"a": "/etc/passwd"}}"#,
        r#"{"weight_map": {}}"#,
        r#"{"weight_map": 3}"#,
        "{",
    ] {
        let folder = folder(&[TINY[0], ("model.safetensors.index.json", index.as_bytes())]);
        let error = locate_in(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::ShardIndex { .. }), "{index}: {error}");
    }
}

#[test]
fn a_folder_has_no_revision() {
    let folder = folder(&TINY);
    let options = HubOptions { revision: Some("v1".to_owned()), offline: false };
    let error = HubEnvironment::default().locate(folder.path().to_str().unwrap(), &options, None).unwrap_err();
    assert!(matches!(&error, Error::RevisionOfFolder { .. }), "{error}");
}

#[test]
fn a_file_is_no_model() {
    let folder = folder(&TINY);
    let error = locate_in(&folder.path().join("model.safetensors")).unwrap_err();
    assert!(matches!(&error, Error::NotAFolder { .. }), "{error}");
}

#[test]
fn a_path_to_nowhere_is_not_asked_of_the_hub() {
    for name in ["/nowhere/at/all", "./nowhere", "a/b/c", "~/models/bert", "", "owner/", "bert base", "../x"] {
        let error = HubEnvironment::default().locate(name, &HubOptions::default(), None).unwrap_err();
        assert!(matches!(&error, Error::NoSuchFolder { .. }), "{name}: {error}");
    }
    assert!(["bert-base-uncased", "google/electra-small_v1.1", "0/1"].iter().all(|name| is_hub_name(name)));
}

#[test]
fn a_switch_is_read_as_python_reads_it() {
    assert!(["1", "on", "Yes", "TRUE", "true"].iter().all(|value| is_yes(value)));
    assert!(!["0", "", "off", "no", "false", "2"].iter().any(|value| is_yes(value)));
}

#[test]
fn offline_is_asked_for_by_either_variable() {
    let asked = |hub: Option<&str>, transformers: Option<&str>| {
        is_offline(|name| (if name == "HF_HUB_OFFLINE" { hub } else { transformers }).map(str::to_owned))
    };
    assert!(asked(Some("1"), None) && asked(None, Some("1")) && asked(Some(""), Some("true")));
    assert!(!asked(None, None) && !asked(None, Some("0")));
    assert!(!asked(Some("0"), Some("1")), "the Hub's own variable comes first, as in Python");
}

#[test]
fn the_cache_is_expanded_as_in_python() {
    let cache = |variables: &[(&str, &str)]| {
        let found = |name: &str| Some(variables.iter().find(|(known, _)| *known == name)?.1.to_owned());
        super::source::expanded_cache(found).map(|path| path.display().to_string())
    };
    let home = ("HOME", "/home/me");
    assert_eq!(cache(&[home, ("HF_HOME", "~/x")]).as_deref(), Some("/home/me/x/hub"));
    assert_eq!(cache(&[home, ("HF_HOME", "~/x"), ("HF_HUB_CACHE", "$HOME/hub")]).as_deref(), Some("/home/me/hub"));
    assert_eq!(cache(&[home, ("HUGGINGFACE_HUB_CACHE", "/a/${HOME}b/$NONE")]).as_deref(), Some("/a//home/meb/$NONE"));
    // What needs no expansion is left to the client: a folder called `~me`, an absolute path before an odd HF_HOME.
    for path in ["/x", "~me/x", "/a$", "/${b", "x~"] {
        assert_eq!(cache(&[home, ("HF_HOME", path)]), None, "{path}");
    }
    assert_eq!(cache(&[home, ("HF_HOME", "~/x"), ("HF_HUB_CACHE", "/y")]), None);
    assert_eq!(cache(&[home]), None);
}

#[test]
fn an_adapter_is_told_from_a_model() {
    let config = br#"{"peft_type": "LORA", "base_model_name_or_path": "google-bert/bert-base-uncased"}"#;
    let adapter = [("adapter_config.json", &config[..]), ("adapter_model.safetensors", b"")];
    // Alone, or beside a configuration that somebody put there.
    for files in [adapter.to_vec(), [&adapter[..], &[("config.json", &b"{}"[..])]].concat()] {
        let folder = folder(&files);
        let error = locate_in(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::Adapter { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("merge it into google-bert/bert-base-uncased first"), "{message}");
    }
    let merged = folder(&[&TINY[..], &adapter[..]].concat());
    locate_in(merged.path()).expect("a model with its former adapter beside it");
}

// Helpers.

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn locate_in(path: &Path) -> Result<ModelFiles, Error> {
    HubEnvironment::default().locate(path.to_str().unwrap(), &HubOptions::default(), None)
}

/// The error that somebody with an empty cache meets.
fn refusal(hub: &Loopback) -> Error {
    let cache = tempfile::tempdir().unwrap();
    hub.environment(cache.path()).locate(MODEL, &HubOptions::default(), None).unwrap_err()
}

/// The requests that brought a body.
fn fetched(hub: &Loopback) -> Vec<String> {
    hub.requests().into_iter().map(|request| request.line).filter(|line| line.starts_with("GET")).collect()
}

/// Every complete file in the cache, by its bytes, is one of these.
fn assert_kept(cache: &Path, expected: &[(&str, &[u8])]) {
    let model = cache.join("models--owner--tiny");
    let names = |folder: PathBuf| {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with(".incomplete"))
            .collect();
        names.sort();
        names
    };
    let mut hashes: Vec<String> = expected.iter().map(|(_, bytes)| blake3::hash(bytes).to_hex().to_string()).collect();
    hashes.sort();
    assert_eq!(names(model.join("blobs")), hashes);
    let mut files: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    files.sort_unstable();
    assert_eq!(names(model.join("snapshots").join(COMMIT)), files);
}
