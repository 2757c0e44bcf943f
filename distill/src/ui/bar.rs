//! Bars that stand for numbers in a table.

/// A bar of up to `width` characters for a part of the whole, in eighths of a character; one eighth at least for what is not 0.
pub(crate) fn bar(part: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let part = part.clamp(0.0, 1.0);
    let eighths = ((part * width as f64 * 8.0).round() as usize).max(usize::from(part > 0.0));
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        assert_eq!(bar(0.0, 4), "");
        assert_eq!(bar(0.001, 4), "▏");
        assert_eq!(bar(0.5, 4), "██");
        assert_eq!(bar(0.625, 4), "██▌");
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(f64::NAN, 4), "");
        assert_eq!(bar(7.0, 4), "████");
    }
}
