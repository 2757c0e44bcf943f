//! The cuBLASLt library, opened once, together with the first GPU; `libraries` finds it.
#![expect(unsafe_code, reason = "opens a library, whose interface is C")]

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::sys;
use libloading::Library;

use super::error::DeviceError;
use super::libraries::{self, Machine, Place, VARIABLE};

/// What a call returns: 0 if it is done.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Status(pub(super) c_int);

impl Status {
    pub(super) const ALLOC_FAILED: Self = Self(3);
    pub(super) const NOT_SUPPORTED: Self = Self(15);

    /// Whether the library has done nothing and another way may be tried, as opposed to a failure on the GPU.
    pub(super) fn is_refusal(self) -> bool {
        // No room, a wrong value, another architecture, an error within, not supported.
        matches!(self.0, 3 | 7 | 8 | 14 | 15)
    }

    /// Whether a refusal has to do with the product alone: not for want of memory, or of something within.
    pub(super) fn is_lasting(self) -> bool {
        matches!(self.0, 7 | 8 | 15)
    }

    pub(super) fn done(self) -> Result<(), Self> {
        if self.0 == 0 { Ok(()) } else { Err(self) }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            1 => "NOT_INITIALIZED",
            3 => "ALLOC_FAILED",
            7 => "INVALID_VALUE",
            8 => "ARCH_MISMATCH",
            11 => "MAPPING_ERROR",
            13 => "EXECUTION_FAILED",
            14 => "INTERNAL_ERROR",
            15 => "NOT_SUPPORTED",
            16 => "LICENSE_ERROR",
            code => return write!(f, "status {code}"),
        };
        write!(f, "CUBLAS_STATUS_{name}")
    }
}

/// Declares the functions that are used, by the names that the library has for them.
macro_rules! functions {
    ($($name:ident = $symbol:literal($($type:ty),*) -> $result:ty;)*) => {
        /// The library's functions.
        pub(super) struct CublasLt {
            $(pub(super) $name: unsafe extern "C" fn($($type),*) -> $result,)*
            /// Where it was found; the bare name if that is not known.
            pub(super) path: PathBuf,
            /// Keeps the functions alive.
            _library: Library,
        }

        impl CublasLt {
            fn of(library: Library, path: PathBuf) -> Result<Self, libloading::Error> {
                // SAFETY: the signatures are those of the bindings, made from the library's own headers.
                unsafe {
                    Ok(Self { $($name: *library.get(concat!($symbol, "\0").as_bytes())?,)* path, _library: library })
                }
            }
        }
    };
}

functions! {
    version = "cublasLtGetVersion"() -> usize;
    create = "cublasLtCreate"(*mut sys::cublasLtHandle_t) -> Status;
    destroy = "cublasLtDestroy"(sys::cublasLtHandle_t) -> Status;
    matmul = "cublasLtMatmul"(
        sys::cublasLtHandle_t, sys::cublasLtMatmulDesc_t, *const c_void,
        *const c_void, sys::cublasLtMatrixLayout_t, *const c_void, sys::cublasLtMatrixLayout_t, *const c_void,
        *const c_void, sys::cublasLtMatrixLayout_t, *mut c_void, sys::cublasLtMatrixLayout_t,
        *const sys::cublasLtMatmulAlgo_t, *mut c_void, usize, *mut c_void) -> Status;
    heuristic = "cublasLtMatmulAlgoGetHeuristic"(
        sys::cublasLtHandle_t, sys::cublasLtMatmulDesc_t, sys::cublasLtMatrixLayout_t, sys::cublasLtMatrixLayout_t,
        sys::cublasLtMatrixLayout_t, sys::cublasLtMatrixLayout_t, sys::cublasLtMatmulPreference_t, c_int,
        *mut sys::cublasLtMatmulHeuristicResult_t, *mut c_int) -> Status;
    create_product = "cublasLtMatmulDescCreate"(
        *mut sys::cublasLtMatmulDesc_t, sys::cublasComputeType_t, sys::cudaDataType_t) -> Status;
    destroy_product = "cublasLtMatmulDescDestroy"(sys::cublasLtMatmulDesc_t) -> Status;
    set_product = "cublasLtMatmulDescSetAttribute"(
        sys::cublasLtMatmulDesc_t, sys::cublasLtMatmulDescAttributes_t, *const c_void, usize) -> Status;
    create_layout = "cublasLtMatrixLayoutCreate"(
        *mut sys::cublasLtMatrixLayout_t, sys::cudaDataType, u64, u64, i64) -> Status;
    destroy_layout = "cublasLtMatrixLayoutDestroy"(sys::cublasLtMatrixLayout_t) -> Status;
    set_layout = "cublasLtMatrixLayoutSetAttribute"(
        sys::cublasLtMatrixLayout_t, sys::cublasLtMatrixLayoutAttribute_t, *const c_void, usize) -> Status;
    create_preference = "cublasLtMatmulPreferenceCreate"(*mut sys::cublasLtMatmulPreference_t) -> Status;
    destroy_preference = "cublasLtMatmulPreferenceDestroy"(sys::cublasLtMatmulPreference_t) -> Status;
    set_preference = "cublasLtMatmulPreferenceSetAttribute"(
        sys::cublasLtMatmulPreference_t, sys::cublasLtMatmulPreferenceAttributes_t, *const c_void, usize) -> Status;
}

impl CublasLt {
    /// The library, for a driver made for this version of CUDA; it stays open until the process ends.
    pub(super) fn open(driver: i32) -> Result<&'static Self, DeviceError> {
        static OPEN: Mutex<Option<&'static CublasLt>> = Mutex::new(None);
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = *open {
            return Ok(open);
        }
        let machine = Machine { variable: &|name| std::env::var_os(name), root: Path::new("/") };
        let found = find(&machine.places(), driver)?;
        tracing::info!("cuBLASLt {} from {}", found.release(), found.path.display());
        Ok(open.insert(Box::leak(Box::new(found))))
    }

    /// Its version.
    pub(super) fn release(&self) -> String {
        // SAFETY: takes nothing and returns a number.
        let version = unsafe { (self.version)() };
        format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
    }
}

/// Opens the first library that there is.
fn find(places: &[Place], driver: i32) -> Result<CublasLt, DeviceError> {
    // CUDA 13's takes a driver for CUDA 13; CUDA 12's takes both.
    let versions: &[u32] = if driver >= 13_000 { &[13, 12] } else { &[12] };
    // Why what is there could not be opened.
    let mut refused = Vec::new();
    for place in places {
        for version in versions {
            let name = format!("libcublasLt.so.{version}");
            let opened = match place {
                Place::Loader => by_name(&name),
                Place::Folder(folder) if folder.join(&name).exists() => {
                    let path = folder.join(&name);
                    let folders = [vec![folder.clone()], libraries::beside(folder)].concat();
                    open_with_needs(&path, &folders, 4).map(|library| Some((library, path)))
                }
                Place::Folder(_) => Ok(None),
            };
            let opened = opened.and_then(|found| match found {
                Some((library, path)) => match CublasLt::of(library, path.clone()) {
                    Ok(functions) => Ok(Some(functions)),
                    Err(error) => Err(format!("{}: {}", path.display(), reason(&error))),
                },
                None => Ok(None),
            });
            match opened {
                Ok(Some(functions)) => return Ok(functions),
                Ok(None) => {}
                Err(why) => refused.push(why),
            }
        }
    }
    let names: Vec<String> = versions.iter().map(|version| format!("libcublasLt.so.{version}")).collect();
    let looked = places.iter().map(|place| match place {
        Place::Loader => "where the loader looks (LD_LIBRARY_PATH)".to_string(),
        Place::Folder(folder) => folder.display().to_string(),
    });
    let mut looked: Vec<String> = looked.collect();
    if looked.is_empty() {
        looked.push(format!("nowhere: {VARIABLE} names no folder but stubs"));
    }
    Err(DeviceError::NoBlas { names: names.join(" or "), looked: looked.join(", "), refused })
}

/// Opens what the loader finds by this name; nothing if it finds none.
fn by_name(name: &str) -> Result<Option<(Library, PathBuf)>, String> {
    // SAFETY: opens NVIDIA's library, which runs its initialisers and nothing else.
    let library = match unsafe { Library::new(name) } {
        Ok(library) => library,
        Err(error) if missing(&reason(&error)) == Some(name) => return Ok(None),
        Err(error) => return Err(reason(&error)),
    };
    let path = mapped(name).unwrap_or_else(|| PathBuf::from(name));
    if libraries::is_stubs(&path) {
        return Err(format!("{}: a library to link against, which computes nothing", path.display()));
    }
    Ok(Some((library, path)))
}

/// Opens a library by its path. What it needs and the loader does not find is opened before, from these folders: what is
/// open already is found by its name.
fn open_with_needs(path: &Path, folders: &[PathBuf], depth: usize) -> Result<Library, String> {
    let mut opened = Vec::new();
    loop {
        // SAFETY: opens NVIDIA's library or one that it needs, which runs its initialisers and nothing else.
        let why = match unsafe { Library::new(path) } {
            Ok(library) => {
                // What it needs stays open as long as it does: until the process ends.
                opened.into_iter().for_each(std::mem::forget::<Library>);
                return Ok(library);
            }
            Err(error) => reason(&error),
        };
        let needed =
            missing(&why).and_then(|name| folders.iter().map(|folder| folder.join(name)).find(|f| f.is_file()));
        match needed {
            Some(needed) if depth > 0 && opened.len() < 16 => {
                opened.push(open_with_needs(&needed, folders, depth - 1)?);
            }
            _ => return Err(format!("{}: {why}", path.display())),
        }
    }
}

/// The library that the loader says it did not find.
fn missing(why: &str) -> Option<&str> {
    let (name, rest) = why.split_once(": ")?;
    (rest.starts_with("cannot open shared object file") && !name.contains('/')).then_some(name)
}

/// The loader's own words.
fn reason(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The file that stands in this process' memory under this name, or as a version of it.
fn mapped(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let found = paths.find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)));
    found.map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A folder that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("distill-cublaslt-{test}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).expect("a folder");
            Self(folder)
        }

        /// Compiles a library that needs these others, which stand in the folder `needs`, without a word where they are.
        fn compile(&self, file: &str, source: &str, needs: &[&str]) -> Option<()> {
            let path = self.0.join(file);
            std::fs::create_dir_all(path.parent()?).expect("a folder");
            let c = path.with_extension("c");
            std::fs::write(&c, source).expect("a source");
            let soname = path.file_name()?.to_string_lossy().into_owned();
            let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_string());
            let mut command = Command::new(compiler);
            command.args(["-shared", "-fPIC", "-Wl,--no-as-needed", &format!("-Wl,-soname,{soname}"), "-o"]);
            command.arg(&path).arg(&c).args(needs.iter().map(|file| self.0.join(file)));
            command.status().ok()?.success().then_some(())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// All functions that are looked up; the version is this number.
    fn source(version: u32) -> String {
        let names = [
            "Create",
            "Destroy",
            "Matmul",
            "MatmulAlgoGetHeuristic",
            "MatmulDescCreate",
            "MatmulDescDestroy",
            "MatmulDescSetAttribute",
            "MatrixLayoutCreate",
            "MatrixLayoutDestroy",
            "MatrixLayoutSetAttribute",
            "MatmulPreferenceCreate",
            "MatmulPreferenceDestroy",
            "MatmulPreferenceSetAttribute",
        ];
        let functions: String =
            names.iter().map(|name| format!("int cublasLt{name}(void) {{ return 15; }}\n")).collect();
        format!("{functions}unsigned long cublasLtGetVersion(void) {{ return {version}; }}\n")
    }

    fn places(folder: &Folder, names: &[&str]) -> Vec<Place> {
        names.iter().map(|name| Place::Folder(folder.0.join(name))).collect()
    }

    #[test]
    fn the_version_follows_the_driver_and_the_first_folder_wins() {
        let folder = Folder::new("versions");
        let compiled =
            [("a/libcublasLt.so.12", 120_805), ("b/libcublasLt.so.13", 130_100), ("b/libcublasLt.so.12", 120_000)]
                .into_iter()
                .try_for_each(|(file, version)| folder.compile(file, &source(version), &[]));
        let Some(()) = compiled else { return };
        let found = |names: &[&str], driver| {
            let found = find(&places(&folder, names), driver).expect("found");
            (found.path.strip_prefix(&folder.0).expect("below").to_string_lossy().into_owned(), found.release())
        };
        let expected = |path: &str, release: &str| (path.to_string(), release.to_string());
        assert_eq!(found(&["none", "b"], 13_000), expected("b/libcublasLt.so.13", "13.1.0"));
        assert_eq!(found(&["b", "a"], 12_080), expected("b/libcublasLt.so.12", "12.0.0"));
        assert_eq!(found(&["a", "b"], 13_000), expected("a/libcublasLt.so.12", "12.8.5"));
    }

    #[test]
    fn what_it_needs_is_opened_from_its_folder_and_its_neighbours() {
        let folder = Folder::new("needs");
        let compiled = folder
            .compile("nvidia/far/lib/libdistill_far.so.1", "int far_away(void) { return 1; }\n", &[])
            .and_then(|()| {
                let needs = ["nvidia/far/lib/libdistill_far.so.1"];
                folder.compile("nvidia/cu13/lib/libdistill_near.so.1", "int near_by(void) { return 1; }\n", &needs)
            })
            .and_then(|()| {
                let needs = ["nvidia/cu13/lib/libdistill_near.so.1"];
                folder.compile("nvidia/cu13/lib/libcublasLt.so.13", &source(130_000), &needs)
            });
        let Some(()) = compiled else { return };
        let found = find(&places(&folder, &["nvidia/cu13/lib"]), 13_000).map(|found| found.release());
        assert_eq!(found.map_err(|error| error.to_string()), Ok("13.0.0".to_string()));
    }

    #[test]
    fn the_error_says_where_it_looked_and_what_it_could_not_open() {
        let folder = Folder::new("refused");
        for file in ["a", "b"] {
            std::fs::create_dir_all(folder.0.join(file)).expect("a folder");
        }
        std::fs::write(folder.0.join("b/libcublasLt.so.12"), "no library").expect("a file");
        let Err(error) = find(&places(&folder, &["a", "b"]), 12_040) else { panic!("nothing is there") };
        let (error, b) = (error.to_string(), folder.0.join("b").display().to_string());
        assert!(error.contains(&format!("{}, {b}", folder.0.join("a").display())), "{error}");
        assert!(error.contains(&format!("{b}/libcublasLt.so.12: ")) && error.contains(VARIABLE), "{error}");
        assert!(error.starts_with("cuBLASLt was not found (libcublasLt.so.12)"), "{error}");
    }

    #[test]
    fn a_missing_library_is_known_by_the_loader_s_words() {
        assert_eq!(missing("libx.so.1: cannot open shared object file: No such file or directory"), Some("libx.so.1"));
        assert_eq!(missing("/a/libx.so.1: cannot open shared object file: No such file or directory"), None);
        assert_eq!(missing("/a/libx.so.1: file too short"), None);
    }
}
