//! The kernels, one folder per operation: `kernel.cu` runs on the device, `launch.rs` launches it with operands, grid
//! and shared memory, `verify.rs` checks it against the host, and `run.rs` runs a program's operation, forward and
//! backward, with these launches.
//!
//! What a kernel computes, and the shapes, are documented at the kernel. An operand has an address, a shape and a
//! number format. The emulated device refuses a launch whose operands do not match or exceed their memory; a real one
//! checks nothing.

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
