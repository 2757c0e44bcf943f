//! Mojibake: UTF-8 that was once read as Windows-1252 or Latin-1, so that `don’t` stands there as `donâ€™t`.
//!
//! A port of ftfy would bring 43 crates (its tables of languages and dates among them) for what the few rules below do. They
//! look at each run of characters that would be UTF-8 byte by byte, and change it only where a person would not have written it.

/// A text with its mojibake repaired, however often it was misread; `None` where there is none.
pub(super) fn apply(text: &str) -> Option<String> {
    let mut text = once(text)?;
    while let Some(next) = once(&text) {
        text = next;
    }
    Some(text)
}

/// One misreading undone. Each repair makes the text shorter, so the loop above ends.
fn once(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let mut out = String::new();
    let (mut done, mut at) = (0, 0);
    while at < text.len() {
        let run = Run::at(text, at);
        if run.characters == 0 {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        if run.is_mojibake(&text[..at]) {
            out.push_str(&text[done..at]);
            out.push_str(&run.decoded);
            done = run.end;
        }
        at = run.end;
    }
    (done > 0).then(|| out + &text[done..])
}

/// Misread characters next to each other.
struct Run {
    decoded: String,
    /// How many there are.
    characters: usize,
    /// The first byte of the first of them.
    lead: u8,
    end: usize,
}

impl Run {
    fn at(text: &str, start: usize) -> Self {
        let mut run = Self { decoded: String::new(), characters: 0, lead: 0, end: start };
        while let Some((decoded, length)) = misread(&text[run.end..]) {
            if run.characters == 0 {
                run.lead = text[start..].chars().next().and_then(byte).unwrap_or(0);
            }
            run.decoded.push(decoded);
            run.characters += 1;
            run.end += length;
        }
        run
    }

    /// Whether nobody would write these characters on purpose. `É»` may end a quotation in capitals and `ß“` one in German;
    /// `â€™` is no word's end, and neither are two of the kind in a row.
    fn is_mojibake(&self, before: &str) -> bool {
        let after_capital = before.chars().next_back().is_some_and(char::is_uppercase);
        match self.lead {
            // Punctuation and signs; full-width forms and the byte order mark; emoji.
            0xe2 | 0xef | 0xf0.. => true,
            // Letters of Western Europe.
            0xc2 | 0xc3 => self.characters > 1 || !after_capital,
            _ => self.characters > 1,
        }
    }
}

/// The character whose bytes the text begins with, each read as a character of its own, and how long these are.
fn misread(text: &str) -> Option<(char, usize)> {
    let mut characters = text.chars();
    let first = characters.next()?;
    let lead = byte(first)?;
    let length = match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let mut bytes = [lead, 0, 0, 0];
    let mut end = first.len_utf8();
    for place in &mut bytes[1..length] {
        let next = characters.next()?;
        *place = byte(next).filter(|byte| (0x80..0xc0).contains(byte))?;
        end += next.len_utf8();
    }
    let decoded = std::str::from_utf8(&bytes[..length]).ok()?.chars().next()?;
    // Control characters are not what anybody meant.
    (!decoded.is_control()).then_some((decoded, end))
}

/// The byte that is read as this character, in Windows-1252 or, where that has none, in Latin-1.
fn byte(character: char) -> Option<u8> {
    // What stands for the bytes 0x80 to 0x9f; those that stand for nothing are read as control characters.
    const HIGH: &str = "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8d}Ž\u{8f}\u{90}‘’“”•–—˜™š›œ\u{9d}žŸ";
    match character as u32 {
        code @ 0x80..=0xff => Some(code as u8),
        0x152..=0x2122 => HIGH.chars().position(|high| high == character).map(|at| 0x80 + at as u8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_was_misread_is_repaired() {
        for (text, expected) in [
            ("I donâ€™t know", "I don’t know"),
            ("cafÃ©, garÃ§on, ÃœbergrÃ¶ÃŸe", "café, garçon, Übergröße"),
            ("it costs Â£5 or â‚¬6", "it costs £5 or €6"),
            ("â€œquotedâ€\u{9d} â€” and so onâ€¦", "“quoted” — and so on…"),
            ("great ðŸ˜€ð\u{9f}\u{91}\u{8d}", "great 😀👍"),
            ("ÐŸÑ€Ð¸Ð²ÐµÑ‚", "Привет"),
            ("ä½\u{a0}å¥½", "你好"),
            ("donÃ¢â‚¬â„¢t", "don’t"),
        ] {
            assert_eq!(apply(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_people_write_stays() {
        for text in [
            "don't",
            "don’t",
            "café, garçon, Übergröße, São Paulo, NÃO",
            "« DÉCLARÉ»",
            "„Fuß“",
            "«été…»",
            "Привет",
            "你好",
            "naïve…",
            "£5 €6 20°",
            "Ä Ö Ü",
            "É™",
            "mañana—señor",
            "MANHÃ”",
        ] {
            assert_eq!(apply(text), None, "{text}");
        }
    }

    proptest! {
        /// Of letters whose bytes are read as none that might follow a lead byte.
        #[test]
        fn a_misread_word_comes_back(word in "[àçéèêëîôùûüÿñæ]{2,8}") {
            let misread: String = word
                .bytes()
                .map(|value| (0..=0x2122).filter_map(char::from_u32).find(|c| byte(*c) == Some(value)).expect("a character"))
                .collect();
            prop_assert_eq!(apply(&misread), Some(word));
        }

        #[test]
        fn once_is_enough_and_no_text_panics(text in "[âÃÂ€™©£ðŸ˜€ä½\u{a0}å¥½ßÉ»a“\u{81}-\u{9f}]{0,20}") {
            if let Some(repaired) = apply(&text) {
                prop_assert_eq!(apply(&repaired), None);
            }
        }

        #[test]
        fn any_text_will_do(text in any::<String>()) {
            let _ = apply(&text);
        }
    }
}
