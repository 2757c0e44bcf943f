//! The places searched for CUDA's libraries, in this order:
//!
//! 1. The folders named in `DISTILL_CUDA_LIBRARIES`; if it is set, nowhere else.
//! 2. The dynamic loader's own places: `LD_LIBRARY_PATH`, its cache, the distribution's folders.
//! 3. What pip and conda installed for `VIRTUAL_ENV`, `CONDA_PREFIX`, the `python3` and `python` on `PATH`, `~/.local` and
//!    `/usr/local`: in each `lib/python3*/site-packages/nvidia/*/lib` (`nvidia/cu13/lib` before `nvidia/cublas/lib`), `lib`
//!    and `targets/*/lib`. No Python is started.
//! 4. CUDA's own folders: `CUDA_HOME`, `CUDA_PATH`, `/usr/local/cuda`, `/usr/local/cuda-*`, `/opt/cuda`; in each `lib64` and
//!    `targets/*/lib`.
//! 5. Folders of distributions and containers that the loader may not know.
//!
//! Of several versions of a folder, the newest comes first. A folder named `stubs` is never used: its libraries are
//! only for linking, and fail when called.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The variable that names folders.
pub(super) const VARIABLE: &str = "DISTILL_CUDA_LIBRARIES";

/// Where libraries may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Wherever the loader looks.
    Loader,
    Folder(PathBuf),
}

/// What the search looks at; a test lays out its own.
pub(super) struct Machine<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// `/`
    pub(super) root: &'a Path,
}

impl Machine<'_> {
    /// All places in their order, without folders that are not there.
    pub(super) fn places(&self) -> Vec<Place> {
        if let Some(named) = self.set(VARIABLE) {
            return std::env::split_paths(&named).filter(|folder| !is_stubs(folder)).map(Place::Folder).collect();
        }
        let mut folders = Vec::new();
        for prefix in self.prefixes() {
            for lib in [prefix.join("lib"), prefix.join("lib64"), prefix.join("local/lib")] {
                for python in newest_first(&lib, "python3") {
                    for packages in ["site-packages", "dist-packages"] {
                        let packages = newest_first(&python.join(packages).join("nvidia"), "");
                        folders.extend(packages.into_iter().map(|package| package.join("lib")));
                    }
                }
            }
            folders.push(prefix.join("lib"));
            folders.extend(targets(&prefix));
        }
        for toolkit in self.toolkits() {
            folders.push(toolkit.join("lib64"));
            folders.extend(targets(&toolkit));
        }
        let architecture = std::env::consts::ARCH;
        for folder in [
            &format!("usr/lib/{architecture}-linux-gnu"),
            "usr/lib64",
            "usr/lib",
            "usr/local/lib",
            "usr/local/nvidia/lib64",
            "usr/local/nvidia/lib",
            "run/opengl-driver/lib",
        ] {
            folders.push(self.root.join(folder));
        }
        let mut places = vec![Place::Loader];
        for folder in folders.into_iter().filter(|folder| folder.is_dir() && !is_stubs(folder)) {
            let place = Place::Folder(folder);
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places
    }

    /// Where Python and its packages may be installed.
    fn prefixes(&self) -> Vec<PathBuf> {
        let mut prefixes: Vec<PathBuf> =
            ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| self.set(name)).map(PathBuf::from).collect();
        if let Some(path) = self.set("PATH") {
            let pythons = ["python3", "python"];
            let python = pythons.iter().find_map(|name| {
                std::env::split_paths(&path).map(|folder| folder.join(name)).find(|python| python.is_file())
            });
            // As it is named, which is a virtual environment's, and as it is: both `PREFIX/bin/python`.
            let resolved = python.as_ref().and_then(|python| python.canonicalize().ok());
            let prefix = |python: &PathBuf| python.parent()?.parent().map(Path::to_path_buf);
            prefixes.extend([python, resolved].iter().flatten().filter_map(prefix));
        }
        prefixes.extend(self.set("HOME").map(|home| PathBuf::from(home).join(".local")));
        prefixes.push(self.root.join("usr/local"));
        prefixes
    }

    /// Where toolkits may be installed.
    fn toolkits(&self) -> Vec<PathBuf> {
        let named = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| self.set(name)).map(PathBuf::from);
        let local = self.root.join("usr/local");
        let versions = newest_first(&local, "cuda-");
        named.chain([local.join("cuda")]).chain(versions).chain([self.root.join("opt/cuda")]).collect()
    }

    /// A variable that is not empty.
    fn set(&self, name: &str) -> Option<OsString> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }
}

/// The folders beside that of one of pip's packages, `nvidia/NAME/lib`, which may have what it needs.
pub(super) fn beside(folder: &Path) -> Vec<PathBuf> {
    let Some(packages) = folder.parent().and_then(Path::parent) else { return Vec::new() };
    if packages.file_name().is_none_or(|name| name != "nvidia") {
        return Vec::new();
    }
    newest_first(packages, "").into_iter().map(|package| package.join("lib")).collect()
}

/// Whether a path leads into a folder of libraries to link against.
pub(super) fn is_stubs(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "stubs")
}

fn targets(prefix: &Path) -> Vec<PathBuf> {
    let mut targets = newest_first(&prefix.join("targets"), "");
    targets.iter_mut().for_each(|target| target.push("lib"));
    targets
}

/// The entries of a folder that begin so, those with the largest numbers in their names first: 3.12 before 3.9.
fn newest_first(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<(Vec<u64>, String)> =
        names.filter(|name| name.starts_with(prefix)).map(|name| (numbers(&name), name)).collect();
    names.sort_by(|(a, a_name), (b, b_name)| b.cmp(a).then_with(|| a_name.cmp(b_name)));
    names.into_iter().map(|(_, name)| folder.join(name)).collect()
}

fn numbers(name: &str) -> Vec<u64> {
    name.split(|letter: char| !letter.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Folders below a temporary root, and variables whose values are below it too; the folders that are found, in their
    /// order, below it.
    fn found(test: &str, folders: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        let root = std::env::temp_dir().join(format!("distill-libraries-{test}-{}", std::process::id()));
        for folder in folders {
            match folder.strip_suffix("/python3") {
                Some(bin) => {
                    std::fs::create_dir_all(root.join(bin)).expect("a folder");
                    std::fs::write(root.join(folder), "").expect("a program");
                }
                None => std::fs::create_dir_all(root.join(folder)).expect("a folder"),
            }
        }
        let variable = |name: &str| {
            let value = variables.iter().find(|(variable, _)| *variable == name)?.1;
            if value.is_empty() {
                return Some(OsString::new());
            }
            Some(std::env::join_paths(value.split(':').map(|part| root.join(part))).expect("paths"))
        };
        let places = Machine { variable: &variable, root: &root }.places();
        let found = places.iter().map(|place| match place {
            Place::Loader => "loader".to_string(),
            Place::Folder(folder) => folder.strip_prefix(&root).expect("below").to_string_lossy().into_owned(),
        });
        let found = found.collect();
        std::fs::remove_dir_all(&root).expect("removed");
        found
    }

    #[test]
    fn what_is_named_is_the_only_place() {
        let folders = ["mine", "usr/local/cuda/lib64"];
        assert_eq!(found("named", &folders, &[(VARIABLE, "mine:other")]), ["mine", "other"]);
        assert_eq!(found("empty", &folders, &[(VARIABLE, "")]), ["loader", "usr/local/cuda/lib64"]);
        assert_eq!(found("named-stubs", &folders, &[(VARIABLE, "cuda/stubs")]), [""; 0]);
    }

    #[test]
    fn places_come_in_the_documented_order() {
        let folders = [
            "venv/lib/python3.9/site-packages/nvidia/cublas/lib",
            "venv/lib/python3.12/site-packages/nvidia/cublas/lib",
            "venv/lib/python3.12/site-packages/nvidia/cu13/lib",
            "conda/targets/x86_64-linux/lib",
            "usr/bin/python3",
            "python/bin/python3",
            "python/lib/python3.11/site-packages/nvidia/cu13/lib",
            "home/.local/lib/python3.11/site-packages/nvidia/cublas/lib",
            "usr/local/lib/python3.10/dist-packages/nvidia/cublas/lib",
            "usr/local/cuda-12.9/lib64/stubs",
            "usr/local/cuda-12.10/targets/x86_64-linux/lib/stubs",
            "opt/cuda/lib64",
            "usr/lib64",
        ];
        let variables =
            [("VIRTUAL_ENV", "venv"), ("CONDA_PREFIX", "conda"), ("PATH", "python/bin:usr/bin"), ("HOME", "home")];
        assert_eq!(
            found("order", &folders, &variables),
            [
                "loader",
                "venv/lib/python3.12/site-packages/nvidia/cu13/lib",
                "venv/lib/python3.12/site-packages/nvidia/cublas/lib",
                "venv/lib/python3.9/site-packages/nvidia/cublas/lib",
                "venv/lib",
                "conda/targets/x86_64-linux/lib",
                "python/lib/python3.11/site-packages/nvidia/cu13/lib",
                "python/lib",
                "home/.local/lib/python3.11/site-packages/nvidia/cublas/lib",
                "home/.local/lib",
                "usr/local/lib/python3.10/dist-packages/nvidia/cublas/lib",
                "usr/local/lib",
                "usr/local/cuda-12.10/targets/x86_64-linux/lib",
                "usr/local/cuda-12.9/lib64",
                "opt/cuda/lib64",
                "usr/lib64",
            ]
        );
    }

    #[test]
    fn the_folders_of_a_toolkit_have_no_neighbours() {
        assert!(beside(Path::new("/usr/local/cuda/lib64")).is_empty());
    }
}
