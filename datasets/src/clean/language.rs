//! Languages, told by `whatlang`.

use crate::Error;
use crate::detect::detect;
use whatlang::Lang;

/// The two letters of ISO 639-1, for the languages that are told and have them.
const SHORT: [(&str, Lang); 68] = [
    ("af", Lang::Afr),
    ("ak", Lang::Aka),
    ("am", Lang::Amh),
    ("ar", Lang::Ara),
    ("az", Lang::Aze),
    ("be", Lang::Bel),
    ("bn", Lang::Ben),
    ("bg", Lang::Bul),
    ("ca", Lang::Cat),
    ("cs", Lang::Ces),
    ("da", Lang::Dan),
    ("de", Lang::Deu),
    ("el", Lang::Ell),
    ("en", Lang::Eng),
    ("eo", Lang::Epo),
    ("et", Lang::Est),
    ("fi", Lang::Fin),
    ("fr", Lang::Fra),
    ("gu", Lang::Guj),
    ("he", Lang::Heb),
    ("hi", Lang::Hin),
    ("hr", Lang::Hrv),
    ("hu", Lang::Hun),
    ("hy", Lang::Hye),
    ("id", Lang::Ind),
    ("it", Lang::Ita),
    ("jv", Lang::Jav),
    ("ja", Lang::Jpn),
    ("kn", Lang::Kan),
    ("ka", Lang::Kat),
    ("km", Lang::Khm),
    ("ko", Lang::Kor),
    ("la", Lang::Lat),
    ("lv", Lang::Lav),
    ("lt", Lang::Lit),
    ("ml", Lang::Mal),
    ("mr", Lang::Mar),
    ("mk", Lang::Mkd),
    ("my", Lang::Mya),
    ("ne", Lang::Nep),
    ("nl", Lang::Nld),
    ("no", Lang::Nob),
    ("nb", Lang::Nob),
    ("or", Lang::Ori),
    ("pa", Lang::Pan),
    ("fa", Lang::Pes),
    ("pl", Lang::Pol),
    ("pt", Lang::Por),
    ("ro", Lang::Ron),
    ("ru", Lang::Rus),
    ("si", Lang::Sin),
    ("sk", Lang::Slk),
    ("sl", Lang::Slv),
    ("sn", Lang::Sna),
    ("es", Lang::Spa),
    ("sr", Lang::Srp),
    ("sv", Lang::Swe),
    ("ta", Lang::Tam),
    ("te", Lang::Tel),
    ("tl", Lang::Tgl),
    ("th", Lang::Tha),
    ("tk", Lang::Tuk),
    ("tr", Lang::Tur),
    ("uk", Lang::Ukr),
    ("ur", Lang::Urd),
    ("uz", Lang::Uzb),
    ("vi", Lang::Vie),
    ("zh", Lang::Cmn),
];

/// A language by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language(Lang);

impl Language {
    /// A language by the two letters of ISO 639-1 (`en`), the three of ISO 639-3 (`eng`) or its English name.
    ///
    /// # Errors
    /// One that cannot be told from others; the message lists those that can.
    pub fn named(name: &str) -> Result<Self, Error> {
        let lower = name.trim().to_ascii_lowercase();
        let short = SHORT.iter().find(|(code, _)| *code == lower).map(|(_, language)| *language);
        let full = || Lang::all().iter().copied().find(|language| language.eng_name().to_ascii_lowercase() == lower);
        short.or_else(|| Lang::from_code(&*lower)).or_else(full).map(Self).ok_or_else(|| Error::UnknownLanguage {
            name: name.to_owned(),
            known: Lang::all().iter().map(|language| language.code()).collect::<Vec<_>>().join(", "),
        })
    }

    /// The language of a text, where it can be told.
    pub(super) fn of(text: &str) -> Option<Self> {
        detect(text).filter(whatlang::Info::is_reliable).map(|info| Self(info.lang()))
    }

    /// Its English name.
    pub fn name(self) -> &'static str {
        self.0.eng_name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_have_three_kinds_of_names() {
        for name in ["de", "deu", "German", " german"] {
            assert_eq!(Language::named(name).expect("known").name(), "German", "{name}");
        }
        let error = Language::named("klingon").expect_err("unknown").to_string();
        assert!(error.contains("`klingon`") && error.contains("eng"), "{error}");
    }

    #[test]
    fn a_text_is_told_where_it_is_long_enough() {
        let text = "Ich habe gestern meine Bankkarte verloren und möchte sie sofort sperren lassen";
        assert_eq!(Language::of(text), Language::named("de").ok());
        assert_eq!(Language::of("12"), None);
    }
}
