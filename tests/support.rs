//! A folder to work in, and the program run in it as a person would: one line of flags in, what came out back.
//!
//! Every [`Workplace`] holds copies of the end-to-end fixture (`teacher/`, `train.tsv`, `test.tsv`), so that a test may
//! spoil them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

/// The class names of the fixture's teacher, by id.
pub(crate) const CLASSES: [&str; 4] = ["bakery", "library", "station", "garden"];

/// The fixture's cache, trained on and validated on `train.tsv`.
pub(crate) const CACHE: &str = "cache --teacher teacher --data train.tsv --output cache";

/// A short training, to be followed by `--output` and by what the test is about.
pub(crate) const TRAIN: &str = "train --teacher teacher --cache cache --data train.tsv --epochs 1";

/// A folder with the fixture's files, removed when it goes.
pub(crate) struct Workplace {
    folder: TempDir,
}

impl Workplace {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let from = repository().join("tests/fixtures/e2e");
        for file in ["train.tsv", "test.tsv"] {
            fs::copy(from.join(file), folder.path().join(file)).expect("the fixture is there");
        }
        copy_folder(&from.join("teacher"), &folder.path().join("teacher"));
        Self { folder }
    }

    /// With the fixture's rows cached in `cache`.
    pub(crate) fn with_cache() -> Self {
        let place = Self::new();
        place.json(CACHE);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("writes");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        String::from_utf8(self.read_bytes(name)).expect("text")
    }

    /// Writes `texts.tsv`: so many texts without labels that stand in no other file.
    pub(crate) fn write_texts(&self, count: usize) {
        let rows = self.read("test.tsv");
        let texts = rows.lines().skip(1).take(count).map(|row| row.split('\t').next().unwrap_or_default());
        self.write("texts.tsv", texts.fold("text\n".to_owned(), |all, text| all + text + " today\n"));
    }

    /// The values of one tensor in a file.
    pub(crate) fn tensor(&self, file: &str, name: &str) -> Vec<f32> {
        let bytes = self.read_bytes(file);
        let tensors = SafeTensors::deserialize(&bytes).expect("readable weights");
        let tensor = tensors.tensor(name).expect("the tensor is there");
        tensor.data().chunks_exact(4).map(|value| f32::from_le_bytes(value.try_into().expect("4 bytes"))).collect()
    }

    pub(crate) fn read_bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn read_json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).expect("JSON")
    }

    /// Changes a JSON file.
    pub(crate) fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut json = self.read_json(name);
        edit(&mut json);
        self.write(name, json.to_string());
    }

    /// Names in a folder, sorted.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        files(&self.path(folder)).into_keys().collect()
    }

    /// The files of a folder with their bytes.
    pub(crate) fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        files(&self.path(folder))
    }

    /// Copies a folder, with what is in it.
    pub(crate) fn copy(&self, from: &str, to: &str) {
        copy_folder(&self.path(from), &self.path(to));
    }

    /// Runs `distill` with these flags, which no blank may be in, and waits for its end.
    pub(crate) fn run(&self, line: &str) -> Finished {
        Finished::of(line, self.command(line).output().expect("runs"))
    }

    /// As [`run`](Self::run), with text on stdin.
    pub(crate) fn run_with_input(&self, line: &str, input: &str) -> Finished {
        self.write("stdin", input);
        let stdin = fs::File::open(self.path("stdin")).expect("opens");
        Finished::of(line, self.command(line).stdin(stdin).output().expect("runs"))
    }

    /// Runs a shell line in which `$DISTILL` is the program.
    pub(crate) fn shell(&self, line: &str) -> Finished {
        let mut command = self.in_folder("sh");
        Finished::of(line, command.arg("-c").arg(line).output().expect("runs"))
    }

    /// Runs a command that must succeed, and returns the one JSON object that it prints.
    pub(crate) fn json(&self, line: &str) -> Value {
        let done = self.run(&format!("{line} --json"));
        done.succeeded();
        let stdout = &done.stdout;
        assert_eq!(stdout.lines().count(), 1, "`{line}`: not one object on one line: {stdout}");
        serde_json::from_str(stdout).expect("JSON")
    }

    /// Runs a command that must be refused before any work: the error alone on stderr, nothing on stdout, exit code 1.
    pub(crate) fn refusal(&self, line: &str) -> String {
        let done = self.run(&format!("{line} --json"));
        let message = done.failure();
        assert!(done.stderr.starts_with("error: "), "`{line}` says more than its error: {}", done.stderr);
        message
    }

    /// Asserts that a command is refused with all of these in its message.
    pub(crate) fn refuses(&self, line: &str, expected: &[&str]) {
        let message = self.refusal(line);
        for expected in expected {
            assert!(message.contains(expected), "`{line}`: no `{expected}` in: {message}");
        }
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&self, line: &str) -> Running {
        self.started(&mut self.command(line), line)
    }

    /// The same with a command that was made before.
    pub(crate) fn started(&self, command: &mut Command, line: &str) -> Running {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        Running { child, line: line.to_owned() }
    }

    /// `distill` with these flags in this folder, not yet started.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = self.in_folder(env!("CARGO_BIN_EXE_distill"));
        command.args(line.split_whitespace());
        command
    }

    /// A program in this folder, without what the caller's surroundings would change, and away from the network.
    fn in_folder(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env("DISTILL", env!("CARGO_BIN_EXE_distill"))
            .env("HF_HOME", self.path("hub"))
            .env("HF_HUB_OFFLINE", "1");
        for variable in ["HF_TOKEN", "HF_ENDPOINT", "DISTILL_LOG", "COLUMNS", "RAYON_NUM_THREADS"] {
            command.env_remove(variable);
        }
        command
    }
}

/// What a command that ended left.
pub(crate) struct Finished {
    pub(crate) line: String,
    /// None where a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    pub(crate) fn of(line: &str, output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program prints UTF-8");
        Self {
            line: line.to_owned(),
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    pub(crate) fn succeeded(&self) {
        assert_eq!(self.code, Some(0), "`{}`: {}", self.line, self.stderr);
    }

    /// The error that it must have ended with, whatever it had said of its progress before.
    pub(crate) fn failure(&self) -> String {
        let Self { line, stdout, stderr, .. } = self;
        assert_eq!(self.code, Some(1), "`{line}`: {stdout}{stderr}");
        assert_eq!(stdout, "", "`{line}` fails and prints a result all the same");
        let mut lines = stderr.lines().skip_while(|line| !line.starts_with("error: "));
        let message = lines.by_ref().collect::<Vec<_>>().join("\n");
        assert!(!message.is_empty(), "`{line}`: no error on stderr: {stderr}");
        message
    }
}

/// A command at work.
pub(crate) struct Running {
    child: Child,
    line: String,
}

impl Running {
    /// Waits until `condition` holds; the command must not end before.
    pub(crate) fn until(mut self, condition: impl Fn() -> bool) -> Self {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "`{}`: what was waited for did not come", self.line);
            let ended = self.child.try_wait().expect("asks");
            assert!(ended.is_none(), "`{}` ended before what was waited for: {ended:?}", self.line);
            thread::sleep(Duration::from_millis(1));
        }
        self
    }

    /// Sends a signal, such as `INT`, and waits for the end.
    pub(crate) fn signal(self, signal: &str) -> Finished {
        self.send(signal);
        self.wait()
    }

    /// Holds it where it is, until `signal("CONT")`.
    pub(crate) fn paused(self) -> Self {
        self.send("STOP");
        self
    }

    /// Waits for its end.
    pub(crate) fn wait(self) -> Finished {
        Finished::of(&self.line, self.child.wait_with_output().expect("ends"))
    }

    /// Its number among the processes.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn send(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.child.id().to_string()).status();
        assert!(sent.expect("kill is there").success(), "`{}` had ended before the signal", self.line);
    }
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The keys of a JSON object, in its order.
pub(crate) fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// The rows of a TSV fixture as text and label.
pub(crate) fn rows(tsv: &str) -> Vec<(String, String)> {
    let cells = |line: &str| line.split_once('\t').map(|(text, label)| (text.to_owned(), label.to_owned()));
    tsv.lines().skip(1).map(|line| cells(line).expect("two columns")).collect()
}

/// A TSV file of these rows.
pub(crate) fn tsv(rows: &[(String, String)]) -> String {
    let lines = rows.iter().map(|(text, label)| format!("{text}\t{label}\n"));
    std::iter::once("text\tlabel\n".to_owned()).chain(lines).collect()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.map(|path| (name(&path), fs::read(&path).expect("reads"))).collect()
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for (name, bytes) in files(from) {
        fs::write(to.join(name), bytes).expect("writes");
    }
}
