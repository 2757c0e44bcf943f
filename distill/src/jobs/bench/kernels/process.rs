//! A part in a process of its own, which writes a line of JSON for each check as it is made.

use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nn::cuda::{Device, KernelCheck, Part, verify};
use serde::{Deserialize, Serialize};

use crate::device::DeviceChoice;
use crate::interrupt;

/// What to check, and where.
#[derive(Debug, Clone)]
pub(crate) struct KernelsBench {
    pub(crate) device: DeviceChoice,
    /// The library of an emulated device, in the place of a GPU.
    pub(crate) emulation: Option<PathBuf>,
    /// All of them if this is empty.
    pub(crate) only: Vec<Part>,
    /// What a part may take.
    pub(crate) limit: Duration,
}

impl KernelsBench {
    /// The device of this process.
    pub(super) fn open(&self) -> anyhow::Result<Device> {
        if let Some(library) = &self.emulation {
            return Device::emulated(library).with_context(|| format!("--emulation {}", library.display()));
        }
        let device = match self.device {
            DeviceChoice::Cpu => bail!("--device cpu: the CPU has no GPU kernels to check; give --device cuda"),
            DeviceChoice::Auto => Device::cuda(0),
            DeviceChoice::Cuda(ordinal) => Device::cuda(ordinal),
        };
        device.with_context(|| format!("--device {}", self.device))
    }

    /// What is checked: without a choice everything, except on an emulated device what would take that hours.
    pub(super) fn parts(&self) -> Vec<Part> {
        let all = Part::ALL.into_iter().filter(|&part| self.emulation.is_none() || part != Part::Large);
        if self.only.is_empty() { all.collect() } else { self.only.clone() }
    }
}

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The device is ready.
    Opened {
        device: String,
        library: String,
    },
    Check(Check),
    /// The last line: why checks are missing, if any are.
    Ended(Option<String>),
}

/// A [`KernelCheck`], whose difference may be infinite: JSON has no word for that.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Check {
    pub(super) kernel: String,
    pub(super) shape: String,
    pub(super) worst: Option<f64>,
    pub(super) tolerance: f64,
    pub(super) element: usize,
    pub(super) passed: bool,
    pub(super) fault: Option<String>,
}

impl From<KernelCheck> for Check {
    fn from(check: KernelCheck) -> Self {
        let KernelCheck { kernel, shape, worst, tolerance, element, passed, fault } = check;
        Self { kernel, shape, worst: worst.is_finite().then_some(worst), tolerance, element, passed, fault }
    }
}

/// How a process ended.
pub(super) struct Ran {
    pub(super) seconds: f64,
    /// Why checks are missing.
    pub(super) ended: Option<String>,
}

/// Ends this process once nobody holds the other end of its stdin, however the parent came to its end.
fn end_with_the_parent() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(1);
    });
}

/// Checks a part in this process, which its parent started for that.
pub(crate) fn run_part(bench: &KernelsBench, part: Part) -> anyhow::Result<()> {
    end_with_the_parent();
    let device = match bench.open() {
        Ok(device) => device,
        Err(error) => return say(&Line::Ended(Some(format!("{error:#}")))),
    };
    say(&Line::Opened { device: device.name(), library: device.library() })?;
    let mut written = Ok(());
    let mut last = None;
    let result = verify(&device, part, &mut |check| {
        last = Some(format!("{}, {}", check.kernel, check.shape));
        if written.is_ok() {
            written = say(&Line::Check(check.into()));
        }
    });
    written?;
    let ended = result.err().map(|error| match last {
        Some(last) => format!("{error}; the last check before it: {last}"),
        None => format!("{error}; no check came before it"),
    });
    say(&Line::Ended(ended))
}

fn say(line: &Line) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, line)?;
    stdout.write_all(b"\n").and_then(|()| stdout.flush()).context("cannot write to stdout")
}

/// Has another process check a part, and passes on what it says.
pub(super) fn run(bench: &KernelsBench, part: Part, say: &mut dyn FnMut(Line)) -> anyhow::Result<Ran> {
    let clock = Instant::now();
    let mut child = Started(start(bench, part)?);
    let lines = lines(&mut child.0)?;
    // The last check that it spoke of, for a process that ends without a word.
    let (mut last, mut ended) = (None, None);
    loop {
        interrupt::check()?;
        let Some(left) = bench.limit.checked_sub(clock.elapsed()) else {
            let why = format!("stopped after {} s{}", bench.limit.as_secs(), behind(last.as_deref()));
            return Ok(Ran { seconds: clock.elapsed().as_secs_f64(), ended: Some(why) });
        };
        match lines.recv_timeout(left.min(Duration::from_millis(100))) {
            Ok(Line::Ended(why)) => ended = Some(why),
            Ok(line) => {
                if let Line::Check(check) = &line {
                    last = Some(format!("{}, {}", check.kernel, check.shape));
                }
                say(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.0.wait().context("cannot wait for a part's process")?;
    let ended = match ended {
        Some(why) => why,
        None => Some(format!("its process ended with {}{}", describe(status), behind(last.as_deref()))),
    };
    Ok(Ran { seconds: clock.elapsed().as_secs_f64(), ended })
}

fn behind(last: Option<&str>) -> String {
    last.map_or_else(String::new, |last| format!("; the last check before it: {last}"))
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("signal {signal}");
    }
    status.code().map_or_else(|| "no exit status".to_string(), |code| format!("exit status {code}"))
}

fn start(bench: &KernelsBench, part: Part) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("this program's own file is not known")?;
    let mut command = Command::new(program);
    command.args(["bench", "kernels", "--part", part.name()]);
    match (&bench.emulation, bench.device) {
        (Some(library), _) => command.arg("--emulation").arg(library),
        (None, DeviceChoice::Auto) => command.args(["--device", "cuda:0"]),
        (None, device) => command.arg("--device").arg(device.to_string()),
    };
    command.arg(format!("--threads={}", rayon::current_num_threads()));
    // It ends when this process does: see `end_with_the_parent`.
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("cannot start a part's process")
}

/// What the process writes, line by line; anything that is none of ours is left out.
fn lines(child: &mut Child) -> anyhow::Result<Receiver<Line>> {
    let stdout = child.stdout.take().context("a part's process has no stdout")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Ok(line) = line else { return };
            if let Ok(line) = serde_json::from_str(&line)
                && sender.send(line).is_err()
            {
                return;
            }
        }
    });
    Ok(receiver)
}

/// A process that does not outlive this value.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // Neither matters where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
