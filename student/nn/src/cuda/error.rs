//! What can be wrong with a GPU, its driver or its libraries.

/// An error of the GPU; the message says what was found and what helps.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No driver's library is installed.
    #[error("no NVIDIA driver is installed here (libcuda.so.1 was not found); install one, or give --device cpu")]
    NoDriver,
    /// A driver without a GPU behind it.
    #[error("the NVIDIA driver finds no GPU; check nvidia-smi, or give --device cpu")]
    NoGpu,
    /// An ordinal beyond the last GPU.
    #[error(
        "there is no cuda:{ordinal}: the driver finds {count} GPU(s), counted from 0; name one of them, or give --device cpu"
    )]
    NoSuchGpu {
        /// What was asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// A GPU older than the kernels are compiled for.
    #[error("{name} has compute capability {major}.{minor}; the kernels need 8.0 (Ampere) or later: give --device cpu")]
    TooOldGpu {
        /// The GPU.
        name: String,
        /// Its compute capability.
        major: i32,
        /// Its compute capability.
        minor: i32,
    },
    /// A driver that does not take the kernels.
    #[error(
        "the NVIDIA driver is made for CUDA {}.{}; the kernels need {}.{} or later: update the driver, or give \
         --device cpu",
        found / 1000, found % 1000 / 10, needed / 1000, needed % 1000 / 10
    )]
    TooOldDriver {
        /// 1000 * major + 10 * minor.
        found: i32,
        /// Likewise.
        needed: i32,
    },
    /// cuBLASLt is not installed, or not where it is looked for.
    #[error(
        "cuBLASLt was not found ({names}); looked in: {looked}.{} Install it (NVIDIA's package libcublas, or `pip install \
         nvidia-cublas-cu12`), or name its folder in DISTILL_CUDA_LIBRARIES, or give --device cpu",
        sentence(refused)
    )]
    NoBlas {
        /// The files that would do.
        names: String,
        /// The folders.
        looked: String,
        /// Files that are there and could not be opened, and why.
        refused: Vec<String>,
    },
    /// The GPU's memory is used up.
    #[error(
        "the GPU has no room for {}: {} of {} are free; a lower --batch-tokens or --batch-rows needs less",
        bytes(*asked), bytes(*free), bytes(*total)
    )]
    OutOfMemory {
        /// Bytes of the one buffer that did not fit.
        asked: usize,
        /// Bytes.
        free: usize,
        /// Bytes.
        total: usize,
    },
    /// The GPU's memory is used up, by others, before anything was computed.
    #[error(
        "{name} has no memory left for {what}; others use it (nvidia-smi lists them): wait for them, name another GPU \
         with --device cuda:N, or give --device cpu"
    )]
    NoRoomToStart {
        /// The GPU.
        name: String,
        /// What did not fit.
        what: &'static str,
    },
    /// A kernel or a copy did something that ends all work of this process on the GPU; a call reports it that comes later.
    #[error("the GPU failed for good at {call}: {reason}")]
    Lost {
        /// What was called, and for what.
        call: String,
        /// The driver's words.
        reason: String,
    },
    /// A call of the driver that failed.
    #[error("the GPU failed at {call}: {reason}")]
    Driver {
        /// What was called, and for what.
        call: String,
        /// The driver's words.
        reason: String,
    },
    /// A call of cuBLASLt that failed.
    #[error("cuBLASLt failed at {call}: {reason}")]
    Blas {
        /// What was called, and for what.
        call: String,
        /// The library's words.
        reason: String,
    },
    /// A kernel that the emulation does not have, or that did something forbidden.
    #[error("the emulated GPU failed at {call}: {reason}")]
    Emulation {
        /// What was called.
        call: String,
        /// What is known.
        reason: String,
    },
    /// An operand of a kernel or product that does not fit the others or reaches beyond its memory; the emulated GPU
    /// alone looks.
    #[error("{kernel} was given {operand} as {found}; it needs {expected}")]
    Operand {
        /// The kernel.
        kernel: Box<str>,
        /// The operand.
        operand: Box<str>,
        /// What it is made of and its shape, or where it lies.
        found: Box<str>,
        /// What it must be.
        expected: Box<str>,
    },
}

impl DeviceError {
    /// Whether nothing more can be computed on the GPU by this process.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Lost { .. })
    }

    /// Whether there is simply no GPU, as opposed to one that cannot be used.
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
