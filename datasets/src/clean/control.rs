//! Characters that nobody sees: control characters, colours of terminals, direction marks, zero-width spaces, byte order marks.

/// A text without them; tabs and line breaks stay, and so do joiners, which shape words in several scripts and emoji.
pub(super) fn apply(text: &str) -> Option<String> {
    let first = text.char_indices().find(|(_, c)| invisible(*c))?.0;
    let mut out = text[..first].to_owned();
    let mut rest = &text[first..];
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\u{1b}' => rest = behind_escape(rest),
            // Next line.
            '\u{85}' => out.push('\n'),
            c if invisible(c) => {}
            c => out.push(c),
        }
    }
    Some(out)
}

fn invisible(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'
        | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// What follows the escape sequence of a terminal, such as the colour `\x1b[31m`.
fn behind_escape(rest: &str) -> &str {
    let Some(parameters) = rest.strip_prefix('[') else { return rest };
    match parameters.find(|c: char| !matches!(c, '0'..='9' | ';' | '?')) {
        Some(end) if parameters.as_bytes()[end].is_ascii_alphabetic() => &parameters[end + 1..],
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_seen_goes() {
        for (text, expected) in [
            ("\u{feff}a\0b\u{7}c", "abc"),
            ("\u{1b}[1;31mred\u{1b}[0m plain \u{1b}7", "red plain 7"),
            ("soft\u{ad}hyphen zero\u{200b}width \u{202e}right\u{202c}", "softhyphen zerowidth right"),
            ("a\u{85}b", "a\nb"),
            ("x\u{1b}[", "x["),
        ] {
            assert_eq!(apply(text).as_deref(), Some(expected), "{text:?}");
        }
        for text in ["a\tb\r\nc", "👨\u{200d}👩\u{200d}👧", "می\u{200c}خواهم", "é 中 \u{a0}"] {
            assert_eq!(apply(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn once_is_enough(text in "[\u{0}-\u{ff}\u{1b}\\[;m0-9\u{200b}]{0,20}|.{0,10}") {
            if let Some(cleaned) = apply(&text) {
                prop_assert_eq!(apply(&cleaned), None);
            }
        }
    }
}
