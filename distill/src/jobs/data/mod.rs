//! Jobs on data files: what they hold, and making better ones of them.

pub(crate) mod inspect;
