//! A trace of what a command does when, as a file that <https://ui.perfetto.dev> opens: one span per line, in Chrome's
//! trace event format.
//!
//! The spans are those of `tracing` at level `DEBUG` in this program. Without `--trace` nobody listens to them, and each
//! costs a comparison. With it, a span is written when it ends, so memory does not grow with the run.

use std::cell::Cell;
use std::fmt::{Debug, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::bail;
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::files::{FileError, starts_with};

/// The first line of every trace. Whatever else starts with it was written here and may be replaced.
const FIRST_LINE: &[u8] = br#"[{"name":"process_name","ph":"M","pid":1,"args":{"name":"distill"}}"#;

/// A trace that is being written.
#[derive(Clone)]
pub(crate) struct Trace {
    path: Arc<Path>,
    started: Instant,
    /// What writes, or why it stopped.
    writer: Arc<Mutex<io::Result<BufWriter<File>>>>,
}

impl Trace {
    /// Creates the file, in place of an earlier trace if there is one.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        if path.exists() && !starts_with(path, FIRST_LINE) {
            bail!("{}: is there already and no trace; choose another file for --trace", path.display());
        }
        let create = || {
            let mut writer = BufWriter::new(OpenOptions::new().write(true).create(true).truncate(true).open(path)?);
            writer.write_all(FIRST_LINE)?;
            Ok(writer)
        };
        let writer = create().map_err(|source| FileError::writing(path, source))?;
        Ok(Self { path: path.into(), started: Instant::now(), writer: Arc::new(Mutex::new(Ok(writer))) })
    }

    /// The layer that writes the spans.
    pub(crate) fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let ours =
            |metadata: &Metadata<'_>| metadata.is_span() && metadata.target().starts_with(env!("CARGO_PKG_NAME"));
        // Without the hint, every log line of every crate would be asked about, and tokenizers has some for each word.
        self.clone().with_filter(filter_fn(ours).with_max_level_hint(LevelFilter::DEBUG))
    }

    /// Completes the file; an error if not all of it could be written.
    pub(crate) fn finish(self) -> Result<(), FileError> {
        self.write("\n]\n");
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let written = std::mem::replace(&mut *writer, Err(io::ErrorKind::BrokenPipe.into()));
        let written = written.and_then(|mut writer| writer.flush());
        written.map_err(|source| FileError::writing(&self.path, source))
    }

    /// Writes text; after a failure, nothing more.
    fn write(&self, text: &str) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(open) = &mut *writer
            && let Err(error) = open.write_all(text.as_bytes())
        {
            *writer = Err(error);
        }
    }

    /// The number of this thread in the trace, which tells its name on first use.
    fn thread(&self, first_span: &str) -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        thread_local!(static NUMBER: Cell<u32> = const { Cell::new(0) });
        if NUMBER.get() == 0 {
            NUMBER.set(NEXT.fetch_add(1, Ordering::Relaxed));
            // A thread without a name does one thing.
            let name = thread::current().name().unwrap_or(first_span).to_string();
            let event = json!({
                "name": "thread_name", "ph": "M", "pid": 1, "tid": NUMBER.get(), "args": { "name": name },
            });
            self.write(&format!(",\n{event}"));
        }
        NUMBER.get()
    }
}

/// What a span keeps while it is open.
struct Open {
    started: Instant,
    fields: Fields,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Trace {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(Open { started: Instant::now(), fields });
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        // Here, since the first span to end may be one within another.
        self.thread(span.name());
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            open.started = Instant::now();
        }
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let extensions = span.extensions();
        let Some(open) = extensions.get::<Open>() else { return };
        let microseconds = |from: Instant, to: Instant| to.duration_since(from).as_nanos() as f64 / 1000.0;
        let (start, took) = (microseconds(self.started, open.started), microseconds(open.started, Instant::now()));
        let (name, thread) = (json!(span.name()), self.thread(span.name()));
        let mut event = format!(r#"{{"name":{name},"ph":"X","pid":1,"tid":{thread},"ts":{start:.3},"dur":{took:.3}"#);
        if !open.fields.0.is_empty() {
            let _ = write!(event, r#","args":{}"#, Value::Object(open.fields.0.clone()));
        }
        self.write(&format!(",\n{event}}}"));
    }
}

/// The fields of a span.
#[derive(Default)]
struct Fields(serde_json::Map<String, Value>);

impl Visit for Fields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_string(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.0.insert(field.name().to_string(), text.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use tracing::debug_span;
    use tracing_subscriber::layer::SubscriberExt;

    /// The events of a trace of `work`, without the two that name process and thread.
    fn traced(work: impl FnOnce()) -> Vec<Value> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trace.json");
        let trace = Trace::create(&path).expect("created");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(trace.layer()), work);
        trace.finish().expect("written");
        let events: Vec<Value> = serde_json::from_slice(&fs::read(&path).expect("reads")).expect("JSON");
        events.into_iter().filter(|event| event["ph"] != "M").collect()
    }

    #[test]
    fn a_span_is_an_event_with_its_fields_within_the_span_around_it() {
        let events = traced(|| {
            let _step = debug_span!("step", step = 3_usize).entered();
            let _forward = debug_span!("forward").entered();
        });
        let names: Vec<&Value> = events.iter().map(|event| &event["name"]).collect();
        assert_eq!(names, ["forward", "step"]);
        assert_eq!(events[1]["args"], json!({ "step": 3 }));
        assert_eq!(events[0]["tid"], events[1]["tid"]);
        let number = |event: &Value, key: &str| event[key].as_f64().expect("a number");
        assert!(number(&events[0], "ts") >= number(&events[1], "ts"));
        assert!(number(&events[0], "dur") <= number(&events[1], "dur"));
    }

    #[test]
    fn spans_of_other_programs_and_log_lines_are_left_out() {
        let events = traced(|| {
            let _span = debug_span!(target: "hyper", "connection").entered();
            tracing::info!("a line");
        });
        assert_eq!(events, Vec::<Value>::new());
    }

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("trace.json");
        fs::write(&path, content).expect("writes");
        (folder, path)
    }

    #[test]
    fn an_earlier_trace_is_replaced_and_nothing_else() {
        let (_folder, path) = file("notes");
        let error = Trace::create(&path).map(drop).expect_err("refused");
        assert!(error.to_string().contains("trace.json: is there already and no trace"), "{error}");
        let (_folder, path) = file(&format!("{}\nand half an ev", String::from_utf8_lossy(FIRST_LINE)));
        Trace::create(&path).expect("replaced").finish().expect("written");
        assert_eq!(fs::read(&path).expect("reads"), [FIRST_LINE, b"\n]\n"].concat());
    }
}
