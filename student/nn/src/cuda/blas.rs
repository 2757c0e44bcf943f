//! Matrix products on a GPU with cuBLASLt, with the algorithm cached for each shape.
//!
//! cuBLASLt is column-major. A row-major `c = a b` is its `c^T = b^T a^T`: the operands are swapped, and no data is
//! moved.
#![expect(unsafe_code, reason = "cuBLASLt's interface is C")]

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{c_int, c_void};

use cudarc::cublaslt::sys;
use cudarc::driver::sys::CUstream;

use super::cublaslt::{CublasLt, Status};
use super::operand::{Matrix, Number, Ptr};
use super::work::Matmul;

/// What cuBLASLt may use for itself; more brings nothing on any GPU so far, by NVIDIA's own advice.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;

/// Algorithms that the library is asked for, best first; nearly always the first one serves.
const ALGORITHMS: usize = 8;

/// The library with its plans.
pub(super) struct Blas {
    library: &'static CublasLt,
    handle: sys::cublasLtHandle_t,
    workspace: Ptr,
    stream: CUstream,
    /// With the number of tokens rounded up, and as it is where the rounded one's algorithm refuses it. Nothing where the
    /// library knows no algorithm.
    plans: HashMap<Shape, Result<Plan, Status>>,
    /// Refused shapes, rounded and [anywhere](Shape::anywhere), that a person has been told of.
    named: HashSet<Shape>,
    /// None where the library's first algorithm is taken.
    tuning: Option<Tuning>,
}

/// Algorithms chosen by timing.
struct Tuning {
    /// By what their shapes, rounded, are called.
    algorithms: BTreeMap<String, usize>,
    /// The same for shapes that were met, those of which there is but one algorithm included.
    met: HashMap<Shape, usize>,
}

// SAFETY: handles of the library serve any thread, one at a time.
unsafe impl Send for Blas {}

/// All that the choice of an algorithm depends on: a product whose addresses are only what they are aligned to, in bytes,
/// at most 256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape(Matmul);

/// Descriptors and algorithms of one shape.
struct Plan {
    library: &'static CublasLt,
    product: sys::cublasLtMatmulDesc_t,
    /// Of `a`, `b` and `c`.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithms: Vec<sys::cublasLtMatmulAlgo_t>,
    /// The first that has not refused the shape itself.
    next: usize,
}

/// Which algorithms of a plan are tried. Which one computes a product follows from its shape alone, whatever was computed
/// before: a run that is resumed must come to the same bits.
#[derive(Clone, Copy, PartialEq)]
enum Attempt {
    /// The one with this number, for a shape that was rounded up to the plan's.
    One(usize),
    /// All in turn, for the plan's own shape.
    Each,
}

impl Blas {
    /// Takes the library; the driver's context is current, and the workspace has [`WORKSPACE_BYTES`].
    pub(super) fn open(library: &'static CublasLt, stream: CUstream, workspace: Ptr) -> Result<Self, Status> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes a handle to where it is told; `drop` destroys it.
        unsafe { (library.create)(&mut handle) }.done()?;
        Ok(Self { library, handle, workspace, stream, plans: HashMap::new(), named: HashSet::new(), tuning: None })
    }

    /// Version and file.
    pub(super) fn library(&self) -> String {
        format!("cuBLASLt {}, {}", self.release(), self.library.path.display())
    }

    /// Version.
    pub(super) fn release(&self) -> String {
        self.library.release()
    }

    /// Has algorithms chosen by timing, starting from these choices; or, without any, takes the library's first.
    pub(super) fn tune(&mut self, choices: Option<BTreeMap<String, usize>>) {
        self.tuning = choices.map(|algorithms| Tuning { algorithms, met: HashMap::new() });
    }

    /// What was chosen by timing, by the names of shapes.
    pub(super) fn choices(&self) -> Option<&BTreeMap<String, usize>> {
        self.tuning.as_ref().map(|tuning| &tuning.algorithms)
    }

    /// How many algorithms of a product are to be timed: none if its choice is made, or if there is none.
    pub(super) fn untimed(&mut self, matmul: &Matmul) -> usize {
        let rounded = Shape::of(matmul).rounded();
        let key = rounded.overwriting();
        let Some(tuning) = self.tuning.as_mut().filter(|tuning| !tuning.met.contains_key(&key)) else { return 0 };
        if let Some(&algorithm) = tuning.algorithms.get(&key.to_string()) {
            tuning.met.insert(key, algorithm);
            return 0;
        }
        let count = self.plan(rounded, matmul.bias).as_ref().map_or(0, |plan| plan.algorithms.len());
        if let (Some(tuning), 0 | 1) = (&mut self.tuning, count) {
            tuning.met.insert(key, 0);
            return 0;
        }
        count
    }

    /// Runs one algorithm of a product's, with an output that may stand somewhere else: aligned no worse.
    pub(super) fn try_algorithm(&mut self, matmul: &Matmul, output: Ptr, algorithm: usize) -> Result<(), Status> {
        let elsewhere = Matmul { c: Matrix { at: output, ..matmul.c }, ..*matmul };
        self.run(Shape::of(matmul).rounded(), &elsewhere, Attempt::One(algorithm))
    }

    /// From now on takes this algorithm for products of this shape.
    pub(super) fn choose(&mut self, matmul: &Matmul, algorithm: usize) {
        let key = Shape::of(matmul).rounded().overwriting();
        if let Some(tuning) = &mut self.tuning {
            tuning.algorithms.insert(key.to_string(), algorithm);
            tuning.met.insert(key, algorithm);
        }
    }

    /// Computes a product, or says why no algorithm does.
    pub(super) fn matmul(&mut self, matmul: &Matmul) -> Result<(), Status> {
        let shape = Shape::of(matmul);
        let rounded = shape.rounded();
        // What it refuses is computed as if nothing had been chosen.
        if let Some(&chosen @ 1..) = self.tuning.as_ref().and_then(|tuning| tuning.met.get(&rounded.overwriting())) {
            match self.run(rounded, matmul, Attempt::One(chosen)) {
                Err(status) if status.is_refusal() => {}
                result => return result,
            }
        }
        if rounded != shape && !self.plans.contains_key(&shape) {
            match self.run(rounded, matmul, Attempt::One(0)) {
                // The algorithm was chosen for a somewhat larger shape.
                Err(status) if status.is_refusal() => {}
                result => return result,
            }
        }
        self.run(shape, matmul, Attempt::Each)
    }

    /// Tells a person, once for shapes that round to the same wherever they stand, that the library refuses this one and what is done instead.
    pub(super) fn name_once(&mut self, matmul: &Matmul, refusal: Status, instead: &str) {
        if self.named.insert(Shape::of(matmul).rounded().anywhere()) {
            let bias = if matmul.bias.is_some() { " with a bias" } else { "" };
            let release = self.library.release();
            tracing::warn!("cuBLASLt {release} refuses the product {matmul}{bias} ({refusal}): {instead}");
        }
    }

    /// The plan of this shape, made if there is none.
    fn plan(&mut self, shape: Shape, bias: Option<Ptr>) -> &mut Result<Plan, Status> {
        match self.plans.entry(shape) {
            Entry::Occupied(plan) => plan.into_mut(),
            Entry::Vacant(place) => place.insert(Plan::new(self.library, self.handle, shape, bias)),
        }
    }

    /// Computes a product by the plan of this shape.
    fn run(&mut self, shape: Shape, matmul: &Matmul, attempt: Attempt) -> Result<(), Status> {
        let (library, handle, workspace, stream) = (self.library, self.handle, self.workspace, self.stream);
        let plan = self.plan(shape, matmul.bias).as_mut().map_err(|status| *status)?;
        let Matmul { a, b, c, .. } = *matmul;
        for (layout, matrix) in plan.layouts.into_iter().zip([a, b, c]) {
            let attribute = sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_COLS;
            let rows = matrix.rows as u64;
            // SAFETY: the layout is alive, and the attribute one 64-bit number.
            unsafe {
                let value = std::ptr::from_ref(&rows).cast();
                (library.set_layout)(layout, attribute, value, size_of::<u64>())
            }
            .done()?;
        }
        if let Some(bias) = matmul.bias {
            plan.set(sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.0)?;
        }
        let (alpha, beta) = (1.0f32, if matmul.accumulate { 1.0f32 } else { 0.0 });
        let [layout_a, layout_b, layout_c] = plan.layouts;
        let tried = match attempt {
            Attempt::One(number) => number..plan.algorithms.len().min(number + 1),
            Attempt::Each => plan.next..plan.algorithms.len(),
        };
        let mut refusal = Status::NOT_SUPPORTED;
        for index in tried {
            // SAFETY: all descriptors are alive; the caller answers for the matrices' addresses and sizes.
            let status = unsafe {
                (library.matmul)(
                    handle,
                    plan.product,
                    std::ptr::from_ref(&alpha).cast(),
                    b.at.0 as *const c_void,
                    layout_b,
                    a.at.0 as *const c_void,
                    layout_a,
                    std::ptr::from_ref(&beta).cast(),
                    c.at.0 as *const c_void,
                    layout_c,
                    c.at.0 as *mut c_void,
                    layout_c,
                    &plan.algorithms[index],
                    workspace.0 as *mut c_void,
                    WORKSPACE_BYTES,
                    stream.cast(),
                )
            };
            match status.done() {
                Err(status) if status.is_refusal() => refusal = status,
                result => return result,
            }
            // What may pass leaves the choice as it is: it follows from the shape.
            if attempt == Attempt::Each && refusal.is_lasting() && plan.next == index {
                plan.next = index + 1;
            }
        }
        Err(refusal)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        self.plans.clear();
        // SAFETY: destroyed once; the plans are gone.
        let _ = unsafe { (self.library.destroy)(self.handle) };
    }
}

impl Shape {
    fn of(matmul: &Matmul) -> Self {
        let alignment = |at: Ptr| Ptr(1 << at.0.trailing_zeros().min(8));
        let [a, b, c] = [matmul.a, matmul.b, matmul.c].map(|matrix| Matrix { at: alignment(matrix.at), ..matrix });
        Self(Matmul { a, b, c, bias: matmul.bias.map(alignment), ..*matmul })
    }

    /// What an algorithm is chosen for: the library is not told whether its product is added to anything.
    fn overwriting(self) -> Self {
        Self(Matmul { accumulate: false, ..self.0 })
    }

    /// Of no address: what it is called without.
    fn anywhere(mut self) -> Self {
        let Matmul { a, b, c, bias, accumulate, .. } = &mut self.0;
        [a, b, c].into_iter().for_each(|matrix| matrix.at = Ptr::NULL);
        *bias = bias.map(|_| Ptr::NULL);
        *accumulate = false;
        self
    }

    /// The number of tokens rounded up to one of eight to sixteen steps between powers of two. Tokens are the rows of the
    /// product, or what it sums over where it makes a weight's gradient: stored rows of `a` in both.
    fn rounded(mut self) -> Self {
        let Matmul { a, a_transposed, b, c, .. } = &mut self.0;
        let step = (a.rows.next_power_of_two() / 16).max(16);
        a.rows = a.rows.next_multiple_of(step);
        *(if *a_transposed { &mut b.rows } else { &mut c.rows }) = a.rows;
        self
    }
}

/// What its choice is kept by.
impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Matmul { a, b, c, bias, tf32, .. } = self.0;
        write!(f, "{}, at multiples of {}, {} and {}", self.0, a.at.0, b.at.0, c.at.0)?;
        bias.map_or(Ok(()), |bias| write!(f, ", with a bias at one of {}", bias.0))?;
        f.write_str(if tf32 { ", in tf32" } else { "" })
    }
}

impl Plan {
    fn new(
        library: &'static CublasLt,
        handle: sys::cublasLtHandle_t,
        shape: Shape,
        bias: Option<Ptr>,
    ) -> Result<Self, Status> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let Matmul { a, a_transposed, b, b_transposed, c, tf32, .. } = shape.0;
        let compute = match (a.number, tf32) {
            (Number::F32, true) => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (product, layouts) = (std::ptr::null_mut(), [std::ptr::null_mut(); 3]);
        let mut plan = Self { library, product, layouts, algorithms: Vec::new(), next: 0 };
        // SAFETY: creates a descriptor where it is told; `drop` destroys it.
        unsafe { (library.create_product)(&mut plan.product, compute, sys::cudaDataType::CUDA_R_32F) }.done()?;
        // CUBLAS_OP_N and CUBLAS_OP_T, which are cuBLAS's own and not in this part of the bindings. The library's first
        // operand is `b`.
        plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, i32::from(b_transposed))?;
        plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, i32::from(a_transposed))?;
        if let Some(bias) = bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            // Set anew for each product; the choice of an algorithm may look at it.
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.0)?;
        }
        for (layout, matrix) in plan.layouts.iter_mut().zip([a, b, c]) {
            let number = match matrix.number {
                Number::F32 => sys::cudaDataType::CUDA_R_32F,
                Number::Bf16 => sys::cudaDataType::CUDA_R_16BF,
            };
            let (rows, columns, stride) = (matrix.rows as u64, matrix.width as u64, matrix.stride as i64);
            // SAFETY: as above. A stored row is a column to the library.
            unsafe { (library.create_layout)(layout, number, columns, rows, stride) }.done()?;
        }
        plan.algorithms = choose(handle, &plan, shape)?;
        Ok(plan)
    }

    fn set<T: Copy>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: T) -> Result<(), Status> {
        // SAFETY: each attribute is set with a value of its own type.
        unsafe {
            let value = std::ptr::from_ref(&value).cast();
            (self.library.set_product)(self.product, attribute, value, size_of::<T>())
        }
        .done()
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: each descriptor is this plan's own and destroyed once; null where its creation failed.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = (self.library.destroy_layout)(layout);
            }
            if !self.product.is_null() {
                let _ = (self.library.destroy_product)(self.product);
            }
        }
    }
}

/// The library's choices for a shape, best first.
fn choose(handle: sys::cublasLtHandle_t, plan: &Plan, shape: Shape) -> Result<Vec<sys::cublasLtMatmulAlgo_t>, Status> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let library = plan.library;
    let mut preference = std::ptr::null_mut();
    // SAFETY: creates a preference where it is told, destroyed below.
    unsafe { (library.create_preference)(&mut preference) }.done()?;
    let Matmul { a, b, c, bias, .. } = shape.0;
    // Parts of a sum that is split are written beside each other in `f32` and added up behind in a fixed order, whatever
    // the output is made of: added in place, their order would be that of their arrival, and in 16 bits they would lose
    // digits.
    let reductions = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
    let [layout_a, layout_b, layout_c] = plan.layouts;
    // SAFETY: plain numbers, for which zero is a value.
    let mut choices: [sys::cublasLtMatmulHeuristicResult_t; ALGORITHMS] = unsafe { std::mem::zeroed() };
    let mut found = 0;
    let result = (|| {
        for (attribute, value, bytes) in [
            (Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, WORKSPACE_BYTES as u64, 8),
            (Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions.into(), 4),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b.at.0, 4),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a.at.0, 4),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c.at.0, 4),
            // Nothing is told of the bias' own alignment; whatever writes the result in wide accesses reads the bias so.
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, c.at.0.min(bias.unwrap_or(c.at).0), 4),
        ] {
            // SAFETY: the preference is alive; the value has as many bytes as its attribute takes (little endian).
            unsafe {
                let value = std::ptr::from_ref(&value).cast();
                (library.set_preference)(preference, attribute, value, bytes)
            }
            .done()?;
        }
        // SAFETY: all descriptors are alive; there is room for as many choices as are asked for.
        unsafe {
            (library.heuristic)(
                handle,
                plan.product,
                layout_b,
                layout_a,
                layout_c,
                layout_c,
                preference,
                ALGORITHMS as c_int,
                choices.as_mut_ptr(),
                &mut found,
            )
        }
        .done()
    })();
    // SAFETY: created above, destroyed once.
    let _ = unsafe { (library.destroy_preference)(preference) };
    result?;
    let found = &choices[..(found.max(0) as usize).min(ALGORITHMS)];
    // SAFETY: a status is a number of as many bytes, read as one since the library may know more of them than the bindings.
    let serves = |choice: &sys::cublasLtMatmulHeuristicResult_t| unsafe {
        (&raw const choice.state).cast::<Status>().read().done().is_ok()
    };
    let algorithms: Vec<_> = found.iter().filter(|choice| serves(choice)).map(|choice| choice.algo).collect();
    if algorithms.is_empty() { Err(Status::NOT_SUPPORTED) } else { Ok(algorithms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_round_up_by_little_and_to_few() {
        let shape = |m| {
            let matrix = |number, at, rows, width| Matrix::new(number, Ptr(at), [rows, width]);
            Shape::of(&Matmul {
                a: matrix(Number::Bf16, 4096, m, 384),
                a_transposed: false,
                b: matrix(Number::Bf16, 64, 77, 384),
                b_transposed: true,
                c: matrix(Number::F32, 2, m, 77),
                accumulate: false,
                bias: None,
                tf32: false,
            })
        };
        let Matmul { a, b, c, .. } = shape(1).0;
        assert_eq!([a, b, c].map(|matrix| matrix.at), [256, 64, 2].map(Ptr));
        let rounded = |m| {
            let Matmul { a, b, c, .. } = shape(m).rounded().0;
            assert_eq!((a.rows, b), (c.rows, shape(m).0.b));
            c.rows
        };
        let mut different: Vec<usize> = (1..=32768).map(rounded).collect();
        assert!(different.iter().zip(1..).all(|(&rounded, m)| rounded >= m && rounded - m < 16.max(m / 8)));
        different.dedup();
        assert!(different.len() < 100, "{}", different.len());
        let Matmul { a, b, c, .. } = shape(250).0;
        let gradient = Matmul { a, a_transposed: true, b: c, b_transposed: false, c: b, ..shape(250).0 };
        let Matmul { a, b, c, .. } = Shape(gradient).rounded().0;
        assert_eq!((a.rows, b.rows, c.rows), (256, 256, 77));
        let name = "(bf16 [256, 384] transposed, rows 384 apart) x (f32 [256, 77], rows 77 apart) = (bf16 [77, 384], rows \
                    384 apart), at multiples of 256, 2 and 64";
        assert_eq!(Shape(gradient).rounded().to_string(), name);
        let all = Matmul { bias: Some(Ptr(16)), tf32: true, ..gradient };
        assert_eq!(Shape(all).rounded().to_string(), format!("{name}, with a bias at one of 16, in tf32"));
        let elsewhere = Matmul { a: Matrix { at: Ptr(64), ..gradient.a }, bias: Some(Ptr(256)), ..all };
        assert!(Shape(elsewhere) != Shape(all) && Shape(elsewhere).anywhere() == Shape(all).anywhere());
        assert!(Shape(all).anywhere() != Shape(gradient).anywhere());
        // A step's first product overwrites and others add, by the same algorithm.
        let added = Shape(Matmul { accumulate: true, ..gradient });
        assert!(added != Shape(gradient) && added.overwriting() == Shape(gradient));
    }
}
