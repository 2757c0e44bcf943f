//! What the layout promises: which crate may use which, and no file that only makes sense on one machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::imports::Imports;
use crate::support::repository;

/// Every crate with its folder and the ones of ours that it uses.
const ARROWS: [(&str, &str, &[&str]); 6] = [
    ("datasets", "datasets", &[]),
    ("cache", "teacher/cache", &[]),
    ("nn", "student/nn", &[]),
    ("teacher", "teacher", &["nn"]),
    ("student", "student", &["nn"]),
    ("distill", "distill", &["cache", "datasets", "nn", "student", "teacher"]),
];

fn manifest(folder: &Path) -> toml::Table {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.parse().expect("TOML")
}

#[test]
fn crates_use_each_other_along_the_arrows_alone() {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, ..)| *name).collect();
    for (name, folder, expected) in ARROWS {
        let manifest = manifest(&repository().join(folder));
        assert_eq!(manifest["package"]["name"].as_str(), Some(name));
        let used = |kind: &str| {
            let table = manifest.get(kind).and_then(toml::Value::as_table).cloned().unwrap_or_default();
            table.keys().map(String::to_owned).filter(|name| ours.contains(name.as_str())).collect::<BTreeSet<_>>()
        };
        let used: BTreeSet<_> =
            ["dependencies", "dev-dependencies", "build-dependencies"].into_iter().flat_map(used).collect();
        assert_eq!(used, expected.iter().map(|name| (*name).to_owned()).collect(), "what {name} uses");
    }
}

#[test]
fn every_crate_is_on_the_list() {
    let workspace = manifest(&repository());
    let members = workspace["workspace"]["members"].as_array().expect("a list");
    let members: BTreeSet<&str> = members.iter().filter_map(toml::Value::as_str).collect();
    assert_eq!(members, ARROWS.iter().map(|(_, folder, _)| *folder).collect());
}

fn nn() -> Imports {
    let imports = Imports::of(&repository().join("student/nn/src"));
    assert!(imports.texts.len() > 60, "only {} files", imports.texts.len());
    imports
}

#[test]
fn no_files_of_a_crate_import_each_other_in_a_circle() {
    let of = |folder: &str| Imports::of(&repository().join(folder));
    let (teacher, cache, student) = (of("teacher/src"), of("teacher/cache/src"), of("student/src"));
    for (name, imports) in [
        ("datasets", of("datasets/src")),
        ("teacher", teacher),
        ("cache", cache),
        ("nn", nn()),
        ("student", student),
        ("distill", distill()),
    ] {
        assert_eq!(imports.circle(), None, "in {name}");
    }
}

/// A part of `nn`, and all that it may import; an exclamation mark forbids instead.
const PARTS: [(&str, &[&str]); 7] = [
    ("value", &[]),
    ("slot", &[]),
    ("op", &["op", "random", "slot", "value"]),
    ("program", &["error", "op", "parameters", "program", "slot", "value"]),
    ("family", &["config", "error", "family", "hf::fields", "op", "program", "slot", "value"]),
    ("cpu", &["!cuda", "!family", "!model", "!twin"]),
    // The emulated device has no cuBLASLt, and its checks compare with the CPU's engine.
    ("cuda", &["!cpu", "cpu::adamw", "cpu::product", "!family", "!model", "!twin"]),
];

#[test]
fn the_parts_of_nn_import_what_they_may() {
    let imports = nn();
    let within = |module: &str, part: &str| module == part || module.starts_with(&format!("{part}::"));
    for (part, rules) in PARTS {
        let forbids = rules.iter().any(|rule| rule.starts_with('!'));
        let files = imports.edges.iter().filter(|(module, _)| within(module, part) && !module.contains("verify"));
        for (module, target) in files.flat_map(|(module, targets)| targets.iter().map(move |target| (module, target))) {
            let allowed = rules.iter().any(|rule| within(target, rule));
            let forbidden = rules.iter().any(|rule| rule.strip_prefix('!').is_some_and(|rule| within(target, rule)));
            assert!(allowed || forbids && !forbidden, "{module} imports {target}; see ARCHITECTURE.md");
        }
    }
}

fn distill() -> Imports {
    let imports = Imports::of(&repository().join("distill/src"));
    assert!(imports.texts.len() > 60, "only {} files", imports.texts.len());
    imports
}

/// A part of `distill`, and all that may import it besides its own files.
const IMPORTED_BY: [(&str, &[&str]); 3] = [
    ("cli", &["commands"]),
    // The command line calls commands, from `main`; commands call jobs and not each other.
    ("commands", &[]),
    ("jobs", &["cli", "commands"]),
];

#[test]
fn commands_parse_and_print_and_jobs_know_no_flags() {
    let imports = distill();
    let room = |module: &str| module.split("::").next().unwrap_or_default().to_string();
    for (module, target) in imports.edges.iter().flat_map(|(from, to)| to.iter().map(move |to| (from, to))) {
        let rule = IMPORTED_BY.iter().find(|(part, _)| *part == room(target));
        let Some((part, importers)) = rule else { continue };
        let own = room(module) == *part && *part != "commands";
        assert!(
            own || importers.contains(&room(module).as_str()),
            "{module} imports {target}; see ARCHITECTURE.md, distill"
        );
    }
    for (module, text) in &imports.texts {
        assert!(
            !text.contains("clap") || room(module) == "cli" || module.is_empty(),
            "{module} knows clap, which is for cli"
        );
    }
}

#[test]
fn a_family_is_named_where_a_person_names_one_and_nowhere_else() {
    let may_name = |path: &str| {
        path.starts_with("student/nn/src/family")
            || path.contains("tests")
            || path.contains("parity")
            || path == "distill/src/recipe/family.rs"
    };
    let mut named = 0;
    for folder in ["datasets/src", "teacher/src", "teacher/cache/src", "student/src", "student/nn/src", "distill/src"] {
        for (module, text) in Imports::of(&repository().join(folder)).texts {
            let path = format!("{folder}/{}.rs", module.replace("::", "/"));
            let names = text.match_indices("Family::").map(|(at, found)| &text[at + found.len()..]);
            let constant = |name: &str| name.chars().take_while(|c| c.is_ascii_uppercase()).count() > 2;
            for name in names.filter(|name| constant(name) && !name.starts_with("ALL")) {
                named += 1;
                assert!(
                    may_name(&path) || path.contains("verify"),
                    "{path} names Family::{}",
                    &name[..12.min(name.len())]
                );
            }
        }
    }
    assert!(named > 4, "the families were looked for and not found");
}

#[test]
fn nothing_but_the_two_engines_runs_a_pass() {
    // Their common face, the twin of the tests, and the count of a pass's operations.
    let others = ["model", "session", "twin", "flops"];
    for (module, text) in nn().texts {
        let passes = ["fn forward(", "fn backward("].iter().any(|name| text.contains(name));
        let engine = module.starts_with("cpu::") || module.starts_with("cuda::");
        assert!(!passes || engine || others.contains(&module.as_str()), "{module} has a pass of its own");
    }
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    // Put together here, so that this file does not name them either.
    let forbidden =
        [["/work/", "shared"], ["/work/", "main"], ["/work/.", "library"], ["/root", "/"]].map(|parts| parts.concat());
    let mut seen = 0;
    for path in text_files(&repository()) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        seen += 1;
        for (number, line) in text.lines().enumerate() {
            let found = forbidden.iter().find(|path| line.contains(path.as_str()));
            assert_eq!(found, None, "{}, line {}", path.display(), number + 1);
        }
    }
    assert!(seen > 100, "only {seen} files were looked at");
}

/// Sources, documents and scripts below a folder, what was built left out.
fn text_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("lists").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().expect("a name").to_string_lossy().into_owned();
        // Git's is a file where the folder is one worktree of several.
        if ["target", ".git"].contains(&name.as_str()) {
            continue;
        }
        if entry.is_dir() {
            files.extend(text_files(&entry));
        }
        let extension = entry.extension().map(|extension| extension.to_string_lossy().into_owned());
        // `.ci/run` and the like have none.
        let textual =
            extension.is_none_or(|ext| ["rs", "md", "toml", "sh", "py", "snap", "json"].contains(&ext.as_str()));
        if entry.is_file() && textual {
            files.push(entry);
        }
    }
    files
}
