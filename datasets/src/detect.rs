//! The script and language of a text, by the trigrams that `whatlang` knows.

/// Characters that are enough to tell a language by.
const ENOUGH: usize = 400;

/// What is told of a text's letters; nothing where it has none.
pub(crate) fn detect(text: &str) -> Option<whatlang::Info> {
    // Letters alone: full-width punctuation would be taken for Korean, in whose half-width block it stands.
    let letters: String = text.chars().take(ENOUGH).map(|c| if is_letter(c) { c } else { ' ' }).collect();
    whatlang::detect(&letters)
}

/// Also the signs between letters, by which some languages are told: `l'eau`, and the marks of Indic scripts.
fn is_letter(c: char) -> bool {
    let sign = matches!(c, '\'' | '’' | '-');
    c.is_alphabetic() || sign || !(c.is_ascii() || c.is_numeric() || c.is_whitespace() || is_punctuation(c))
}

fn is_punctuation(c: char) -> bool {
    matches!(c, '\u{80}'..='\u{bf}' | '\u{2000}'..='\u{2bff}' | '\u{3000}'..='\u{3020}' | '\u{fe10}'..='\u{fe6f}' | '\u{ff00}'..='\u{ffef}' | '\u{1f000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use whatlang::Lang;

    #[test]
    fn punctuation_does_not_make_chinese_korean() {
        for text in [
            "一半没有声音！什么质量！！！！！！！！！！！！！",
            "怎么还没到货？？？？？？？？？？？？？",
            "我的书为什么还没收到啊。不是没发吧。",
        ] {
            assert_eq!(detect(text).map(|info| info.lang()), Some(Lang::Cmn), "{text}");
        }
        assert!(detect("12, 34: !？…").is_none());
        let hindi = "मुझे अपने खाते की जानकारी चाहिए, कृपया मेरी मदद करें";
        assert_eq!(detect(hindi).map(|info| info.lang()), Some(Lang::Hin));
    }
}
