//! The kernels, a folder an operation: `kernel.cu` runs on the device, `launch.rs` gives it operands, grid and shared
//! memory, `verify.rs` holds it against the host; `run.rs` is how a pass runs a program's operation, forwards and
//! backwards, by these launches.
//!
//! What a kernel computes, and the shapes, stand at the kernel. An operand carries its address, its shape and what it is
//! made of. On the emulated device a launch is refused whose operands do not fit together or reach beyond their memory;
//! on a real one nothing is checked.

#[macro_use]
pub(crate) mod call;

pub(crate) mod activate {
    pub(crate) mod launch;
    pub(crate) mod run;
    pub(crate) mod verify;
}
pub(crate) mod attention {
    pub(crate) mod launch;
    pub(crate) mod run;
    pub(crate) mod verify;
}
pub(crate) mod decode {
    pub(crate) mod run;
}
pub(crate) mod embed {
    pub(crate) mod launch;
    pub(crate) mod run;
    pub(crate) mod verify;
}
pub(crate) mod linear {
    pub(crate) mod run;
}
pub(crate) mod loss {
    pub(crate) mod launch;
    pub(crate) mod verify;
}
pub(crate) mod norm {
    pub(crate) mod launch;
    pub(crate) mod run;
    pub(crate) mod verify;
}
pub(crate) mod optimizer {
    pub(crate) mod launch;
    pub(crate) mod verify;
}
pub(crate) mod product {
    pub(crate) mod launch;
}
pub(crate) mod rows {
    pub(crate) mod launch;
    pub(crate) mod run;
    pub(crate) mod verify;
}
pub(crate) mod sums {
    pub(crate) mod launch;
    pub(crate) mod verify;
}
pub(crate) mod top_k {
    pub(crate) mod launch;
    pub(crate) mod run;
    pub(crate) mod verify;
}
pub(crate) mod trigram {
    pub(crate) mod launch;
    pub(crate) mod run;
    pub(crate) mod verify;
}
#[cfg(test)]
mod tests;
