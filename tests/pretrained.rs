//! Students that somebody has trained before: `train --student MODEL`, with their own sizes, weights and tokenizer, and
//! trainings whose teacher is not here.

use std::collections::HashMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::support::{CLASSES, TRAIN, Workplace, rows, tsv};

/// A place with a cache and a pretrained student in `first`: one layer, two heads.
fn place() -> Workplace {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --layers 1 --output first"));
    place
}

/// A training that moves no weight.
const STILL: &str = "--learning-rate 1e-30 --student first";

/// The tensors of a model, by name: shape and values.
fn tensors(place: &Workplace, file: &str) -> HashMap<String, (Vec<usize>, Vec<f32>)> {
    let bytes = place.read_bytes(file);
    let tensors = SafeTensors::deserialize(&bytes).expect("readable weights");
    let value = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("4 bytes"));
    tensors
        .tensors()
        .into_iter()
        .map(|(name, t)| (name, (t.shape().to_vec(), t.data().chunks_exact(4).map(value).collect())))
        .collect()
}

fn write_tensors(place: &Workplace, file: &str, tensors: &HashMap<String, (Vec<usize>, Vec<f32>)>) {
    let bytes: HashMap<&String, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).expect("fits its shape"))
    });
    place.write(file, safetensors::serialize(views, None).expect("serialises"));
}

/// Moves the rows of a matrix or vector: row `i` of the new one is row `from[i]` of the old.
fn move_rows((shape, values): &mut (Vec<usize>, Vec<f32>), from: &[usize]) {
    let width = values.len() / shape[0];
    *values = from.iter().flat_map(|row| values[row * width..(row + 1) * width].to_vec()).collect();
}

#[test]
fn a_pretrained_student_keeps_its_sizes_weights_and_head() {
    let place = place();
    place.json(&format!("{TRAIN} {STILL} --output student"));
    assert_eq!(place.read_bytes("student/model.safetensors"), place.read_bytes("first/model.safetensors"));
    assert_eq!(place.read_json("student/config.json")["n_layers"], 1);
    let record = place.read_json("student/distill.json");
    assert_eq!(record["inputs"]["student"]["model"], Value::Null, "a record names no folder of this machine");
    assert_eq!(record["inputs"]["student_weights"].as_str().map(str::len), Some(64));
    // It learns from where it stands.
    let done = place.run(&format!("{TRAIN} --student first --output learned"));
    done.succeeded();
    assert!(!done.stderr.contains("starts at random"), "{}", done.stderr);
    assert_ne!(place.read_bytes("learned/model.safetensors"), place.read_bytes("first/model.safetensors"));
    place.json("export --model learned --output exported");
    assert!(place.read("exported/README.md").contains("started from (BLAKE3 of its weights)"));
}

#[test]
fn a_student_reads_the_rows_with_its_own_tokenizer_and_finds_its_teachers_answers() {
    let place = place();
    // The same student with its vocabulary in another order: every id of a piece is another one.
    place.copy("first", "moved");
    let mut tokenizer = place.read_json("moved/tokenizer.json");
    let special = tokenizer["added_tokens"].as_array().expect("a list").len();
    let vocabulary = tokenizer["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let size = vocabulary.len();
    assert!(special < 10 && size > 100);
    let from: Vec<usize> = (0..size).map(|id| if id < 10 { id } else { size + 9 - id }).collect();
    for id in vocabulary.values_mut() {
        *id = from[id.as_u64().expect("an id") as usize].into();
    }
    place.write("moved/tokenizer.json", tokenizer.to_string());
    std::fs::remove_file(place.path("moved/vocab.txt")).expect("removes");
    let mut weights = tensors(&place, "moved/model.safetensors");
    move_rows(weights.get_mut("distilbert.embeddings.word_embeddings.weight").expect("the table"), &from);
    write_tensors(&place, "moved/model.safetensors", &weights);
    // No clipping, whose norm is a sum over the table in its order.
    let train = format!("{TRAIN} --max-gradient-norm 1e9 --output");
    place.json(&format!("{train} a --student first"));
    place.json(&format!("{train} b --student moved"));
    assert_ne!(place.read("a/tokenizer.json"), place.read("b/tokenizer.json"));
    let logits = |model: &str| {
        let said =
            place.run_with_input(&format!("predict --model {model} --json --logits"), "the soil is dry\nbread\n");
        said.succeeded();
        said.stdout
    };
    assert_eq!(logits("a"), logits("b"));
}

#[test]
fn classes_in_another_order_are_found_by_name() {
    let place = place();
    place.copy("first", "turned");
    let from = [2, 0, 3, 1];
    place.edit_json("turned/config.json", |config| {
        for (id, from) in from.into_iter().enumerate() {
            config["id2label"][id.to_string()] = CLASSES[from].into();
            config["label2id"][CLASSES[from]] = id.into();
        }
    });
    let mut weights = tensors(&place, "turned/model.safetensors");
    for name in ["classifier.weight", "classifier.bias"] {
        move_rows(weights.get_mut(name).expect("the head"), &from);
    }
    write_tensors(&place, "turned/model.safetensors", &weights);
    place.json(&format!("{TRAIN} --learning-rate 1e-30 --student turned --output student"));
    assert_eq!(place.read_bytes("student/model.safetensors"), place.read_bytes("first/model.safetensors"));
}

#[test]
fn other_classes_get_a_new_head_and_the_rest_stays() {
    let place = place();
    place.copy("first", "other");
    place.edit_json("other/config.json", |config| config["id2label"]["0"] = json!("airport"));
    let done = place.run(&format!("{TRAIN} --learning-rate 1e-30 --student other --output student"));
    done.succeeded();
    assert!(done.stderr.contains("a new classification head for 4 classes starts at random"), "{}", done.stderr);
    let [ours, theirs] = ["student", "first"].map(|model| tensors(&place, &format!("{model}/model.safetensors")));
    for (name, values) in &theirs {
        assert_eq!(name.starts_with("classifier"), ours[name] != *values, "{name}");
    }
    assert_eq!(place.read_json("student/config.json")["id2label"]["0"], "bakery");
}

#[test]
fn layers_and_pruning_apply_to_a_pretrained_student() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --layers 0,1,2 --output first"));
    place.json(&format!("{TRAIN} {STILL} --layers 2,0 --prune-vocabulary --output student"));
    let [ours, theirs] = ["student", "first"].map(|model| tensors(&place, &format!("{model}/model.safetensors")));
    for (layer, from) in [2, 0].into_iter().enumerate() {
        let name = |layer: usize| format!("distilbert.transformer.layer.{layer}.ffn.lin1.weight");
        assert_eq!(ours[&name(layer)], theirs[&name(from)]);
    }
    assert_eq!(ours["classifier.weight"], theirs["classifier.weight"]);
    let words = "distilbert.embeddings.word_embeddings.weight";
    assert!(ours[words].0[0] < theirs[words].0[0], "fewer pieces");
    assert_eq!(ours[words].0[0], place.read("student/vocab.txt").lines().count());
    // At random it is its sizes alone.
    place.json(&format!("{TRAIN} {STILL} --layers random --output fresh"));
    let fresh = tensors(&place, "fresh/model.safetensors");
    assert_eq!(fresh[words].0, theirs[words].0);
    assert_ne!(fresh[words], theirs[words]);
}

#[test]
fn sizes_contradict_a_pretrained_student() {
    let place = place();
    for (flag, key) in [
        ("--hidden-size 16", "hidden_size"),
        ("--num-heads 1", "num_heads"),
        ("--shape tiny", "shape"),
        ("--model-type bert", "family"),
    ] {
        let name = flag.split(' ').next().expect("a flag");
        let key = format!("student.{key}");
        place.refuses(&format!("{TRAIN} --student first --output student {flag}"), &["--student first", name, &key]);
    }
    place.write("recipe.toml", RECIPE.replace("[train]", "hidden_size = 16\n[train]"));
    place.refuses("run recipe.toml", &["contradicts", "student.hidden_size"]);
    assert!(!place.path("student").exists());
}

const RECIPE: &str = "output = 'job'\n[teacher]\nmodel = 'teacher'\n[data]\ntrain = 'train.tsv'\ntest = 'test.tsv'\n\
                      [student]\nmodel = 'first'\n[train]\nepochs = 1\n";

#[test]
fn a_recipe_names_a_pretrained_student() {
    let place = place();
    place.write("recipe.toml", RECIPE);
    let report = place.json("run recipe.toml");
    assert_eq!(report["student"]["parameters"], place.read_json("first/distill.json")["figures"]["parameters"]);
    assert_eq!(place.read_json("job/student/config.json")["n_layers"], 1);
    // Stages that are done stay done.
    let again = place.run("run recipe.toml");
    again.succeeded();
    place.write("recipe.toml", RECIPE.replace("model = 'first'", "model = 'missing'"));
    place.refuses("run recipe.toml", &["missing"]);
}

#[test]
fn a_student_larger_than_its_teacher_is_told_and_taken() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --layers random --hidden-size 64 --num-layers 4 --output first"));
    let done = place.run(&format!("{TRAIN} --student first --output student"));
    done.succeeded();
    assert!(done.stderr.contains("the student is larger than its teacher: "), "{}", done.stderr);
}

#[test]
fn only_of_a_pretrained_student_was_it_told_that_it_is_larger_than_its_teacher() {
    let place = Workplace::with_cache();
    let larger = "--layers random --hidden-size 64 --num-layers 5";
    let done = place.run(&format!("{TRAIN} {larger} --output student"));
    done.succeeded();
    assert!(done.stderr.contains("the student is larger than its teacher: "), "{}", done.stderr);
    let smaller = place.run(&format!("{TRAIN} --layers 1 --output smaller"));
    smaller.succeeded();
    assert!(!smaller.stderr.contains("larger than its teacher"), "{}", smaller.stderr);
}

#[test]
fn rows_that_each_model_cuts_are_counted() {
    let place = Workplace::new();
    let long = |(text, label): (String, String)| (format!("{text} ").repeat(9), label);
    let rows: Vec<_> = rows(&place.read("train.tsv")).into_iter().map(long).collect();
    place.write("train.tsv", tsv(&rows));
    place.json("cache --teacher teacher --data train.tsv --output cache --force");
    place.json(&format!("{TRAIN} --layers 1 --output first --force"));
    // A student of 32 positions: it reads half of what its teacher reads.
    place.edit_json("first/config.json", |config| config["max_position_embeddings"] = json!(32));
    let mut weights = tensors(&place, "first/model.safetensors");
    let (shape, values) = weights.get_mut("distilbert.embeddings.position_embeddings.weight").expect("positions");
    values.truncate(32 * shape[1]);
    shape[0] = 32;
    write_tensors(&place, "first/model.safetensors", &weights);
    let done = place.run(&format!("{TRAIN} --student first --output student --force"));
    done.succeeded();
    assert!(
        done.stderr.contains("rows the teacher cut ") && done.stderr.contains(" at 64 tokens, "),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains(" at 32 of its own"), "{}", done.stderr);
    let inputs = &place.read_json("student/distill.json")["inputs"];
    assert_eq!([&inputs["max_length"], &inputs["teacher_max_length"]], [&json!(32), &json!(64)]);
    place.refuses(&format!("{TRAIN} --student first --output b --max-length 64 --force"), &["at most 32 tokens"]);
}

#[test]
fn a_cache_stands_for_a_teacher_that_is_not_here() {
    let place = place();
    place.json(&format!("{TRAIN} --student first --output with"));
    std::fs::remove_dir_all(place.path("teacher")).expect("removes");
    let without = TRAIN.replace("--teacher teacher ", "");
    place.json(&format!("{without} --student first --output without"));
    assert_eq!(place.read_bytes("with/model.safetensors"), place.read_bytes("without/model.safetensors"));
    let sizes = "--layers random --num-layers 1 --hidden-size 16 --num-heads 2 --intermediate-size 24";
    place.json(&format!("{without} {sizes} --prune-vocabulary --output fresh"));
    assert_eq!(place.read_json("fresh/config.json")["dim"], 16);
    place.json("evaluate --model fresh --data test.tsv");
    // Whose layers would it start from?
    let expected = ["the teacher is not here", "hint: give --teacher", "--student", "--shape"];
    place.refuses(&format!("{without} --output none"), &expected);
    place.refuses(&format!("{without} --layers random --output none"), &expected);
    place
        .refuses(&format!("{without} --student first --label-names a,b,c,d --output none"), &["knows its class names"]);
    assert!(!place.path("none").exists());
    let neither = place.run("train --data train.tsv --output none");
    assert_eq!(neither.code, Some(2), "{}", neither.stderr);
    assert!(neither.stderr.contains("--teacher <MODEL>"), "{}", neither.stderr);
}

#[test]
fn a_shape_gives_the_sizes_that_no_flag_gives() {
    let place = Workplace::with_cache();
    place.json(&format!("{TRAIN} --layers random --shape tiny --intermediate-size 24 --num-layers 1 --output student"));
    let config = place.read_json("student/config.json");
    assert_eq!(config["model_type"], "bert");
    let sizes = ["num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"];
    assert_eq!(sizes.map(|key| config[key].clone()), [json!(1), json!(128), json!(2), json!(24)]);
    place.json(&format!("{TRAIN} --layers random --shape tiny --model-type distilbert --output other"));
    assert_eq!(place.read_json("other/config.json")["model_type"], "distilbert");
}

#[test]
fn a_pretrained_student_of_another_task_gets_a_new_head() {
    let place = place();
    place.edit_json("first/config.json", |config| config["problem_type"] = json!("multi_label_classification"));
    for flags in ["", "--layers random"] {
        place.json(&format!("{TRAIN} --student first --output student --overwrite {flags}"));
        assert_eq!(place.read_json("student/config.json")["problem_type"], "single_label_classification", "{flags}");
    }
    place.json("evaluate --model student --data test.tsv");
}

#[test]
fn the_length_of_a_student_is_its_own() {
    let place = place();
    place.json(&format!("{TRAIN} --student first --max-length 12 --output student"));
    let inputs = &place.read_json("student/distill.json")["inputs"];
    assert_eq!([&inputs["max_length"], &inputs["teacher_max_length"]], [&json!(12), &json!(64)]);
    let expected = ["layer 5 is not one of the 1 that there are to start from"];
    place.refuses(&format!("{TRAIN} --student first --layers 5 --output none"), &expected);
}
