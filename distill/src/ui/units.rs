//! Human-readable numbers.

use std::time::Duration;

/// A count with commas between thousands: `22,713,216`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.char_indices() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size on disk, in steps of 1000: `512 B`, `11.5 MB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if number < 1000 {
        return format!("{number} B");
    }
    let mut size = number as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be rounded to 1000.0.
    while size >= 999.95 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// Floating-point operations per second: `87.3 GFLOP/s`.
pub(crate) fn flops(per_second: f64) -> String {
    const UNITS: [&str; 5] = ["FLOP/s", "kFLOP/s", "MFLOP/s", "GFLOP/s", "TFLOP/s"];
    let (mut number, mut unit) = (per_second, 0);
    while number >= 999.95 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    format!("{number:.1} {}", UNITS[unit])
}

/// A fraction in per cent: `12.5 %`.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.1} %", 100.0 * part)
}

/// A time span: `0.8 s`, `42 s`, `2 min 05 s`, `1 h 02 min`.
pub(crate) fn duration(span: Duration) -> String {
    if span < Duration::from_millis(9_950) {
        return format!("{:.1} s", span.as_secs_f64());
    }
    let seconds = span.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_commas_between_thousands() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (22_713_216, "22,713,216"), (100_000, "100,000")];
        for (number, expected) in cases {
            assert_eq!(count(number), expected);
        }
    }

    #[test]
    fn sizes_have_one_decimal() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (11_534_336, "11.5 MB"), (999_999, "1.0 MB")];
        for (number, expected) in cases {
            assert_eq!(bytes(number), expected);
        }
        assert_eq!(bytes(2_500_000_000), "2.5 GB");
        assert_eq!(bytes(u64::MAX), "18446.7 PB");
    }

    #[test]
    fn speeds_have_one_decimal() {
        assert_eq!(flops(12.0), "12.0 FLOP/s");
        assert_eq!(flops(87_340_000_000.0), "87.3 GFLOP/s");
        assert_eq!(flops(999_960_000_000.0), "1.0 TFLOP/s");
        assert_eq!(flops(2.5e15), "2500.0 TFLOP/s");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let cases = [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s")];
        for (seconds, expected) in cases {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), expected);
        }
        assert_eq!(duration(Duration::from_secs(125)), "2 min 05 s");
        assert_eq!(duration(Duration::from_secs(3725)), "1 h 02 min");
    }
}
