//! Full-width forms: Latin letters, digits and signs as wide as a Chinese character, which a tokenizer knows as other characters.

/// A text with the ordinary ones in their place. The punctuation of Chinese and Japanese (，！？：；（）) stays: it is what these
/// languages are written with.
pub(super) fn apply(text: &str) -> Option<String> {
    if text.is_ascii() || !text.chars().any(|c| narrow(c) != c) {
        return None;
    }
    Some(text.chars().map(narrow).collect())
}

fn narrow(c: char) -> char {
    match c {
        '！' | '（' | '）' | '，' | '：' | '；' | '？' => c,
        // The block repeats ASCII from its exclamation mark on.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xff01 + 0x21).unwrap_or(c),
        '\u{3000}' => ' ',
        '￠' => '¢',
        '￡' => '£',
        '￥' => '¥',
        '￦' => '₩',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_digits_and_signs_become_ordinary_ones() {
        assert_eq!(apply("ＡＢＣ　１２３％＠ｇｍａｉｌ．ｃｏｍ ￥５").as_deref(), Some("ABC 123%@gmail.com ¥5"));
        assert_eq!(apply("我要订Ｋ１２次，好吗？").as_deref(), Some("我要订K12次，好吗？"));
        for text in ["abc", "你好，世界！", "（可以）：是；", "ｱ"] {
            assert_eq!(apply(text), None, "{text}");
        }
    }
}
