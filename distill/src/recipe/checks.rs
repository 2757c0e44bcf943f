//! Allowed values: the same rules for a recipe's keys and for the flags of the same meaning.

/// The numbers that are allowed, and how a flag and a recipe's key say so.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) allow: fn(f64) -> bool,
    /// As a flag refuses another one.
    pub(crate) flag: &'static str,
    /// As a recipe does, behind "expected a number".
    recipe: &'static str,
}

pub(crate) const ABOVE_ZERO: Numbers =
    Numbers { allow: |value| value > 0.0 && value.is_finite(), flag: "must be a number above 0", recipe: "above 0" };

pub(crate) const ZERO_OR_MORE: Numbers =
    Numbers { allow: |value| value >= 0.0 && value.is_finite(), flag: "must be 0 or more", recipe: "0 or above" };

pub(crate) const ONE_OR_MORE: Numbers =
    Numbers { allow: |value| value >= 1.0 && value.is_finite(), flag: "must be 1 or more", recipe: "1 or above" };

/// From 0 to 1, both of them allowed.
pub(crate) const FRACTION: Numbers =
    Numbers { allow: |value| (0.0..=1.0).contains(&value), flag: "must be from 0 to 1", recipe: "from 0 to 1" };

/// A fraction other than 0.
pub(crate) const PART: Numbers = Numbers {
    allow: |value| value > 0.0 && value <= 1.0,
    flag: "must be above 0, and at most 1",
    recipe: "above 0, and at most 1",
};

/// A fraction other than 1.
pub(crate) const PROBABILITY: Numbers = Numbers {
    allow: |value| (0.0..1.0).contains(&value),
    flag: "must be from 0 to below 1",
    recipe: "from 0 up to, not including, 1",
};

/// A key of the recipe, its value, and what that may be.
#[derive(Clone, Copy)]
pub(super) enum Check {
    /// At least 1, where it is given.
    Size(&'static str, Option<usize>),
    Number(&'static str, f64, Numbers),
}

/// Refuses the first value that is not allowed, sizes before other numbers.
pub(super) fn refuse(checks: &[Check]) -> anyhow::Result<()> {
    for check in checks {
        if let Check::Size(key, Some(0)) = check {
            anyhow::bail!("the recipe's {key} is 0, expected at least 1");
        }
    }
    for check in checks {
        if let Check::Number(key, value, numbers) = check
            && !(numbers.allow)(*value)
        {
            anyhow::bail!("the recipe's {key} is {value}, expected a number {}", numbers.recipe);
        }
    }
    Ok(())
}
