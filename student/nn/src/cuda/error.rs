//! Errors of a GPU, its driver or its libraries.

/// An error of the GPU; the message says what was found and how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The driver's library is not installed.
    #[error("no NVIDIA driver is installed here (libcuda.so.1 was not found); install one, or give --device cpu")]
    NoDriver,
    /// The driver finds no GPU.
    #[error("the NVIDIA driver finds no GPU; check nvidia-smi, or give --device cpu")]
    NoGpu,
    /// There is no GPU with this ordinal.
    #[error(
        "there is no cuda:{ordinal}: the driver finds {count} GPU(s), counted from 0; name one of them, or give --device cpu"
    )]
    NoSuchGpu {
        /// The requested ordinal.
        ordinal: usize,
        /// The number of GPUs.
        count: usize,
    },
    /// The GPU is older than the kernels support.
    #[error("{name} has compute capability {major}.{minor}; the kernels need 8.0 (Ampere) or later: give --device cpu")]
    TooOldGpu {
        /// The GPU.
        name: String,
        /// Its compute capability, major part.
        major: i32,
        /// Its compute capability, minor part.
        minor: i32,
    },
    /// The driver is too old for the kernels.
    #[error(
        "the NVIDIA driver is made for CUDA {}.{}; the kernels need {}.{} or later: update the driver, or give \
         --device cpu",
        found / 1000, found % 1000 / 10, needed / 1000, needed % 1000 / 10
    )]
    TooOldDriver {
        /// Its CUDA version, `1000 * major + 10 * minor`.
        found: i32,
        /// The CUDA version needed, likewise.
        needed: i32,
    },
    /// cuBLASLt was not found in any of the places searched.
    #[error(
        "cuBLASLt was not found ({names}); looked in: {looked}.{} Install it (NVIDIA's package libcublas, or `pip install \
         nvidia-cublas-cu12`), or name its folder in DISTILL_CUDA_LIBRARIES, or give --device cpu",
        sentence(refused)
    )]
    NoBlas {
        /// The accepted file names.
        names: String,
        /// The folders searched.
        looked: String,
        /// Files that were found but could not be opened, and why.
        refused: Vec<String>,
    },
    /// Out of GPU memory.
    #[error(
        "the GPU has no room for {}: {} of {} are free; a lower --batch-tokens or --batch-rows needs less",
        bytes(*asked), bytes(*free), bytes(*total)
    )]
    OutOfMemory {
        /// Size of the buffer that did not fit, in bytes.
        asked: usize,
        /// Free memory, in bytes.
        free: usize,
        /// Total memory, in bytes.
        total: usize,
    },
    /// The GPU's memory was already used up by other processes at the start.
    #[error(
        "{name} has no memory left for {what}; others use it (nvidia-smi lists them): wait for them, name another GPU \
         with --device cuda:N, or give --device cpu"
    )]
    NoRoomToStart {
        /// The GPU.
        name: String,
        /// What the memory was for.
        what: &'static str,
    },
    /// The CUDA context was lost, because of an earlier kernel or copy; this process can compute nothing more on the
    /// GPU.
    #[error("the GPU failed for good at {call}: {reason}")]
    Lost {
        /// What was called, and for what.
        call: String,
        /// The driver's words.
        reason: String,
    },
    /// A driver call failed.
    #[error("the GPU failed at {call}: {reason}")]
    Driver {
        /// What was called, and for what.
        call: String,
        /// The driver's words.
        reason: String,
    },
    /// A cuBLASLt call failed.
    #[error("cuBLASLt failed at {call}: {reason}")]
    Blas {
        /// What was called, and for what.
        call: String,
        /// The library's words.
        reason: String,
    },
    /// The emulated device lacks a kernel, or a kernel did something invalid.
    #[error("the emulated GPU failed at {call}: {reason}")]
    Emulation {
        /// What was called.
        call: String,
        /// What is known.
        reason: String,
    },
    /// An operand of a kernel or product has a wrong shape, or exceeds its memory. Only the emulated device checks
    /// this.
    #[error("{kernel} was given {operand} as {found}; it needs {expected}")]
    Operand {
        /// The kernel.
        kernel: Box<str>,
        /// The operand.
        operand: Box<str>,
        /// Its number format and shape, or its memory range.
        found: Box<str>,
        /// What it must be.
        expected: Box<str>,
    },
}

impl DeviceError {
    /// Whether this process can compute nothing more on the GPU.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Whether there is no GPU at all, as opposed to one that cannot be used.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoDriver | Self::NoGpu)
    }
}

fn sentence(refused: &[String]) -> String {
    if refused.is_empty() { String::new() } else { format!(" Could not be opened: {}.", refused.join("; ")) }
}

fn bytes(count: usize) -> String {
    match count {
        0..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", count as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", count as f64 / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_finding_and_way_out() {
        let old = DeviceError::TooOldDriver { found: 12020, needed: 12040 };
        assert!(old.to_string().starts_with("the NVIDIA driver is made for CUDA 12.2; the kernels need 12.4"));
        let full = DeviceError::OutOfMemory { asked: 3 << 30, free: 1 << 29, total: 80 << 30 };
        assert!(full.to_string().contains("3.0 GiB: 512.0 MiB of 80.0 GiB"), "{full}");
        assert!(full.to_string().contains("--batch-tokens"));
    }
}
