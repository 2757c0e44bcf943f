//! Maps labels to class ids: by name, never by position in a file.

use crate::{Error, RawLabel, Row};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// So that one stray number does not make a model of a billion classes.
const MOST_CLASSES_FROM_NUMBERS: u32 = 65_536;

/// The class names, in the order of their ids. Serialised as a plain list of strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct LabelNames {
    names: Vec<String>,
    ids: HashMap<String, u32>,
}

/// Returns the class names, and the class id of every row; a row without a label gets `None`.
///
/// `known` are the classes of a model, or those of `--label-names`. With them, a label is the class of that name; an
/// integer (a JSON integer, or digits that are not a class name) is a class id, if it is below the number of classes.
/// Without them, the classes are the distinct names in the data, in byte order, or `LABEL_0` up to the largest id if
/// all labels are integers.
pub fn reconcile(rows: &[Row], known: Option<&LabelNames>) -> Result<(LabelNames, Vec<Option<u32>>), Error> {
    let names = match known {
        Some(known) => known.clone(),
        None => discover(rows)?,
    };
    if names.len() < 2 {
        return Err(Error::TooFewClasses { found: names.len() });
    }
    let ids = rows
        .iter()
        .map(|row| row.label.as_ref().map(|label| names.resolve(label, row.line)).transpose())
        .collect::<Result<Vec<_>, _>>()?;
    Ok((names, ids))
}

impl LabelNames {
    /// Class names in the order of their ids. An error if one is empty or occurs twice.
    pub fn new(names: Vec<String>) -> Result<Self, Error> {
        let mut ids = HashMap::with_capacity(names.len());
        for (id, name) in names.iter().enumerate() {
            if name.is_empty() {
                return Err(Error::EmptyClassName { id });
            }
            if let Some(first) = ids.insert(name.clone(), id as u32) {
                return Err(Error::DuplicateClass { name: name.clone(), first: first as usize, second: id });
            }
        }
        Ok(Self { names, ids })
    }

    /// `LABEL_0` to `LABEL_<count - 1>`, the default class names of `transformers`.
    pub fn generic(count: usize) -> Self {
        let names: Vec<String> = (0..count).map(generic_name).collect();
        let ids = names.iter().cloned().zip(0..).collect();
        Self { names, ids }
    }

    /// The names, in the order of their ids.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The id of the class with this name.
    pub fn id(&self, name: &str) -> Option<u32> {
        self.ids.get(name).copied()
    }

    /// Whether all class names are the default `LABEL_<i>`.
    pub fn are_generic(&self) -> bool {
        self.names.iter().enumerate().all(|(id, name)| *name == generic_name(id))
    }

    fn resolve(&self, label: &RawLabel, line: usize) -> Result<u32, Error> {
        let id = match label {
            RawLabel::Id(id) => Some(*id),
            RawLabel::Name(name) => self.id(name).or_else(|| digits(name)),
        };
        if let Some(id) = id.filter(|id| (*id as usize) < self.len()) {
            return Ok(id);
        }
        let count = self.len();
        match label {
            RawLabel::Name(name) if digits(name).is_none() && self.are_generic() => {
                Err(Error::GenericNames { label: name.clone(), line, count })
            }
            RawLabel::Name(name) => {
                Err(Error::UnknownLabel { label: name.clone(), line, count, known: self.some_names() })
            }
            RawLabel::Id(id) => {
                Err(Error::UnknownLabel { label: id.to_string(), line, count, known: self.some_names() })
            }
        }
    }

    fn some_names(&self) -> String {
        const SHOWN: usize = 8;
        let mut shown = self.names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        if self.len() > SHOWN {
            shown.push_str(", ...");
        }
        shown
    }
}

impl TryFrom<Vec<String>> for LabelNames {
    type Error = Error;

    fn try_from(names: Vec<String>) -> Result<Self, Error> {
        Self::new(names)
    }
}

impl From<LabelNames> for Vec<String> {
    fn from(names: LabelNames) -> Self {
        names.names
    }
}

fn generic_name(id: usize) -> String {
    format!("LABEL_{id}")
}

/// The number that a string spells. `None` for `007`, which is a name made of digits.
fn digits(name: &str) -> Option<u32> {
    let canonical = name == "0" || (name.starts_with(|c: char| ('1'..='9').contains(&c)));
    let id = name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok()).flatten();
    id.filter(|_| canonical)
}

/// The classes of data without a model.
fn discover(rows: &[Row]) -> Result<LabelNames, Error> {
    let labelled = || rows.iter().filter_map(|row| row.label.as_ref().map(|label| (label, row.line)));
    let first_name = labelled().find_map(|(label, line)| match label {
        RawLabel::Name(name) if digits(name).is_none() => Some((name, line)),
        _ => None,
    });
    match first_name {
        Some((name, name_line)) => {
            let mut names = BTreeSet::new();
            for (label, id_line) in labelled() {
                match label {
                    RawLabel::Name(name) => names.insert(name),
                    RawLabel::Id(id) => {
                        return Err(Error::MixedLabels { id: *id, id_line, name: name.clone(), name_line });
                    }
                };
            }
            if names.len() < 2 {
                return Err(Error::SingleClass { label: name.clone() });
            }
            LabelNames::new(names.into_iter().cloned().collect())
        }
        None => {
            let ids = || {
                labelled().filter_map(|(label, line)| match label {
                    RawLabel::Id(id) => Some((*id, line)),
                    RawLabel::Name(name) => digits(name).map(|id| (id, line)),
                })
            };
            let (largest, line) = ids().max_by_key(|(id, _)| *id).ok_or(Error::NoLabels)?;
            if ids().all(|(id, _)| id == largest) {
                return Err(Error::SingleClass { label: largest.to_string() });
            }
            if largest >= MOST_CLASSES_FROM_NUMBERS {
                return Err(Error::TooManyClasses { id: largest, line, limit: MOST_CLASSES_FROM_NUMBERS });
            }
            Ok(LabelNames::generic(largest as usize + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(labels: &[&str]) -> Vec<Row> {
        rows(labels.iter().map(|label| (!label.is_empty()).then(|| RawLabel::Name((*label).into()))).collect())
    }

    fn numbered(labels: &[u32]) -> Vec<Row> {
        rows(labels.iter().map(|id| Some(RawLabel::Id(*id))).collect())
    }

    fn rows(labels: Vec<Option<RawLabel>>) -> Vec<Row> {
        let row = |(line, label)| Row { text: "t".into(), text_b: None, label, line: line + 2 };
        labels.into_iter().enumerate().map(row).collect()
    }

    fn names(names: &[&str]) -> LabelNames {
        LabelNames::new(names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
    }

    fn refusal(rows: &[Row], known: Option<&LabelNames>) -> String {
        reconcile(rows, known).unwrap_err().to_string()
    }

    #[test]
    fn names_are_sorted_by_bytes_and_rows_may_go_without() {
        let (found, ids) = reconcile(&named(&["b", "", "B", "é", "b"]), None).unwrap();
        assert_eq!(found, names(&["B", "b", "é"]));
        assert_eq!(ids, [Some(1), None, Some(0), Some(2), Some(1)]);
        assert!(!found.are_generic());
    }

    #[test]
    fn integers_are_ids_and_classes_go_up_to_the_largest() {
        let (found, ids) = reconcile(&numbered(&[3, 0]), None).unwrap();
        assert_eq!(found, LabelNames::generic(4));
        assert!(found.are_generic());
        assert_eq!(ids, [Some(3), Some(0)]);
        let (found, ids) = reconcile(&named(&["10", "9"]), None).unwrap();
        assert_eq!(found.len(), 11);
        assert_eq!(ids, [Some(10), Some(9)]);
    }

    #[test]
    fn digits_beside_names_or_with_leading_zeros_are_names() {
        let (found, _) = reconcile(&named(&["10", "x"]), None).unwrap();
        assert_eq!(found, names(&["10", "x"]));
        let (found, _) = reconcile(&named(&["007", "008"]), None).unwrap();
        assert_eq!(found, names(&["007", "008"]));
    }

    #[test]
    fn known_names_go_before_ids() {
        let known = names(&["b", "a", "0"]);
        let (found, ids) = reconcile(&named(&["a", "b", "0", "1", ""]), Some(&known)).unwrap();
        assert_eq!(found, known);
        assert_eq!(ids, [Some(1), Some(0), Some(2), Some(1), None]);
        assert_eq!(reconcile(&numbered(&[0, 2]), Some(&known)).unwrap().1, [Some(0), Some(2)]);
    }

    #[test]
    fn unknown_labels_are_refused_with_some_that_are_known() {
        let known = names(&["a", "b"]);
        assert_eq!(
            refusal(&named(&["a", "c"]), Some(&known)),
            "line 3: the model does not know the label `c`; it knows 2 classes: a, b"
        );
        assert_eq!(
            refusal(&numbered(&[2]), Some(&known)),
            "line 2: the model does not know the label `2`; it knows 2 classes: a, b"
        );
        assert!(refusal(&named(&["5"]), Some(&LabelNames::generic(3))).contains("does not know the label `5`"));
    }

    #[test]
    fn generic_names_against_named_labels_get_the_hint() {
        let message = refusal(&named(&["card"]), Some(&LabelNames::generic(77)));
        assert!(message.contains("LABEL_0 to LABEL_76") && message.contains("--label-names a,b,c"), "{message}");
        let (_, ids) = reconcile(&named(&["LABEL_2", "1"]), Some(&LabelNames::generic(3))).unwrap();
        assert_eq!(ids, [Some(2), Some(1)]);
    }

    #[test]
    fn data_that_cannot_make_a_classifier_is_refused() {
        assert!(refusal(&named(&["", ""]), None).contains("no row has a label"));
        assert!(refusal(&named(&["a", "", "a"]), None).contains("every label is `a`"));
        assert!(refusal(&numbered(&[1, 1]), None).contains("every label is `1`"));
        assert!(refusal(&numbered(&[0, 4_000_000_000]), None).contains("line 3: label 4000000000"));
        assert!(refusal(&named(&["a"]), Some(&names(&["a"]))).contains("1 class names"));
        let mut mixed = named(&["a"]);
        mixed.extend(numbered(&[3]));
        assert!(refusal(&mixed, None).contains("names or numbers throughout"));
    }

    #[test]
    fn unlabelled_rows_are_fine_for_a_known_model() {
        assert_eq!(reconcile(&named(&["", ""]), Some(&names(&["a", "b"]))).unwrap().1, [None, None]);
    }

    #[test]
    fn names_must_be_distinct_and_not_empty() {
        assert!(LabelNames::new(vec!["a".into(), "a".into()]).is_err());
        assert!(LabelNames::new(vec!["a".into(), String::new()]).is_err());
        assert!(serde_json::from_str::<LabelNames>(r#"["a","a"]"#).is_err());
        assert_eq!(serde_json::to_string(&names(&["b", "a"])).unwrap(), r#"["b","a"]"#);
    }
}
