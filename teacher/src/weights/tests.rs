use std::fs;
use std::path::{Path, PathBuf};

use ::safetensors::tensor::{Dtype, TensorView};
use half::{bf16, f16};

use super::*;

#[test]
fn every_float_becomes_f32() {
    let numbers = [1.0_f32, -0.5, 0.25, 3.0, 0.0, -2.0];
    let f16s: Vec<u8> = numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect();
    let bf16s: Vec<u8> = numbers.iter().flat_map(|&number| bf16::from_f32(number).to_le_bytes()).collect();
    let f32s: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let f64s: Vec<u8> = numbers.iter().flat_map(|&number| f64::from(number).to_le_bytes()).collect();
    let position_ids: Vec<u8> = (0_i64..6).flat_map(i64::to_le_bytes).collect();
    let path = safetensors_file(&[
        ("f16", Dtype::F16, &f16s),
        ("bf16", Dtype::BF16, &bf16s),
        ("f32", Dtype::F32, &f32s),
        ("f64", Dtype::F64, &f64s),
        ("position_ids", Dtype::I64, &position_ids),
    ]);
    let tensors = read_tensors(&files(&[path.to_path_buf()])).unwrap();
    let expected = RawTensor { shape: vec![2, 3], data: numbers.to_vec() };
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["bf16", "f16", "f32", "f64"]);
    assert!(tensors.values().all(|tensor| *tensor == expected));
}

#[test]
fn shards_are_put_together() {
    let [one, two] = ["one", "two"].map(|name| safetensors_file(&[(name, Dtype::F32, &[0; 24])]));
    let tensors = read_tensors(&files(&[one.to_path_buf(), two.to_path_buf()])).unwrap();
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["one", "two"]);
    let error = read_tensors(&files(&[one.to_path_buf(), one.to_path_buf()])).unwrap_err();
    assert!(matches!(&error, Error::TensorTwice { tensor, .. } if tensor == "one"), "{error}");
}

#[test]
fn a_type_that_is_no_plain_float_is_named() {
    let path = safetensors_file(&[("quantised", Dtype::F8_E4M3, &[0; 6])]);
    let error = read_tensors(&files(&[path.to_path_buf()])).unwrap_err();
    assert!(matches!(&error, Error::TensorType { tensor, .. } if tensor == "quantised"), "{error}");
}

#[test]
fn a_hostile_header_is_refused() {
    let header = |json: &str| [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &[0; 24]].concat();
    let deep = "[".repeat(100_000);
    let cases: [(Vec<u8>, &str); 11] = [
        (Vec::new(), "0 bytes are too few"),
        (vec![1, 2, 3], "3 bytes are too few"),
        ((1_000_u64.to_le_bytes()).to_vec(), "claims 1000 bytes of a file of 8"),
        (u64::MAX.to_le_bytes().to_vec(), "claims 18446744073709551615 bytes"),
        (header("{\"a\":"), "JSON"),
        (header(&deep), "JSON"),
        (header("\u{7f}"), "JSON"),
        (header(r#"{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,48]}}"#), "invalid shape"),
        (header(r#"{"a":{"dtype":"F32","shape":[12],"data_offsets":[0,48]}}"#), "cut off"),
        (header(r#"{"a":{"dtype":"F32","shape":[6],"data_offsets":[8,32]}}"#), "invalid offset for tensor `a`"),
        (
            header(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,24]}}"#),
            "overflow",
        ),
    ];
    for (bytes, expected) in cases {
        let path = file("model.safetensors", &bytes);
        let error = read_tensors(&files(&[path.to_path_buf()])).unwrap_err();
        let message = error.to_string();
        let named = message.contains("model.safetensors") && message.contains(expected);
        assert!(matches!(error, Error::Weights { .. }) && named, "{expected}: {message}");
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let whole = safetensors_file(&[("a", Dtype::F32, &[0; 24]), ("b", Dtype::F32, &[0; 24])]);
    let bytes = fs::read(&whole).unwrap();
    for length in 0..bytes.len() {
        let path = file("model.safetensors", &bytes[..length]);
        let error = read_tensors(&files(&[path.to_path_buf()])).unwrap_err();
        assert!(matches!(error, Error::Weights { .. }), "{length}: {error}");
    }
}

#[test]
fn a_git_lfs_pointer_is_told_apart() {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let path = file(name, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n");
        let error = read_tensors(&files(&[path.to_path_buf()])).unwrap_err();
        assert!(matches!(error, Error::LfsPointer { .. }), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    for name in ["/nowhere/model.safetensors", "/nowhere/pytorch_model.bin"] {
        let error = read_tensors(&files(&[PathBuf::from(name)])).unwrap_err();
        assert!(matches!(&error, Error::Read { path, .. } if path == Path::new(name)), "{error}");
    }
}

// What torch.save writes.

#[test]
fn a_pickle_is_read() {
    let numbers = [1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let path = torch_file(&[
        Saved { name: "weight", class: "FloatStorage", shape: [2, 3], bytes: le_bytes(&numbers), view: View::Whole },
        Saved { name: "half", class: "HalfStorage", shape: [2, 3], bytes: half_bytes(&numbers), view: View::Whole },
        Saved { name: "position_ids", class: "LongStorage", shape: [1, 2], bytes: vec![0; 16], view: View::Whole },
    ]);
    let tensors = read_tensors(&files(&[path.to_path_buf()])).unwrap();
    let expected = RawTensor { shape: vec![2, 3], data: numbers.to_vec() };
    assert_eq!(tensors.keys().collect::<Vec<_>>(), ["half", "weight"]);
    assert!(tensors.values().all(|tensor| *tensor == expected));
}

#[test]
fn a_tensor_may_be_any_view_of_its_storage() {
    let numbers: Vec<f32> = (0..12_u8).map(f32::from).collect();
    let read = |shape: [u8; 2], view, bytes: Vec<u8>, class| {
        let path = torch_file(&[Saved { name: "w", class, shape, bytes, view }]);
        read_tensors(&files(&[path.to_path_buf()])).map(|mut tensors| tensors.remove("w").unwrap())
    };
    for (shape, offset, strides, expected) in [
        // Every second row of six; a transposed matrix; one column of four; a row and a number that are repeated.
        ([3, 2], 0, [4, 1], &[0.0, 1.0, 4.0, 5.0, 8.0, 9.0][..]),
        ([2, 3], 1, [1, 2], &[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]),
        ([3, 1], 2, [4, 7], &[2.0, 6.0, 10.0]),
        ([3, 2], 10, [0, 1], &[10.0, 11.0, 10.0, 11.0, 10.0, 11.0]),
        ([2, 2], 5, [0, 0], &[5.0, 5.0, 5.0, 5.0]),
        ([2, 6], 0, [6, 1], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]),
        ([2, 0], 0, [1, 1], &[]),
    ] {
        let view = View::Strided(offset, strides);
        let expected = RawTensor { shape: shape.map(usize::from).to_vec(), data: expected.to_vec() };
        assert_eq!(read(shape, view, le_bytes(&numbers), "FloatStorage").unwrap(), expected, "{shape:?} {strides:?}");
        assert_eq!(read(shape, view, half_bytes(&numbers), "HalfStorage").unwrap(), expected, "{shape:?} {strides:?}");
    }
    for (shape, offset, strides) in [([3, 2], 3, [4, 1]), ([2, 2], 12, [0, 0]), ([255, 255], 0, [255, 255])] {
        let error = read(shape, View::Strided(offset, strides), le_bytes(&numbers), "FloatStorage").unwrap_err();
        assert!(matches!(error, Error::Weights { .. }) && error.to_string().contains("tensor `w`"), "{error}");
    }
}

#[test]
fn a_pickle_that_claims_more_than_the_file_holds() {
    for shape in [[255, 255], [2, 4]] {
        let path = torch_file(&[Saved {
            name: "w",
            class: "FloatStorage",
            shape,
            bytes: le_bytes(&[0.0; 6]),
            view: View::Whole,
        }]);
        let error = read_tensors(&files(&[path.to_path_buf()])).unwrap_err();
        assert!(matches!(error, Error::Weights { .. }), "{error}");
    }
}

#[test]
fn tensors_of_8_bits_in_a_pickle_were_left_out() {
    for class in ["CharStorage", "QInt8Storage", "QUInt8Storage"] {
        let bytes = le_bytes(&[1.0; 6]);
        let path = torch_file(&[
            Saved { name: "w", class: "FloatStorage", shape: [2, 3], bytes, view: View::Whole },
            Saved { name: "codes", class, shape: [2, 3], bytes: vec![0; 6], view: View::Whole },
        ]);
        let error = read_tensors(&files(&[path.to_path_buf()])).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, Error::Quantised { .. }) && message.contains(&format!("`{class}`")), "{message}");
    }
}

#[test]
fn a_truncated_pickle_is_refused_wherever_it_ends() {
    let sound = fs::read(one_tensor()).unwrap();
    for length in 0..sound.len() {
        let path = file("pytorch_model.bin", &sound[..length]);
        assert!(read_tensors(&files(&[path.to_path_buf()])).is_err(), "cut at {length}");
    }
}

#[test]
fn a_damaged_pickle_never_brings_the_process_down() {
    let sound = fs::read(one_tensor()).unwrap();
    for position in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[position] ^= 0x10;
        let path = file("pytorch_model.bin", &flipped);
        // Numbers are not protected: candle stops before the zip file's checksums. Shapes and sizes hold.
        if let Ok(tensors) = read_tensors(&files(&[path.to_path_buf()])) {
            assert!(tensors.values().all(|tensor| tensor.data.len() == tensor.shape.iter().product::<usize>()));
        }
    }
}

#[test]
fn the_old_format_of_torch_is_told_apart() {
    let path = file("pytorch_model.bin", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.");
    let error = read_tensors(&files(&[path.to_path_buf()])).unwrap_err();
    assert!(matches!(error, Error::OldPickle { .. }) && error.to_string().contains("torch.save"), "{error}");
    let path = file("pytorch_model.bin", b"<html>");
    let error = read_tensors(&files(&[path.to_path_buf()])).unwrap_err();
    assert!(matches!(error, Error::Weights { .. }), "{error}");
}

// Helpers.

/// A file that lasts as long as the test.
struct TestFile {
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl std::ops::Deref for TestFile {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for TestFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

fn file(name: &str, bytes: &[u8]) -> TestFile {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    TestFile { path, _folder: folder }
}

fn files(weights: &[PathBuf]) -> ModelFiles {
    ModelFiles {
        name: "test".to_owned(),
        folder: None,
        commit: None,
        config: PathBuf::new(),
        weights: weights.to_vec(),
        tokenizer_json: None,
        tokenizer_config: None,
        special_tokens_map: None,
        vocab_txt: None,
        vocab_json: None,
        merges_txt: None,
        other_tokenizer_files: vec![],
    }
}

/// Tensors of shape `[2, 3]` each.
fn safetensors_file(tensors: &[(&str, Dtype, &[u8])]) -> TestFile {
    let views = tensors.iter().map(|&(name, dtype, bytes)| (name, TensorView::new(dtype, vec![2, 3], bytes).unwrap()));
    file("model.safetensors", &::safetensors::serialize(views, None).unwrap())
}

struct Saved {
    name: &'static str,
    class: &'static str,
    shape: [u8; 2],
    bytes: Vec<u8>,
    view: View,
}

/// Where a tensor of two dimensions stands in its storage.
#[derive(Clone, Copy)]
enum View {
    Whole,
    /// From this number on, in these strides.
    Strided(u8, [u8; 2]),
}

fn le_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn half_bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|&number| f16::from_f32(number).to_le_bytes()).collect()
}

/// What torch.save makes of a dictionary of tensors: a zip file, nothing compressed, with one pickle that says what the
/// tensors are and one entry a tensor with its numbers.
fn torch_file(tensors: &[Saved]) -> TestFile {
    let mut pickle = b"\x80\x02}(".to_vec();
    let mut entries = Vec::new();
    for (number, Saved { name, class, shape: [rows, columns], bytes, view }) in tensors.iter().enumerate() {
        let (offset, strides) = match *view {
            View::Whole => (0, [*columns, 1]),
            View::Strided(offset, strides) => (offset, strides),
        };
        let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        pickle.extend(text(name));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend([text("storage"), format!("ctorch\n{class}\n").into_bytes()].concat());
        pickle.extend([text(&number.to_string()), text("cpu"), vec![b'K', bytes.len() as u8], b"tQ".to_vec()].concat());
        // Offset, shape, strides, no gradient, no hooks.
        let [outer, inner] = strides;
        pickle.extend([b'K', offset, b'K', *rows, b'K', *columns, 0x86, b'K', outer, b'K', inner, 0x86, 0x89]);
        pickle.extend(b"ccollections\nOrderedDict\n)RtR");
        entries.push((format!("archive/data/{number}"), bytes.clone()));
    }
    pickle.extend(b"u.");
    entries.insert(0, ("archive/data.pkl".to_owned(), pickle));
    file("pytorch_model.bin", &zip(&entries))
}

fn one_tensor() -> TestFile {
    torch_file(&[Saved {
        name: "w",
        class: "FloatStorage",
        shape: [2, 3],
        bytes: le_bytes(&[1.0; 6]),
        view: View::Whole,
    }])
}

/// A zip file with its entries stored as they are.
fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let length = (bytes.len() as u32).to_le_bytes();
        let name_length = (name.len() as u16).to_le_bytes();
        // Version, flags, method, time, date; checksum, size packed and unpacked; length of the name, of what follows it.
        let described = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0][..],
            &crc32(bytes).to_le_bytes(),
            &length,
            &length,
            &name_length,
            &[0, 0],
        ]
        .concat();
        let offset = (file.len() as u32).to_le_bytes();
        directory.extend([b"PK\x01\x02\x14\0", &described[..], &[0; 10], &offset, name.as_bytes()].concat());
        file.extend([b"PK\x03\x04", &described[..], name.as_bytes(), bytes].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (start, length) = ((file.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
    [file, directory, [b"PK\x05\x06\0\0\0\0", &count[..], &count, &length, &start, &[0, 0]].concat()].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1)))
    })
}
