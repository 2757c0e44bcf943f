//! Numbers one behind the other, in memory or in a file.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use bytemuck::Pod;
use memmap2::Mmap;

/// Numbers in memory, or in a file that nothing else knows, mapped into it.
#[derive(Debug, Clone)]
pub(super) enum Flat<T> {
    Memory(Vec<T>),
    File(Arc<Mmap>),
}

impl<T: Pod> Flat<T> {
    /// The numbers of a file that this process alone has.
    #[allow(unsafe_code)] // a file larger than memory can be read no other way as if it were in it
    pub(super) fn of(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            // Cannot be mapped.
            return Ok(Self::default());
        }
        // SAFETY: the file has no name, so that no other process can open it, and nothing writes to it from here on.
        Ok(Self::File(Arc::new(unsafe { Mmap::map(file)? })))
    }

    /// Appends numbers; those of a file are copied into memory first.
    pub(super) fn extend(&mut self, numbers: &[T]) {
        if let Self::File(_) = self {
            *self = Self::Memory(self.to_vec());
        }
        if let Self::Memory(all) = self {
            all.extend_from_slice(numbers);
        }
    }
}

impl<T> Default for Flat<T> {
    fn default() -> Self {
        Self::Memory(Vec::new())
    }
}

impl<T: Pod> Deref for Flat<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Memory(numbers) => numbers,
            Self::File(bytes) => bytemuck::cast_slice(bytes),
        }
    }
}

impl<T: Pod + PartialEq> PartialEq for Flat<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + Eq> Eq for Flat<T> {}
