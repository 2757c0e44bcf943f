//! White space: one space between words, none at the ends.

/// A text with its white space tidied: tabs, line breaks and the spaces of Unicode too.
pub(super) fn apply(text: &str) -> Option<String> {
    if is_tidy(text) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    Some(out)
}

fn is_tidy(text: &str) -> bool {
    // Behind the beginning as behind a space.
    let mut space = true;
    for c in text.chars() {
        let is_space = c.is_whitespace();
        if is_space && (c != ' ' || space) {
            return false;
        }
        space = is_space;
    }
    !space || text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spaces_are_tidied() {
        assert_eq!(apply(" a \t b\u{a0}c\r\nd\u{3000}").as_deref(), Some("a b c d"));
        assert_eq!(apply(" ").as_deref(), Some(""));
        for text in ["", "a", "a b c"] {
            assert_eq!(apply(text), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_tidy_is_left_alone(text in "[ab \u{a0}\n]{0,12}") {
            let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
            prop_assert_eq!(apply(&text).unwrap_or(text), joined);
        }
    }
}
