//! Which file of a crate imports which: read from the `use` lines, re-exports followed to the file that defines the item.
//!
//! Tests are left out, and so is what a parent re-exports of its children.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The files of a crate's `src`, by module path (`cpu::op::linear`; the root is empty), and what each imports.
pub(crate) struct Imports {
    /// Without comments and tests.
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) edges: BTreeMap<String, BTreeSet<String>>,
}

impl Imports {
    pub(crate) fn of(source: &Path) -> Self {
        let mut texts = BTreeMap::new();
        collect(source, source, &mut texts);
        let tests: Vec<String> = texts.iter().flat_map(|(module, text)| test_modules(module, text)).collect();
        texts.retain(|module, _| !tests.iter().any(|test| module == test || module.starts_with(&format!("{test}::"))));
        let uses: BTreeMap<&str, Vec<Use>> = texts.iter().map(|(module, text)| (module.as_str(), uses(text))).collect();
        let resolver = Resolver { texts: &texts, uses: &uses };
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, text) in &texts {
            // The root re-exports everything and computes nothing.
            for import in uses[module.as_str()].iter().filter(|_| !module.is_empty()) {
                let path = absolute(module, &import.path);
                let Some(target) = path.and_then(|path| resolver.file_of(&path, 0)) else { continue };
                let re_exported = import.public && !mentions(&without_uses(text), import.name());
                if target != *module && !target.is_empty() && !re_exported {
                    edges.entry(module.clone()).or_default().insert(target);
                }
            }
        }
        Self { texts, edges }
    }

    /// A circle of files that import each other, if there is one.
    pub(crate) fn circle(&self) -> Option<Vec<String>> {
        let mut done = BTreeSet::new();
        self.texts.keys().find_map(|module| self.circle_from(module, &mut Vec::new(), &mut done))
    }

    fn circle_from(&self, module: &str, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|earlier| earlier == module) {
            return Some(way[start..].to_vec());
        }
        if done.contains(module) {
            return None;
        }
        way.push(module.to_string());
        let found = self.edges.get(module).into_iter().flatten().find_map(|next| self.circle_from(next, way, done));
        way.pop();
        done.insert(module.to_string());
        found
    }
}

/// One imported path.
struct Use {
    /// Of `use a::{b, c::d as e}`: `a::b`, or `a::c::d`.
    path: String,
    alias: Option<String>,
    public: bool,
}

impl Use {
    fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or_else(|| self.path.rsplit("::").next().unwrap_or_default())
    }
}

struct Resolver<'a> {
    texts: &'a BTreeMap<String, String>,
    uses: &'a BTreeMap<&'a str, Vec<Use>>,
}

impl Resolver<'_> {
    /// The file that defines what a path from the crate's root means.
    fn file_of(&self, path: &str, depth: usize) -> Option<String> {
        let segments: Vec<&str> = path.split("::").filter(|segment| !segment.is_empty()).collect();
        for known in (0..=segments.len()).rev() {
            let module = segments[..known].join("::");
            let Some(&item) = segments.get(known) else {
                if self.texts.contains_key(&module) {
                    return Some(module);
                }
                continue;
            };
            if let Some(uses) = self.uses.get(module.as_str()) {
                let mut public = uses.iter().filter(|import| import.public && depth < 8);
                let behind =
                    public.find(|import| import.name() == item).and_then(|import| absolute(&module, &import.path));
                let rest = segments[known + 1..].join("::");
                return behind.and_then(|path| self.file_of(&format!("{path}::{rest}"), depth + 1)).or(Some(module));
            }
            // A module within its parent's file, whose items stand in files of a folder.
            let folder = format!("{module}::");
            let mut inside = self.texts.iter().filter(|(file, _)| !module.is_empty() && file.starts_with(&folder));
            if let Some((file, _)) = inside.find(|(_, text)| defines(text, item)) {
                return Some(file.clone());
            }
        }
        None
    }
}

/// Every source file below a folder, tests left out.
fn collect(root: &Path, folder: &Path, texts: &mut BTreeMap<String, String>) {
    for path in fs::read_dir(folder).expect("lists").map(|entry| entry.expect("an entry").path()) {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        if name == "tests" {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let parts = path.strip_prefix(root).expect("below").with_extension("");
            let parts = parts.iter().map(|part| part.to_string_lossy().into_owned());
            let module: Vec<String> = parts.filter(|part| !["mod", "lib", "main"].contains(&part.as_str())).collect();
            texts.insert(module.join("::"), plain(&fs::read_to_string(&path).expect("a source")));
        }
    }
}

/// The modules that a source declares for tests alone, in files of their own.
fn test_modules(module: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]").filter_map(|pair| {
        let name = pair[1].trim_start_matches("pub(crate) ").strip_prefix("mod ")?.strip_suffix(';')?;
        Some(if module.is_empty() { name.to_string() } else { format!("{module}::{name}") })
    });
    declared.collect()
}

/// A source without comments and without modules of tests.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let next =
            lines.peek().map_or("", |next| next.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) "));
        if line.trim() == "#[cfg(test)]" && next.starts_with("mod ") && next.ends_with('{') {
            lines.by_ref().find(|line| *line == "}");
            continue;
        }
        plain.push_str(line.split("//").next().unwrap_or_default());
        plain.push('\n');
    }
    plain
}

fn is_use(statement: &str) -> bool {
    let statement = statement.trim_start();
    statement.starts_with("use ") || statement.starts_with("pub") && statement.contains(" use ")
}

/// The code, without imports and declarations of modules.
fn without_uses(text: &str) -> String {
    let declares = |line: &str| line.trim_start().trim_start_matches("pub(crate) ").starts_with("mod ");
    let code = text.split(';').filter(|statement| !statement.lines().any(|line| is_use(line) || declares(line)));
    code.collect::<Vec<_>>().join(";")
}

/// What a source imports by `use`, and by paths from the crate's root within its code.
fn uses(text: &str) -> Vec<Use> {
    let mut uses = Vec::new();
    for statement in text.split(';') {
        let Some(start) = statement.lines().position(is_use) else { continue };
        let statement: String = statement.lines().skip(start).map(str::trim).collect::<Vec<_>>().join(" ");
        let (before, tree) = statement.split_once("use ").expect("a use");
        expand("", tree.trim(), before.trim_start().starts_with("pub"), &mut uses);
    }
    // What is named through an imported module or a child: `op::embed::run::forward`.
    let modules: Vec<(String, String)> =
        uses.iter().map(|import| (import.name().to_string(), import.path.clone())).collect();
    let children =
        text.lines().filter_map(|line| line.trim().trim_end_matches(';').rsplit_once("mod ").map(|(_, name)| name));
    let children = children.map(|name| (name.to_string(), name.to_string()));
    for (name, path) in modules.into_iter().chain(children).filter(|(name, _)| name.starts_with(char::is_lowercase)) {
        let code = without_uses(text);
        for (at, _) in code.match_indices(&format!("{name}::")) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                let behind =
                    code[at + name.len()..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next();
                let path = format!("{path}{}", behind.unwrap_or_default().trim_end_matches(':'));
                uses.push(Use { path, alias: None, public: false });
            }
        }
    }
    // `pub(in crate::a)` imports nothing.
    for (at, _) in text.match_indices("crate::").filter(|(at, _)| !text[..*at].ends_with("(in ")) {
        let path = text[at..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap_or_default();
        // The trees of `use` were read above.
        if path.ends_with("::") {
            continue;
        }
        uses.push(Use { path: path.trim_end_matches(':').to_string(), alias: None, public: false });
    }
    uses
}

/// Adds the paths of `a::{b, c::{d, e}}`.
fn expand(prefix: &str, tree: &str, public: bool, uses: &mut Vec<Use>) {
    let tree = tree.trim();
    if let Some((head, rest)) = tree.split_once('{') {
        let inner = &rest[..rest.rfind('}').unwrap_or(rest.len())];
        let (mut depth, mut start) = (0, 0);
        for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&format!("{prefix}{head}"), &inner[start..at], public, uses);
                    start = (at + 1).min(inner.len());
                }
                _ => {}
            }
        }
    } else if !tree.is_empty() {
        let (path, alias) =
            tree.split_once(" as ").map_or((tree, None), |(path, alias)| (path, Some(alias.to_string())));
        let path = format!("{prefix}{path}");
        uses.push(Use { path: path.trim_end_matches("::self").to_string(), alias, public });
    }
}

/// A path as seen from a module, from the crate's root; none where it leads out of the crate.
fn absolute(module: &str, path: &str) -> Option<String> {
    let mut base: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut segments = path.split("::").peekable();
    match *segments.peek()? {
        "crate" => {
            segments.next();
            base.clear();
        }
        "self" => _ = segments.next(),
        "super" => {
            while segments.next_if_eq(&"super").is_some() {
                base.pop();
            }
        }
        // A child, by its bare name; crates' names are no files and lead nowhere.
        first if first.starts_with(char::is_lowercase) && !["std", "core"].contains(&first) => {}
        _ => return None,
    }
    Some(base.into_iter().chain(segments).collect::<Vec<_>>().join("::"))
}

fn defines(text: &str, item: &str) -> bool {
    ["struct", "enum", "fn", "const", "trait", "type", "static"].iter().any(|kind| mentions(text, &format!("{kind} {item}")))
        // What a macro declares.
        || text.contains(&format!("\n    {item}("))
}

/// Whether a text has these words, not as part of longer ones.
fn mentions(text: &str, words: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut matches = text.match_indices(words);
    matches.any(|(at, _)| !is_part(text[..at].chars().next_back()) && !is_part(text[at + words.len()..].chars().next()))
}

#[test]
fn imports_are_followed_to_the_file_that_defines_the_item() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("written");
    };
    write("lib.rs", "mod a;\nmod b;\npub use b::{inner::Deep, Other as Another};\n");
    write("c.rs", "use crate::a;\nfn c() { a::helper() }\n");
    write(
        "a.rs",
        "// use crate::nothing;\nuse crate::{Deep, b::Other};\nuse std::fs;\nstruct A;\n#[cfg(test)]\nmod tests {\n    use crate::c::C;\n}\n",
    );
    write("b.rs", "mod inner;\npub use inner::Deep;\npub struct Other;\n");
    write("b/inner.rs", "pub struct Deep;\n");
    write("d.rs", "#[cfg(test)]\nmod checks;\n");
    write("d/checks.rs", "use crate::c;\n");
    let imports = Imports::of(folder.path());
    assert_eq!(imports.edges.keys().collect::<Vec<_>>(), ["a", "c"], "{:?}", imports.edges);
    assert_eq!(imports.edges["c"].iter().collect::<Vec<_>>(), ["a"]);
    assert_eq!(imports.edges["a"].iter().collect::<Vec<_>>(), ["b", "b::inner"]);
    assert_eq!(imports.circle(), None);
    write("b/inner.rs", "use crate::a::A;\npub struct Deep;\n");
    assert_eq!(Imports::of(folder.path()).circle().expect("a circle"), ["a", "b::inner"]);
}
