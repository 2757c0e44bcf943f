//! Narrow word embeddings with a projection behind them (Lan et al., 2020, "ALBERT"; ELECTRA has them), made of a teacher's
//! wide ones.
//!
//! A teacher adds the embeddings of a token's word, position and type, and normalises the sum `x` over its `H` dimensions. A
//! student whose tables are `E` wide normalises over these, and projects. Both norms see nothing of a vector's mean and length,
//! so that with `V` the `E - 1` leading directions of all `x`, each without its mean, and `B` an orthonormal basis of the
//! vectors of `E` dimensions without a mean, tables times `V' B` and a projection by `sqrt(H / E) V' B`, with the scale of the
//! teacher's norm, are the teacher's output wherever `x` lies in these directions.

use nn::matrix::{Into, View, product};
use nn::{EncoderConfig, Normal, Parameters, Slot};

/// Steps of the iteration: what it finds are leading directions well before.
const ITERATIONS: usize = 100;

/// The teacher's rows of a table, times a matrix `[H, E]`.
fn narrowed(table: &[f32], rows: &[usize], through: View<'_>, [width, narrow]: [usize; 2]) -> Vec<f32> {
    let mut narrowed = vec![0.0; rows.len() * narrow];
    for (row, narrowed) in rows.iter().zip(narrowed.chunks_exact_mut(narrow)) {
        let wide = View::new(&table[row * width..][..width], 1, width, width);
        product(wide, through, 1.0, narrowed, narrow, Into::Fresh);
    }
    narrowed
}

/// Gives a student the embeddings and the projection of a teacher with wide ones, for the hidden dimensions `hidden` of those
/// of the teacher. `positions` are the teacher's rows of the student's positions.
pub(crate) fn factorise(
    student: &mut Parameters,
    config: &EncoderConfig,
    teacher_config: &EncoderConfig,
    teacher: &Parameters,
    positions: &[usize],
    hidden: &[usize],
) {
    let sizes @ [width, narrow] = [teacher_config.hidden_size, config.embedding_size];
    let words: Vec<usize> = (0..config.vocab_size).collect();
    let types: Vec<usize> = (0..config.type_vocab_size.min(teacher_config.type_vocab_size)).collect();
    let mut parts = vec![(Slot::WordEmbeddings, words), (Slot::PositionEmbeddings, positions.to_vec())];
    let first_type: Vec<usize> = types.first().copied().into_iter().collect();
    let tables: Vec<Vec<&[f32]>> = parts
        .iter()
        .chain([&(Slot::TypeEmbeddings, first_type)])
        .filter(|(_, rows)| !rows.is_empty())
        .map(|(slot, rows)| rows.iter().map(|row| &teacher.get(*slot)[row * width..][..width]).collect())
        .collect();
    let directions = leading(&moments(&tables, width), width, (narrow - 1).min(width - 1));
    let through = between_bases(&directions, sizes);
    let through_view = View::new(&through, width, narrow, narrow);

    parts.push((Slot::TypeEmbeddings, types));
    for (slot, rows) in parts {
        let table = student.get_mut(slot);
        table.fill(0.0);
        if !rows.is_empty() {
            let values = narrowed(teacher.get(slot), &rows, through_view, sizes);
            table[..values.len()].copy_from_slice(&values);
        }
    }
    student.get_mut(Slot::EmbeddingNormWeight).fill(1.0);
    student.get_mut(Slot::EmbeddingNormBias).fill(0.0);
    let (scale, bias) = (teacher.get(Slot::EmbeddingNormWeight), teacher.get(Slot::EmbeddingNormBias));
    let longer = (width as f32 / narrow as f32).sqrt();
    let projection = student.get_mut(Slot::EmbeddingProjectionWeight);
    for (row, dimension) in projection.chunks_exact_mut(narrow).zip(hidden) {
        let of_dimension = &through[dimension * narrow..][..narrow];
        row.iter_mut().zip(of_dimension).for_each(|(weight, value)| *weight = longer * scale[*dimension] * value);
    }
    let to = student.get_mut(Slot::EmbeddingProjectionBias);
    to.iter_mut().zip(hidden).for_each(|(to, dimension)| *to = bias[*dimension]);
}

/// The second moments `[H, H]` of sums of a row of each table, drawn by itself.
fn moments(tables: &[Vec<&[f32]>], width: usize) -> Vec<f32> {
    let mut moments = vec![0.0; width * width];
    let mut mean = vec![0.0; width];
    let mut add = |left: &[f32], rows: usize, scale: f32| {
        let rows = View::new(left, rows, width, width);
        product(rows.transposed(), rows, scale, &mut moments, width, Into::Sum);
    };
    for table in tables {
        let share = 1.0 / table.len() as f32;
        let mut own = vec![0.0; width];
        for rows in table.chunks(1024) {
            let rows_of: Vec<f32> = rows.concat();
            add(&rows_of, rows.len(), share);
            for row in rows {
                own.iter_mut().zip(*row).for_each(|(sum, value)| *sum += share * value);
            }
        }
        add(&own, 1, -1.0);
        mean.iter_mut().zip(own).for_each(|(sum, value)| *sum += value);
    }
    add(&mean, 1, 1.0);
    moments
}

/// The leading directions `[count, H]` of second moments among those without a mean, by orthogonal iteration.
fn leading(moments: &[f32], width: usize, count: usize) -> Vec<f32> {
    let mut directions = vec![0.0; count * width];
    Normal::new(0, "directions of embeddings", 1.0).fill(&mut directions);
    let by = View::new(moments, width, width, width);
    for _ in 0..ITERATIONS {
        orthonormalise(&mut directions, width);
        let mut next = vec![0.0; count * width];
        product(View::new(&directions, count, width, width), by, 1.0, &mut next, width, Into::Fresh);
        // Where all is captured, nothing is left to turn to.
        let lost = next.chunks_exact(width).any(|row| dot(row, row) == 0.0);
        if lost {
            break;
        }
        directions = next;
    }
    orthonormalise(&mut directions, width);
    directions
}

/// Makes rows orthonormal, and orthogonal to the vector of ones, in their order.
fn orthonormalise(rows: &mut [f32], width: usize) {
    for end in 0..rows.len() / width {
        let (before, rest) = rows.split_at_mut(end * width);
        let row = &mut rest[..width];
        // Twice is enough (Giraud et al., 2005).
        for _ in 0..2 {
            let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / width as f64;
            row.iter_mut().for_each(|value| *value -= mean as f32);
            for other in before.chunks_exact(width) {
                let along = dot(row, other) as f32;
                row.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
            let length = dot(row, row).sqrt().max(f64::MIN_POSITIVE);
            row.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
    }
}

/// `V' B`, `[H, E]`: directions `V` of `H` dimensions to those of `E` without a mean, after Helmert.
fn between_bases(directions: &[f32], [width, narrow]: [usize; 2]) -> Vec<f32> {
    let mut through = vec![0.0; width * narrow];
    for (number, direction) in directions.chunks_exact(width).enumerate() {
        let ones = number + 1;
        let length = ((ones * (ones + 1)) as f64).sqrt();
        for (row, value) in through.chunks_exact_mut(narrow).zip(direction) {
            row[..ones].iter_mut().for_each(|to| *to += (f64::from(*value) / length) as f32);
            row[ones] -= (f64::from(*value) * ones as f64 / length) as f32;
        }
    }
    through
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::start::{Sizes, configure, from_teacher};
    use nn::hf::HfConfig;
    use nn::{Family, Layout, Mode, Model, PackedInput, Tap};

    /// Embeddings as the first layer sees them.
    fn embedded(config: &EncoderConfig, parameters: Parameters) -> Vec<f32> {
        let labels = (0..config.num_labels).map(|label| label.to_string()).collect();
        let mut model = Model::new(HfConfig { encoder: config.clone(), labels }, parameters).expect("a model");
        let (input_ids, types): (Vec<u32>, Vec<u32>) = ((3..43).collect(), (0..40).map(|place| place / 25).collect());
        let input =
            PackedInput { input_ids: &input_ids, token_type_ids: &types, starts: &[0, 18, 40], positions: None };
        let mut pass = model.forward(input, &[Tap::Hidden(0)], Mode::Eval).expect("a pass");
        model.read(&mut pass, Tap::Hidden(0)).expect("a value")
    }

    /// A teacher whose tables are sums of so many directions, with a norm that scales.
    fn teacher(config: &EncoderConfig, rank: usize) -> Parameters {
        let mut teacher = Parameters::random(Layout::new(config), 0, 3);
        let width = config.hidden_size;
        let mut of = |slot: Slot, seed: u64| {
            let table = teacher.get_mut(slot);
            for (row, values) in table.chunks_exact_mut(width).enumerate() {
                for (column, value) in values.iter_mut().enumerate() {
                    let wave =
                        |d: usize| ((row * (3 * d + 2) + seed as usize) as f64).sin() * ((column * d + d) as f64).cos();
                    *value = (1..=rank).map(|d| 0.3 * wave(d) / d as f64).sum::<f64>() as f32;
                }
            }
        };
        of(Slot::WordEmbeddings, 1);
        of(Slot::PositionEmbeddings, 2);
        of(Slot::TypeEmbeddings, 5);
        for (slot, from) in [(Slot::EmbeddingNormWeight, 1.0), (Slot::EmbeddingNormBias, 0.0)] {
            let values = teacher.get_mut(slot).iter_mut().enumerate();
            values.for_each(|(place, value)| *value = from + 0.3 * (place as f32).sin());
        }
        teacher
    }

    fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    /// Of the student's embeddings to its teacher's.
    fn difference(rank: usize, embedding_size: usize) -> f32 {
        let config = Family::BERT.small(24);
        let teacher = teacher(&config, rank);
        let sizes = Sizes { embedding_size: Some(embedding_size), ..Sizes::default() };
        let student = configure(Family::ELECTRA, &config, &sizes, 0.0).expect("sizes");
        assert!(student.projects_embeddings() && student.embedding_size == embedding_size);
        let start = from_teacher(&student, &config, &teacher, &[1], 2).expect("starts");
        largest_difference(&embedded(&student, start), &embedded(&config, teacher))
    }

    #[test]
    fn embeddings_that_lie_in_few_directions_are_the_teacher_s() {
        // Every direction: measured 1.4e-6.
        assert!(difference(12, 25) < 1e-5);
        // Six of them and their mean.
        assert!(difference(6, 8) < 1e-5);
        assert!(difference(6, 4) > 1e-2, "three directions are too few");
    }

    #[test]
    fn the_leading_directions_are_those_of_the_most_square() {
        // Columns of falling scale that do not depend on each other: the first ones are the directions.
        let width = 16;
        let row = |row: usize| -> Vec<f32> {
            let value = |column: usize| ((row * (2 * column + 1)) as f32 * 0.737).sin() * 0.7_f32.powi(column as i32);
            (0..width).map(value).collect()
        };
        let rows: Vec<Vec<f32>> = (0..500).map(row).collect();
        let table: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let moments = moments(&[table], width);
        let found = leading(&moments, width, 5);
        for (number, direction) in found.chunks_exact(width).enumerate() {
            assert!((dot(direction, direction) - 1.0).abs() < 1e-6);
            assert!(direction.iter().sum::<f32>().abs() < 1e-5, "no mean");
            for other in found.chunks_exact(width).take(number) {
                assert!(dot(direction, other).abs() < 1e-6);
            }
        }
        let square = |direction: &[f32]| -> f64 {
            let moved: Vec<f32> = moments.chunks_exact(width).map(|row| dot(row, direction) as f32).collect();
            dot(direction, &moved)
        };
        let captured: f64 = found.chunks_exact(width).map(square).sum();
        // `numpy.linalg.eigvalsh` of the centred moments, its five largest.
        assert!((captured - 0.892366).abs() < 1e-5, "{captured}");
    }
}
