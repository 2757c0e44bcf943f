//! Defaults, which records leave out, so that those from before a setting was there say the same.

/// Whether a value is what it is without being given; such values are left out of records.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// For settings that are 1 without being given.
pub(crate) fn one() -> f64 {
    1.0
}

pub(crate) fn is_one(value: &f64) -> bool {
    *value == one()
}
