//! Whole numbers among labels, however a file spells them.

/// The whole number that a label spells out, also with a zero fraction, as pandas writes numbers of a column with gaps:
/// `7`, `-1`, `7.0`. `007` and `+7` are names that happen to be made of digits.
pub(crate) fn whole_number(label: &str) -> Option<i64> {
    let number = label.strip_suffix(".0").unwrap_or(label);
    let digits = number.strip_prefix('-').unwrap_or(number);
    let canonical = digits == "0" && digits == number || digits.starts_with(|c: char| ('1'..='9').contains(&c));
    if canonical && digits.bytes().all(|byte| byte.is_ascii_digit()) { number.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_told_from_names() {
        for (label, number) in [("0", 0), ("10", 10), ("-1", -1), ("2.0", 2), ("-1.0", -1), ("4294967296", 1 << 32)] {
            assert_eq!(whole_number(label), Some(number), "{label}");
        }
        for label in ["", "-", "-0", "+1", "007", "1.5", "1.00", ".0", "1e3", " 1", "１", "99999999999999999999"] {
            assert_eq!(whole_number(label), None, "{label:?}");
        }
    }
}
