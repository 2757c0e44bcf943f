//! Makes new texts of rows, in the ways of a recipe.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, bail};
use datasets::augment::{
    self, Characters, Delete, Fragment, Insert, Keyboard, Mask, Ocr, Recombine, Replace, Rules, Sentences, Swap,
    SynonymReplacement, Synonyms, Templates, Text, Variant, Vary, Way, WordCutter,
};
use datasets::{Key, Row, TextTokenizer, text_key};
use serde::Deserialize;

use super::texts::Texts;
use crate::data::TaskData;
use crate::files;
use crate::hint::HintExt;
use crate::recipe::{AugmentRecipe, Recipe};
use crate::ui;

/// What new texts are made with.
pub(crate) struct Augmenting<'a> {
    pub(crate) ways: &'a [AugmentRecipe],
    /// Words of Chinese texts, as jieba's.
    pub(crate) dictionary: Option<&'a Path>,
    /// What `mask` puts in the place of words.
    pub(crate) mask_token: Option<String>,
    pub(crate) seed: u64,
}

/// A file of rules.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    rules: Rules,
}

impl Augmenting<'_> {
    /// Variants of these rows that are no text of theirs nor of the `known` ones, each once, in the order of the rows.
    pub(crate) fn variants(&self, rows: &[Row], known: &[&[Row]], mut take: impl FnMut(Variant)) -> anyhow::Result<()> {
        let cutter = self.cutter()?;
        // Of single texts and the first of pairs, and of the second ones.
        let texts: [Vec<&str>; 2] = [
            rows.iter().map(|row| &*row.text).collect(),
            rows.iter().filter_map(|row| row.text_b.as_deref()).collect(),
        ];
        let draws_words = self.ways.iter().any(draws_words);
        let words = texts.each_ref().map(|texts| -> Vec<&str> {
            texts.iter().filter(|_| draws_words).flat_map(|text| words(text, &cutter)).collect()
        });
        // Read before anything is made, so that a bad file is told first.
        let files = self.ways.iter().map(FileOf::read).collect::<anyhow::Result<Vec<_>>>()?;
        let pairs = !texts[1].is_empty();
        let made = [0, 1].map(|side| Made { texts: &texts[side], words: &words[side], cutter: &cutter });
        let vary = |made| {
            let ways = self.ways.iter().zip(&files).map(|(way, file)| self.vary(way, file, made));
            ways.collect::<anyhow::Result<Vec<_>>>()
        };
        let first = vary(&made[0])?;
        let second = if pairs { vary(&made[1])? } else { Vec::new() };
        let of_rows = self.ways.iter().zip(&first).enumerate().filter_map(|(number, (way, first))| {
            let first = first.as_deref()?;
            let second = second.get(number).and_then(|second| second.as_deref()).unwrap_or(first);
            Some(Way { name: way.name(), copies: way.copies(), vary: [first, second] })
        });
        let (of_rows, mut count) = (of_rows.collect::<Vec<_>>(), 0);
        augment::augment(rows, known, &of_rows, &cutter, self.seed, |variant| {
            count += 1;
            take(variant);
        });
        let names: Vec<&str> = of_rows.iter().map(|way| way.name).collect();
        if !names.is_empty() {
            let wanted = rows.len() * of_rows.iter().map(|way| way.copies).sum::<usize>();
            let [made, rows, missing] = [count, rows.len(), wanted - count].map(|count| ui::count(count as u64));
            ui::say(format!(
                "{made} texts made of {rows} rows by {}; {missing} left out: too short to vary, or no new text",
                names.join(", ")
            ));
        }
        Ok(())
    }

    /// The texts of templates, each once, that are none of the `known` ones.
    pub(crate) fn filled(&self, known: &[&[Row]]) -> anyhow::Result<Vec<Row>> {
        let mut seen: HashSet<Key> = known.iter().copied().flatten().map(text_key).collect();
        let mut filled = Vec::new();
        for way in self.ways {
            if let AugmentRecipe::Templates(settings) = way {
                let FileOf::Templates(templates) = FileOf::read(way)? else { continue };
                let texts = templates.fill(settings.count, self.seed);
                let texts = texts.with_context(|| settings.file.display().to_string())?;
                let rows = texts.into_iter().map(|text| Row { text, text_b: None, label: None, line: 0 });
                let before = filled.len();
                filled.extend(rows.filter(|row| !row.text.trim().is_empty() && seen.insert(text_key(row))));
                let count = ui::count((filled.len() - before) as u64);
                ui::say(format!("{count} texts made of the templates in {}", settings.file.display()));
            }
        }
        Ok(filled)
    }

    /// New texts for the teacher to answer: variants of rows and filled templates. None of them is one of the rows, or of those
    /// `known` besides.
    pub(crate) fn texts(&self, rows: &[Row], known: &[&[Row]]) -> anyhow::Result<Vec<Row>> {
        let mut texts = Vec::new();
        self.variants(rows, known, |variant| texts.push(Row { label: None, ..variant.row }))?;
        let filled = self.filled(&[&[rows, &texts], known].concat())?;
        texts.extend(filled);
        Ok(texts)
    }

    fn cutter(&self) -> anyhow::Result<WordCutter> {
        let Some(path) = self.dictionary else { return Ok(WordCutter::default()) };
        let text = files::read_to_string(path)?;
        WordCutter::with_dictionary(text.as_bytes())
            .with_context(|| format!("{}: no dictionary of words", path.display()))
            .hint("on each line stand a word, how often it occurs, and what kind of word it is, as in jieba's dict.txt")
    }

    /// A way by its settings; `None` if it is no way to vary rows.
    fn vary<'m>(
        &self,
        way: &AugmentRecipe,
        file: &'m FileOf,
        made: &Made<'m>,
    ) -> anyhow::Result<Option<Box<dyn Vary + 'm>>> {
        Ok(Some(match (way, file) {
            (AugmentRecipe::Swap(words), _) => Box::new(Swap { rate: words.rate }),
            (AugmentRecipe::Delete(words), _) => Box::new(Delete { rate: words.rate }),
            (AugmentRecipe::Insert(words), _) => Box::new(Insert { rate: words.rate, words: made.words()? }),
            (AugmentRecipe::Replace(words), _) => Box::new(Replace { rate: words.rate, words: made.words()? }),
            (AugmentRecipe::Mask(words), _) => match &self.mask_token {
                Some(token) => Box::new(Mask { rate: words.rate, token: token.clone() }),
                None => bail!("`mask` hides words behind a mask token, and the tokenizer has none: leave `mask` out"),
            },
            (AugmentRecipe::Characters(words), _) => Box::new(Characters { rate: words.rate }),
            (AugmentRecipe::Keyboard(words), _) => Box::new(Keyboard { rate: words.rate }),
            (AugmentRecipe::Ocr(words), _) => Box::new(Ocr { rate: words.rate }),
            (AugmentRecipe::Fragment(_), _) => Box::new(Fragment),
            (AugmentRecipe::Sentences(_), _) => Box::new(Sentences),
            (AugmentRecipe::Recombine(_), _) => Box::new(Recombine { texts: made.texts, cutter: made.cutter }),
            (AugmentRecipe::Synonyms(words), FileOf::Synonyms(synonyms)) => {
                Box::new(SynonymReplacement { rate: words.rate, synonyms })
            }
            (AugmentRecipe::Rules(_), FileOf::Rules(rules)) => Box::new(rules.clone()),
            _ => return Ok(None),
        }))
    }
}

/// Adds to a recipe's texts those that it makes: of the training rows, of the texts without labels, and of templates; none of
/// what is measured on.
pub(super) fn extend(
    texts: &mut Texts,
    recipe: &Recipe,
    own: &TaskData,
    test: &[Row],
    tokenizer: &TextTokenizer,
) -> anyhow::Result<()> {
    if recipe.data.augment.is_empty() {
        return Ok(());
    }
    let augmenting = Augmenting {
        ways: &recipe.data.augment,
        dictionary: recipe.data.dictionary.as_deref(),
        mask_token: tokenizer.mask_token().map(str::to_owned),
        seed: recipe.train.seed,
    };
    let rows: Vec<Row> = own.train.rows.iter().chain(&texts.of_all).cloned().collect();
    let rows: Vec<Row> = {
        let mut seen = HashSet::new();
        rows.into_iter().filter(|row| seen.insert(text_key(row))).collect()
    };
    let of_stages = texts.of_stages.iter().map(Vec::as_slice);
    let known: Vec<&[Row]> = [&own.validation.rows, test].into_iter().chain(of_stages).collect();
    let made = augmenting.texts(&rows, &known)?;
    texts.of_all.extend(made);
    Ok(())
}

/// What ways draw from.
struct Made<'m> {
    texts: &'m [&'m str],
    words: &'m [&'m str],
    cutter: &'m WordCutter,
}

impl<'m> Made<'m> {
    fn words(&self) -> anyhow::Result<&'m [&'m str]> {
        match self.words.is_empty() {
            true => bail!("no row has a word that could be put into another one"),
            false => Ok(self.words),
        }
    }
}

/// What is in the file of a way.
enum FileOf {
    None,
    Synonyms(Synonyms),
    Rules(Rules),
    Templates(Templates),
}

impl FileOf {
    fn read(way: &AugmentRecipe) -> anyhow::Result<Self> {
        Ok(match way {
            AugmentRecipe::Synonyms(settings) => Self::Synonyms(Synonyms::read(&settings.file)?),
            AugmentRecipe::Rules(settings) => Self::Rules(read_toml::<RulesFile>(&settings.file)?.rules),
            AugmentRecipe::Templates(settings) => Self::Templates(read_toml(&settings.file)?),
            _ => Self::None,
        })
    }
}

fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let text = files::read_to_string(path)?;
    toml::from_str(&text).with_context(|| format!("{}: holds other keys or values", path.display())).hint(
        "rules are `rules = [[\"I want\", \"I would like\"], ..]`; templates are `templates = [\"to {city}\", ..]` and a table \
         `[slots]` with `city = [\"Rome\", ..]`",
    )
}

/// Whether a way draws words of the data.
fn draws_words(way: &AugmentRecipe) -> bool {
    matches!(way, AugmentRecipe::Insert(_) | AugmentRecipe::Replace(_))
}

fn words<'t>(text: &'t str, cutter: &WordCutter) -> Vec<&'t str> {
    let text = Text::new(text, cutter);
    (0..text.len()).map(|number| text.word(number)).collect()
}
