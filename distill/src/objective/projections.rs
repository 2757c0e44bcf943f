//! The projections of an objective's terms, trained beside the student.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use nn::Clip;
use safetensors::tensor::{Dtype, TensorView};

use super::projection::Projection;
use crate::files::{self, FileError};

/// The file of the projections that a training ends with, for one that goes on from it.
pub(crate) const PROJECTIONS: &str = "projections.safetensors";

/// One for each term that needs it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Projections {
    of_terms: Vec<Option<Projection>>,
    /// Of each term its name; of terms of one name the layers too.
    names: Vec<String>,
}

/// What a projection is made for.
pub(super) struct OfTerm<'a> {
    pub(super) term: &'static str,
    /// The pairs of layers that the term compares.
    pub(super) layers: &'a str,
    /// Widths of student and teacher, where they differ.
    pub(super) widths: Option<[usize; 2]>,
}

impl Projections {
    pub(super) fn new<'a>(seed: u64, terms: impl Iterator<Item = OfTerm<'a>>) -> Self {
        let terms: Vec<OfTerm<'_>> = terms.collect();
        let alike = |one: &OfTerm<'_>, other: &OfTerm<'_>| one.term == other.term && other.widths.is_some();
        let name = |(number, term): (usize, &OfTerm<'_>)| {
            let of_the_name = terms.iter().filter(|other| alike(term, other)).count();
            let of_the_layers = |other: &&OfTerm<'_>| alike(term, other) && other.layers == term.layers;
            match (of_the_name, terms[..number].iter().filter(of_the_layers).count()) {
                (..=1, _) => term.term.to_owned(),
                (_, 0) => format!("{} {}", term.term, term.layers),
                (_, before) => format!("{} {}, {}", term.term, term.layers, before + 1),
            }
        };
        let projection = |(number, OfTerm { term, widths, .. }): (usize, &OfTerm<'_>)| {
            widths.map(|widths| Projection::new(widths, seed, &format!("projection {number} {term}")))
        };
        let names = terms.iter().enumerate().map(name).collect();
        Self { of_terms: terms.iter().enumerate().map(projection).collect(), names }
    }

    /// Writes the maps as they are, if there are any: for each term `[teacher, student + 1]`, a weight for each dimension of the
    /// student and the bias behind them.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let of_terms = self.names.iter().zip(&self.of_terms);
        let of_terms = of_terms.filter_map(|(name, projection)| Some((name, projection.as_ref()?)));
        let maps: Vec<(&String, [usize; 2], Vec<u8>)> = of_terms
            .map(|(name, projection)| {
                let (shape, rows) = projection.rows();
                (name, shape, rows.iter().flat_map(|value| value.to_le_bytes()).collect())
            })
            .collect();
        if maps.is_empty() {
            return Ok(());
        }
        let views =
            maps.iter().map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?)));
        let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        let bytes = safetensors::serialize(views, None)?;
        Ok(files::write_whole(&folder.join(PROJECTIONS), &bytes)?)
    }

    /// Starts from the maps of such a file: the only one of a term's name from the only one of it there, of several each from
    /// that of the same layers. Those that differ in width start anew.
    pub(crate) fn starting_from(mut self, maps: &Maps) -> Self {
        for (name, projection) in self.names.iter().zip(&mut self.of_terms) {
            if let (Some(projection), Some((shape, rows))) = (projection, maps.0.get(name)) {
                projection.start_from(*shape, rows);
            }
        }
        self
    }

    /// In the order of the terms.
    pub(super) fn of_terms(&mut self) -> impl Iterator<Item = Option<&mut Projection>> {
        self.of_terms.iter_mut().map(Option::as_mut)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.of_terms.iter().all(Option::is_none)
    }

    /// Takes a step with each, and zeroes their gradients.
    pub(crate) fn step(&mut self, learning_rate: f64, weight_decay: f64, clip: Clip) {
        self.of_terms.iter_mut().flatten().for_each(|projection| projection.step(learning_rate, weight_decay, clip));
    }

    /// Forgets their gradients.
    pub(crate) fn clear(&mut self) {
        self.of_terms.iter_mut().flatten().for_each(Projection::clear);
    }

    /// All that a checkpoint holds of them: the steps of each, and their values one behind the other.
    pub(crate) fn state(&self) -> (Vec<u64>, Vec<f32>) {
        let (steps, values): (Vec<u64>, Vec<Vec<f32>>) = self.of_terms.iter().flatten().map(Projection::state).unzip();
        (steps, values.concat())
    }

    /// The same as they were then. `None` if that was of others.
    pub(crate) fn restored(mut self, steps: &[u64], values: &[f32]) -> Option<Self> {
        let mut left = values;
        let mut steps = steps.iter();
        for projection in self.of_terms.iter_mut().flatten() {
            left = projection.restore(*steps.next()?, left)?;
        }
        (left.is_empty() && steps.next().is_none()).then_some(self)
    }
}

/// The maps in the file of an earlier training, by name: their shapes and values.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Maps(HashMap<String, ([usize; 2], Vec<f32>)>);

impl Maps {
    /// Those in the folder of a training, with the hash of the file; none if it has none.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Option<(Self, String)>> {
        let path = folder.join(PROJECTIONS);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(|source| FileError::Read { path: path.clone(), source })?;
        let file = safetensors::SafeTensors::deserialize(&bytes).with_context(|| path.display().to_string())?;
        let mut maps = HashMap::new();
        for (name, map) in file.tensors() {
            let &[rows, columns] = map.shape() else { bail!("{}: `{name}` is no matrix", path.display()) };
            ensure!(map.dtype() == Dtype::F32, "{}: `{name}` is not in f32", path.display());
            let values =
                map.data().chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]]));
            maps.insert(name, ([rows, columns], values.collect()));
        }
        Ok(Some((Self(maps), blake3::hash(&bytes).to_hex().to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn projections(terms: &[(&'static str, &str)], seed: u64) -> Projections {
        let of_term = |&(term, layers)| OfTerm { term, layers, widths: Some([2, 3]) };
        Projections::new(seed, terms.iter().map(of_term))
    }

    /// They were once taken by the order of terms of a name, whatever those compare.
    #[test]
    fn of_several_terms_of_a_name_each_goes_on_with_the_map_of_its_layers() {
        let folder = tempfile::tempdir().expect("a folder");
        let start = |from: &[(&'static str, &str)], to: &[(&'static str, &str)]| {
            let (before, new) = (projections(from, 1), projections(to, 2));
            before.write(folder.path()).expect("written");
            let (maps, _) = Maps::read(folder.path()).expect("read").expect("there");
            let after = new.clone().starting_from(&maps);
            let of = |projections: &Projections| -> Vec<Vec<f32>> {
                projections.of_terms.iter().flatten().map(|map| map.rows().1).collect()
            };
            let (before, new) = (of(&before), of(&new));
            let place = |map: &Vec<f32>| before.iter().position(|other| other == map);
            of(&after).iter().map(|map| if new.contains(map) { None } else { place(map) }).collect::<Vec<_>>()
        };
        let [first, second] = [("hidden_mse", "1:2"), ("hidden_mse", "2:4")];
        assert_eq!(start(&[first, second], &[second, first]), [Some(1), Some(0)]);
        // A single one goes on with a single one, be it of other layers.
        assert_eq!(start(&[first], &[second]), [Some(0)]);
        assert_eq!(start(&[("pkd", "1:2"), first], &[second, ("rkd", "1:1")]), [Some(1), None]);
        assert_eq!(start(&[first, second], &[first]), [None]);
        assert_eq!(start(&[first], &[first, second]), [None, None]);
        assert_eq!(start(&[first, first], &[first, first]), [Some(0), Some(1)]);
    }
}
