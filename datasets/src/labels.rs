//! Maps labels to class ids: by name, never by position in a file.

use crate::whole::whole_number;
use crate::{Error, Row};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// The names of the classes, in the order of their ids. Written as a plain list of strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct LabelNames {
    names: Vec<String>,
    ids: HashMap<String, u32>,
    /// Whether every class is named by a number, whole or not.
    all_numbers: bool,
}

/// Returns the class names, and the class id of every row; a row without a label gets `None`.
///
/// With `known`, a label is the class of that name; else a whole number below the number of classes is a class id, unless
/// all classes are named by numbers themselves. Without, the classes are the distinct labels in the data: in numerical order
/// where all are whole numbers, else in byte order. A row without a label stays without.
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
        let is_number = |name: &String| name.trim().parse::<f64>().is_ok_and(f64::is_finite);
        let all_numbers = names.iter().all(is_number);
        Ok(Self { names, ids, all_numbers })
    }

    /// Class names in the order of new tasks: by number where all are whole numbers, else by their bytes.
    pub fn sorted(mut names: Vec<String>) -> Result<Self, Error> {
        match names.iter().all(|name| whole_number(name).is_some()) {
            true => names.sort_by_key(|name| whole_number(name)),
            false => names.sort(),
        }
        Self::new(names)
    }

    /// `LABEL_0` to `LABEL_<count - 1>`, the default class names of `transformers`.
    pub fn generic(count: usize) -> Self {
        let names: Vec<String> = (0..count).map(generic_name).collect();
        let ids = names.iter().cloned().zip(0..).collect();
        Self { names, ids, all_numbers: false }
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

    /// Whether every class is only known by its id, as `LABEL_<id>` or by the number itself.
    pub fn are_generic(&self) -> bool {
        let all = |name: fn(usize) -> String| self.names.iter().enumerate().all(|(id, given)| *given == name(id));
        all(generic_name) || all(|id| id.to_string())
    }

    /// Whether every class is named by a whole number.
    pub fn are_numbers(&self) -> bool {
        self.names.iter().all(|name| whole_number(name).is_some())
    }

    /// The ids that labels of these rows stand for by number alone, since no class has that name.
    pub fn ids_without_name(&self, rows: &[Row]) -> BTreeSet<u32> {
        let by_id = |label: &str| match self.named(label) {
            None => self.by_id(label),
            Some(_) => None,
        };
        rows.iter().filter_map(|row| by_id(row.label.as_deref()?)).collect()
    }

    /// The class of this name, however it is spelled.
    fn named(&self, label: &str) -> Option<u32> {
        let number = whole_number(label);
        let spelled = |number: i64| self.id(&number.to_string()).or_else(|| self.id(&format!("{number}.0")));
        let truth = || {
            let word = ["true", "false"].into_iter().find(|word| label.eq_ignore_ascii_case(word))?;
            self.names.iter().find(|name| name.eq_ignore_ascii_case(word)).and_then(|name| self.id(name))
        };
        let trimmed = || {
            let mut alike = self.names.iter().filter(|name| name.trim() == label.trim());
            alike.next().filter(|_| alike.next().is_none()).and_then(|name| self.id(name))
        };
        self.id(label).or_else(|| spelled(number?)).or_else(truth).or_else(trimmed)
    }

    /// The class of this number. Where classes are named by numbers, one that is no name would be mistaken for the id of
    /// another class.
    fn by_id(&self, label: &str) -> Option<u32> {
        let id = whole_number(label).filter(|_| !self.all_numbers).and_then(|number| u32::try_from(number).ok());
        id.filter(|id| (*id as usize) < self.len())
    }

    fn resolve(&self, label: &str, line: usize) -> Result<u32, Error> {
        if let Some(id) = self.named(label).or_else(|| self.by_id(label)) {
            return Ok(id);
        }
        let number = whole_number(label);
        let (label, count) = (label.to_owned(), self.len());
        Err(match number {
            None if is_missing(label.trim()) => Error::MissingLabel { label: label.trim().to_owned(), line },
            Some(..0) => Error::NegativeLabel { label, line },
            None if self.are_generic() => {
                let [first, last] = [&self.names[0], &self.names[count - 1]].map(String::clone);
                Error::GenericNames { label, line, count, first, last }
            }
            _ => Error::UnknownLabel { label, line, count, known: self.some_names() },
        })
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

/// The classes of data that comes without a model.
fn discover(rows: &[Row]) -> Result<LabelNames, Error> {
    let written = || rows.iter().filter_map(|row| row.label.as_deref().map(|label| (label, row.line)));
    // Spaces behind a comma are a writer's, and no part of a name.
    let labelled = || written().map(|(label, line)| (label.trim(), line));
    let negative = labelled().find(|(label, _)| whole_number(label).is_some_and(|number| number < 0));
    if let Some((label, line)) = negative {
        return Err(Error::NegativeLabel { label: label.to_owned(), line });
    }
    if let Some((label, line)) = labelled().find(|(label, _)| is_missing(label)) {
        return Err(Error::MissingLabel { label: label.to_owned(), line });
    }
    let word = labelled().find(|(label, _)| MISSING_AMONG_NUMBERS.contains(label));
    if let Some((label, line)) = word
        && labelled().all(|(label, _)| MISSING_AMONG_NUMBERS.contains(&label) || whole_number(label).is_some())
    {
        return Err(Error::MissingLabel { label: label.to_owned(), line });
    }
    let mut trimmed: HashMap<&str, &str> = HashMap::new();
    for (label, line) in written() {
        let other = *trimmed.entry(label.trim()).or_insert(label);
        if other != label {
            return Err(Error::SpacedLabel { label: label.to_owned(), other: other.to_owned(), line });
        }
    }
    let numbers: Option<BTreeSet<i64>> = labelled().map(|(label, _)| whole_number(label)).collect();
    let names: Vec<String> = match numbers {
        Some(numbers) => numbers.iter().map(i64::to_string).collect(),
        None => {
            refuse_measurements(labelled())?;
            labelled().map(|(label, _)| label).collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
        }
    };
    match names.as_slice() {
        [] => Err(Error::NoLabels),
        [label] => Err(Error::SingleClass { label: label.clone() }),
        _ => LabelNames::sorted(names),
    }
}

/// What stands for a value that is missing where all others are numbers; elsewhere it may be a name.
const MISSING_AMONG_NUMBERS: [&str; 7] = ["None", "NA", "N/A", "n/a", "#N/A", "null", "NULL"];

/// Whether a label is what pandas and numpy write for a value that is missing.
fn is_missing(label: &str) -> bool {
    ["NaN", "nan", "<NA>"].contains(&label)
}

/// Refuses labels that are numbers all of them, some with a fraction: scores, and no classes.
fn refuse_measurements<'a>(labelled: impl Iterator<Item = (&'a str, usize)>) -> Result<(), Error> {
    let mut fraction = None;
    for (label, line) in labelled {
        let digits = label.strip_prefix('-').unwrap_or(label);
        let is_number = digits.starts_with(|c: char| c.is_ascii_digit()) && label.parse::<f64>().is_ok();
        if !is_number {
            return Ok(());
        }
        if whole_number(label).is_none() && label.contains(['.', 'e', 'E']) {
            fraction = fraction.or(Some((label, line)));
        }
    }
    match fraction {
        Some((label, line)) => Err(Error::FractionLabel { label: label.to_owned(), line }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(labels: &[&str]) -> Vec<Row> {
        let row = |(line, label): (usize, &&str)| Row {
            text: "t".into(),
            text_b: None,
            label: (!label.is_empty()).then(|| (*label).to_owned()),
            line: line + 2,
        };
        labels.iter().enumerate().map(row).collect()
    }

    fn names(names: &[&str]) -> LabelNames {
        LabelNames::new(names.iter().map(|name| (*name).to_owned()).collect()).unwrap()
    }

    fn refusal(rows: &[Row], known: Option<&LabelNames>) -> String {
        reconcile(rows, known).unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_among_numbers_and_names_that_differ_by_spaces_are_refused() {
        for word in MISSING_AMONG_NUMBERS {
            let message = refusal(&named(&["1", word, "2"]), None);
            assert!(message.contains("line 3") && message.contains(&format!("the label is {word}")), "{message}");
        }
        let (found, _) = reconcile(&named(&["yes", "no", "None"]), None).unwrap();
        assert_eq!(found, names(&["None", "no", "yes"]), "a name among names");
        let message = refusal(&named(&["a", "b", "a "]), None);
        assert!(message.contains("line 4") && message.contains("`a ` and `a`"), "{message}");
    }

    #[test]
    fn class_names_had_the_space_behind_a_comma() {
        let (found, ids) = reconcile(&named(&[" pos", " neg", " pos"]), None).unwrap();
        assert_eq!((found, ids), (names(&["neg", "pos"]), vec![Some(1), Some(0), Some(1)]));
        let (_, ids) = reconcile(&named(&[" pos", "neg "]), Some(&names(&["pos", " neg"]))).unwrap();
        assert_eq!(ids, [Some(0), Some(1)]);
        let both = names(&["pos", " pos"]);
        assert_eq!(reconcile(&named(&[" pos", "pos"]), Some(&both)).unwrap().1, [Some(1), Some(0)]);
        assert!(refusal(&named(&["pos  "]), Some(&both)).contains("does not know the label"));
    }

    #[test]
    fn labels_behind_a_space_escaped_the_refusals() {
        for (labels, expected) in [
            (["a", "b", " NaN"], "line 4: the label is NaN, as pandas"),
            (["1", "2", " None"], "line 4: the label is None, as pandas"),
            ([" 0.5", " 1.5", "2"], "line 2: the label is 0.5, and all labels are numbers"),
            (["1", "2", " -3"], "line 4: the label is -3"),
        ] {
            let message = refusal(&named(&labels), None);
            assert!(message.starts_with(expected), "{message}");
        }
        let message = refusal(&named(&["a", " nan"]), Some(&names(&["a", "b"])));
        assert!(message.starts_with("line 3: the label is nan, as pandas"), "{message}");
    }

    #[test]
    fn truth_is_the_same_in_every_spelling() {
        let truths = names(&["False", "True"]);
        let (_, ids) = reconcile(&named(&["true", "FALSE", "True", "False"]), Some(&truths)).unwrap();
        assert_eq!(ids, [Some(1), Some(0), Some(1), Some(0)]);
        let (_, ids) = reconcile(&named(&["true", "True"]), Some(&names(&["True", "true"]))).unwrap();
        assert_eq!(ids, [Some(1), Some(0)], "a name as it stands comes first");
    }

    #[test]
    fn names_are_sorted_by_bytes_and_rows_may_go_without() {
        let (found, ids) = reconcile(&named(&["b", "", "B", "é", "b"]), None).unwrap();
        assert_eq!(found, names(&["B", "b", "é"]));
        assert_eq!(ids, [Some(1), None, Some(0), Some(2), Some(1)]);
        assert!(!found.are_generic());
    }

    #[test]
    fn whole_numbers_make_as_many_classes_as_occur_in_numerical_order() {
        for (labels, classes, ids) in [
            (["2", "1", "4", "3", "1"], &["1", "2", "3", "4"][..], [1, 0, 3, 2, 0]),
            (["10", "9", "2905", "10", "9"], &["9", "10", "2905"], [1, 0, 2, 1, 0]),
            (["1", "0", "1", "0", "1"], &["0", "1"], [1, 0, 1, 0, 1]),
            // As pandas writes a column with gaps.
            (["1.0", "0.0", "1", "0", "1.0"], &["0", "1"], [1, 0, 1, 0, 1]),
            (["5000000000", "1", "1", "1", "1"], &["1", "5000000000"], [1, 0, 0, 0, 0]),
        ] {
            let (found, found_ids) = reconcile(&named(&labels), None).unwrap();
            assert_eq!(found, names(classes));
            assert_eq!(found_ids, ids.map(Some), "{labels:?}");
        }
    }

    #[test]
    fn digits_beside_names_or_with_leading_zeros_are_names() {
        for labels in [["10", "x"], ["007", "008"], ["1", "1.0.1"], ["2", "٣"]] {
            let (found, _) = reconcile(&named(&labels), None).unwrap();
            assert_eq!(found, names(&labels));
        }
    }

    #[test]
    fn negative_numbers_and_fractions_are_no_classes_unless_they_are_named() {
        let labels = named(&["0", "1", "-1"]);
        let message = refusal(&labels, None);
        assert!(message.starts_with("line 4: the label is -1"), "{message}");
        assert!(message.contains("--unlabelled-value -1") && message.contains("--label-names=-1,"), "{message}");
        assert!(refusal(&labels, Some(&names(&["no", "yes"]))).contains("line 4: the label is -1"));
        let (_, ids) = reconcile(&labels, Some(&names(&["-1", "0", "1"]))).unwrap();
        assert_eq!(ids, [Some(1), Some(2), Some(0)]);
        assert!(refusal(&named(&["yes", "no", "-1"]), None).contains("line 4: the label is -1"));

        let message = refusal(&named(&["1", "3.8", "2.25"]), None);
        assert!(message.starts_with("line 3: the label is 3.8"), "{message}");
        assert!(reconcile(&named(&["1.5", "2.5"]), Some(&names(&["1.5", "2.5"]))).is_ok());
        // Versions, and not measurements.
        assert_eq!(reconcile(&named(&["1.5", "1.5b"]), None).unwrap().0.len(), 2);
    }

    #[test]
    fn known_names_go_before_ids() {
        let known = names(&["b", "a", "0"]);
        let (found, ids) = reconcile(&named(&["a", "b", "0", "1", ""]), Some(&known)).unwrap();
        assert_eq!(found, known);
        assert_eq!(ids, [Some(1), Some(0), Some(2), Some(1), None]);
    }

    #[test]
    fn labels_that_stand_for_classes_by_number_alone_are_told_apart() {
        let known = names(&["b", "a", "2"]);
        assert_eq!(known.ids_without_name(&named(&["a", "0", "1.0", "2", "b", ""])), BTreeSet::from([0, 1]));
        assert_eq!(names(&["1", "2"]).ids_without_name(&named(&["1", "0"])), BTreeSet::new());
    }

    #[test]
    fn classes_named_by_numbers_are_not_meant_by_id() {
        let stars = names(&["1", "2", "3", "4", "5"]);
        assert_eq!(reconcile(&named(&["1", "5", "2.0"]), Some(&stars)).unwrap().1, [Some(0), Some(4), Some(1)]);
        assert!(refusal(&named(&["1", "0"]), Some(&stars)).contains("line 3: the model does not know the label `0`"));
        // Where the numbers are the ids, both say the same.
        assert_eq!(reconcile(&named(&["1", "0"]), Some(&names(&["0", "1"]))).unwrap().1, [Some(1), Some(0)]);
    }

    #[test]
    fn a_number_is_no_id_where_classes_are_named_by_numbers_of_any_kind() {
        let mixed = names(&["1", "2", "none"]);
        assert_eq!(reconcile(&named(&["1", "none", "2.0"]), Some(&mixed)).unwrap().1, [Some(0), Some(2), Some(1)]);
        let halves = names(&["0.5", "1.0", "1.5"]);
        assert_eq!(reconcile(&named(&["1", "1.0", "0.5"]), Some(&halves)).unwrap().1, [Some(1), Some(1), Some(0)]);
        assert!(refusal(&named(&["2"]), Some(&halves)).contains("does not know the label `2`"));
        assert!(refusal(&named(&["1"]), Some(&names(&["01", "02"]))).contains("does not know the label `1`"));
    }

    #[test]
    fn what_is_written_for_a_missing_label_is_no_class() {
        for label in ["NaN", "nan", "<NA>"] {
            for known in [None, Some(&names(&["a", "b"]))] {
                let message = refusal(&named(&["a", "b", label]), known);
                assert!(message.starts_with(&format!("line 4: the label is {label}, as pandas")), "{message}");
                assert!(message.contains(&format!("--unlabelled-value '{label}'")), "{message}");
            }
        }
        let (_, ids) = reconcile(&named(&["nan", "b"]), Some(&names(&["b", "nan"]))).unwrap();
        assert_eq!(ids, [Some(1), Some(0)]);
        assert!(reconcile(&named(&["None", "none", "NA"]), None).is_ok());
    }

    #[test]
    fn unknown_labels_are_refused_with_some_that_are_known() {
        let known = names(&["a", "b"]);
        assert_eq!(
            refusal(&named(&["a", "c"]), Some(&known)),
            "line 3: the model does not know the label `c`; it knows 2 classes: a, b"
        );
        assert_eq!(
            refusal(&named(&["2"]), Some(&known)),
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
        let message = refusal(&named(&["card"]), Some(&names(&["0", "1"])));
        assert!(message.contains("only as 0 to 1"), "{message}");
    }

    #[test]
    fn data_that_cannot_make_a_classifier_is_refused() {
        assert!(refusal(&named(&["", ""]), None).contains("no row has a label"));
        assert!(refusal(&named(&["a", "", "a"]), None).contains("every label is `a`"));
        assert!(refusal(&named(&["1", "1.0"]), None).contains("every label is `1`"));
        assert!(refusal(&named(&["a"]), Some(&names(&["a"]))).contains("1 class names"));
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

    #[test]
    fn names_are_sorted_by_number_only_where_all_are_numbers() {
        let sorted = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Vec::<String>::from(LabelNames::sorted(names).unwrap())
        };
        assert_eq!(sorted(&["10", "9", "2"]), ["2", "9", "10"]);
        assert_eq!(sorted(&["2", "10", "1a"]), ["10", "1a", "2"]);
    }
}
