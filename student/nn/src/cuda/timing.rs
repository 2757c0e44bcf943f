//! A device's peak memory, and the times of its launches.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::device::{Backend, Device};
use super::meter::{LaunchTime, Mark};
use crate::Error;

impl Device {
    /// The most bytes that buffers had at once since the device was opened or [`reset_peak`](Self::reset_peak). The
    /// driver's own, the kernels' code and what cuBLASLt keeps beside its workspace are not in it.
    pub fn peak_bytes(&self) -> usize {
        self.meter.most.load(Ordering::Relaxed)
    }

    /// Bytes that buffers have now.
    pub fn taken_bytes(&self) -> usize {
        self.meter.taken.load(Ordering::Relaxed)
    }

    /// Bytes that are free on the device; `None` of an emulated one.
    pub fn free_bytes(&self) -> Result<Option<usize>, Error> {
        match &*self.backend {
            Backend::Driver(driver) => Ok(Some(driver.memory()?.0)),
            Backend::Emulated(_) => Ok(None),
        }
    }

    /// Bytes that were copied to the host since the device was opened.
    pub fn downloaded_bytes(&self) -> usize {
        self.meter.downloaded.load(Ordering::Relaxed)
    }

    /// Counts the most bytes from what is taken now.
    pub fn reset_peak(&self) {
        self.meter.most.store(self.meter.taken.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Times every launch from now on, until [`launch_times`](Self::launch_times).
    ///
    /// # Errors
    /// A driver that is made for a CUDA before 12.8.
    pub fn time_launches(&self) -> Result<(), Error> {
        if let Backend::Driver(driver) = &*self.backend {
            driver.check_timing()?;
        }
        self.meter.timing.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Waits for the device and says how long each kernel took since [`time_launches`](Self::time_launches), the longest
    /// first.
    pub fn launch_times(&self) -> Result<Vec<LaunchTime>, Error> {
        self.meter.timing.store(false, Ordering::Relaxed);
        self.synchronize()?;
        let launches = std::mem::take(&mut *self.meter.launches.lock().unwrap_or_else(PoisonError::into_inner));
        let mut by_name = BTreeMap::<String, (usize, f64)>::new();
        for (name, marks) in launches {
            let microseconds = self.between(marks)?;
            let sum = by_name.entry(name).or_default();
            *sum = (sum.0 + 1, sum.1 + microseconds);
        }
        let time = |(name, (launches, microseconds))| LaunchTime { name, launches, microseconds };
        let mut times: Vec<_> = by_name.into_iter().map(time).collect();
        times.sort_by(|a, b| b.microseconds.total_cmp(&a.microseconds));
        Ok(times)
    }

    /// Runs a launch, with a mark in front and one behind if launches are timed.
    pub(super) fn metered(
        &self,
        name: impl FnOnce() -> String,
        launch: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if !self.meter.timing.load(Ordering::Relaxed) {
            return launch();
        }
        let before = self.mark()?;
        launch()?;
        let marks = [before, self.mark()?];
        self.meter.launches.lock().unwrap_or_else(PoisonError::into_inner).push((name(), marks));
        Ok(())
    }

    fn mark(&self) -> Result<Mark, Error> {
        match &*self.backend {
            Backend::Driver(driver) => {
                let event = driver.timing_event()?;
                driver.record(event)?;
                Ok(Mark::Event(event))
            }
            Backend::Emulated(_) => Ok(Mark::Host(Instant::now())),
        }
    }

    /// Microseconds between two marks, both passed; they are used up.
    fn between(&self, [before, behind]: [Mark; 2]) -> Result<f64, Error> {
        match (&*self.backend, before, behind) {
            (Backend::Driver(driver), Mark::Event(before), Mark::Event(behind)) => {
                let milliseconds = driver.milliseconds_between(before, behind);
                [before, behind].into_iter().for_each(|event| driver.destroy_event(event));
                Ok(1e3 * milliseconds?)
            }
            (_, Mark::Host(before), Mark::Host(behind)) => Ok(behind.duration_since(before).as_secs_f64() * 1e6),
            _ => Ok(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cuda::device::Buffer;
    use crate::cuda::emulation;
    use crate::cuda::op::sums::launch::SumRows;
    use crate::cuda::operand::{Matrix, Number, Vector};

    #[test]
    fn memory_is_counted_at_its_most() {
        let Some(device) = emulation::device() else { return };
        let first = Buffer::zeroed(&device, 1000).expect("room");
        drop(Buffer::zeroed(&device, 5000).expect("room"));
        assert_eq!(device.peak_bytes(), 6000);
        device.reset_peak();
        assert_eq!(device.peak_bytes(), 1000);
        drop(first);
    }

    #[test]
    fn launches_are_timed_by_name_where_somebody_asks() {
        let Some(device) = emulation::device() else { return };
        let buffer = Buffer::zeroed(&device, 1024).expect("room");
        let sum = || {
            let x = Matrix::new(Number::F32, buffer.ptr(), [8, 2]);
            let sums = Vector { at: buffer.ptr().offset_bytes(512), len: 2 };
            SumRows { x, sums }.launch(&device).expect("a launch");
        };
        sum();
        device.time_launches().expect("nothing to refuse");
        sum();
        sum();
        let times = device.launch_times().expect("times");
        sum();
        let [only] = &times[..] else { panic!("{times:?}") };
        assert_eq!((only.name.as_str(), only.launches), ("sum_rows", 2));
        assert!(only.microseconds > 0.0);
        assert_eq!(device.launch_times().expect("times"), []);
    }
}
