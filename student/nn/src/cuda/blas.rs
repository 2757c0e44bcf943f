//! Matrix products on a GPU: cuBLASLt, with its choice of algorithm kept for each shape.
//!
//! cuBLASLt counts columns first. A row-major `c = a b` is its `c^T = b^T a^T`: the operands change places, and nothing
//! is moved.
#![expect(unsafe_code, reason = "cuBLASLt's interface is C")]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::sys::{self, cublasStatus_t};
use cudarc::driver::sys::CUstream;

use super::device::Ptr;
use super::driver::Driver;
use super::error::DeviceError;
use super::matmul::{Compute, Matmul, Number};

/// What cuBLASLt may use for itself; more brings nothing on any GPU so far, by NVIDIA's own advice.
const WORKSPACE_BYTES: usize = 32 << 20;

/// The library with its plans. Calls come one at a time, under the mutex.
pub(super) struct Blas {
    state: Mutex<State>,
}

struct State {
    handle: sys::cublasLtHandle_t,
    workspace: Ptr,
    /// By shape, the number of tokens rounded up.
    plans: HashMap<Shape, Plan>,
    /// For shapes whose rounded one has an algorithm that refuses them.
    exact: HashMap<Shape, Plan>,
}

// SAFETY: handles of the library serve any thread, one at a time.
unsafe impl Send for State {}

/// All that the choice of an algorithm depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    ld: [usize; 3],
    transposed: [bool; 2],
    accumulate: bool,
    bias: bool,
    input: Number,
    output: Number,
    compute: Compute,
    /// Of `a`, `b`, `c`, and the bias or again `c`, in bytes, at most 256.
    alignment: [u32; 4],
}

/// Descriptors and algorithm of one shape.
struct Plan {
    product: sys::cublasLtMatmulDesc_t,
    /// Of `a`, `b` and `c`.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Blas {
    /// Opens the library; the driver's context is current.
    pub(super) fn open(driver: &Driver) -> Result<Self, DeviceError> {
        // SAFETY: looks for the library and opens it, which runs its initialisers and nothing else.
        if !unsafe { sys::is_culib_present() } {
            return Err(DeviceError::NoBlas);
        }
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes a handle to where it is told; `drop` destroys it.
        unsafe { check(sys::cublasLtCreate(&mut handle), "cublasLtCreate")? };
        let state = State { handle, workspace: Ptr::NULL, plans: HashMap::new(), exact: HashMap::new() };
        let blas = Self { state: Mutex::new(state) };
        // Freed with the context: it lives exactly as long.
        blas.lock().workspace = driver.allocate(WORKSPACE_BYTES)?;
        Ok(blas)
    }

    pub(super) fn matmul(&self, stream: CUstream, matmul: &Matmul) -> Result<(), DeviceError> {
        let state = &mut *self.lock();
        let shape = Shape::new(matmul);
        if let Some(plan) = state.exact.get(&shape) {
            return run(state.handle, state.workspace, stream, plan, matmul).map_err(|status| failed(status, matmul));
        }
        let rounded = shape.rounded();
        if !state.plans.contains_key(&rounded) {
            state.plans.insert(rounded, Plan::new(state.handle, rounded, matmul.bias)?);
        }
        let plan = &state.plans[&rounded];
        match run(state.handle, state.workspace, stream, plan, matmul) {
            Ok(()) => Ok(()),
            // The algorithm was chosen for a somewhat larger shape.
            Err(cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED | cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE) => {
                let plan = Plan::new(state.handle, shape, matmul.bias)?;
                let result = run(state.handle, state.workspace, stream, &plan, matmul);
                state.exact.insert(shape, plan);
                result.map_err(|status| failed(status, matmul))
            }
            Err(status) => Err(failed(status, matmul)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.plans.clear();
        self.exact.clear();
        // SAFETY: destroyed once; the plans are gone.
        let _ = unsafe { sys::cublasLtDestroy(self.handle) };
    }
}

impl Shape {
    fn new(matmul: &Matmul) -> Self {
        let alignment = |ptr: Ptr| 1 << ptr.0.trailing_zeros().min(8);
        Self {
            m: matmul.m,
            n: matmul.n,
            k: matmul.k,
            ld: [matmul.lda, matmul.ldb, matmul.ldc],
            transposed: [matmul.a_transposed, matmul.b_transposed],
            accumulate: matmul.accumulate,
            bias: matmul.bias.is_some(),
            input: matmul.input,
            output: matmul.output,
            compute: matmul.compute,
            alignment: [matmul.a, matmul.b, matmul.c, matmul.bias.unwrap_or(matmul.c)].map(alignment),
        }
    }

    /// The number of tokens rounded up to one of eight to sixteen steps between powers of two. Tokens are the rows of the
    /// product, or what it sums over where it makes a weight's gradient.
    fn rounded(mut self) -> Self {
        let tokens = if self.transposed[0] { &mut self.k } else { &mut self.m };
        let step = (tokens.next_power_of_two() / 16).max(16);
        *tokens = tokens.next_multiple_of(step);
        self
    }
}

impl Plan {
    fn new(handle: sys::cublasLtHandle_t, shape: Shape, bias: Option<Ptr>) -> Result<Self, DeviceError> {
        let compute = match (shape.input, shape.compute) {
            (Number::F32, Compute::Tf32) => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let mut plan = Self {
            product: std::ptr::null_mut(),
            layouts: [std::ptr::null_mut(); 3],
            // SAFETY: plain numbers, for which zero is a value; replaced by the choice below.
            algorithm: unsafe { std::mem::zeroed() },
        };
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        // CUBLAS_OP_N and CUBLAS_OP_T, which are cuBLAS's own and not in this part of the bindings.
        let operation = |transposed: bool| i32::from(transposed);
        // The library's first operand is `b`.
        // SAFETY: creates a descriptor where it is told; `drop` destroys it.
        let result =
            unsafe { sys::cublasLtMatmulDescCreate(&mut plan.product, compute, sys::cudaDataType::CUDA_R_32F) };
        check(result, "cublasLtMatmulDescCreate")?;
        plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, operation(shape.transposed[1]))?;
        plan.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, operation(shape.transposed[0]))?;
        if let Some(bias) = bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            // Set anew for each product; the choice of an algorithm may look at it.
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias.0)?;
        }
        let numbers = [shape.input, shape.input, shape.output];
        for (index, (rows, columns)) in stored(shape.m, shape.n, shape.k, shape.transposed).into_iter().enumerate() {
            let (number, ld) = (number(numbers[index]), shape.ld[index] as i64);
            let layout = &mut plan.layouts[index];
            // SAFETY: as above. A stored row is a column to the library.
            let result = unsafe { sys::cublasLtMatrixLayoutCreate(layout, number, columns as u64, rows as u64, ld) };
            check(result, "cublasLtMatrixLayoutCreate")?;
        }
        plan.algorithm = choose(handle, &plan, shape)?;
        Ok(plan)
    }

    fn set<T: Copy>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: T) -> Result<(), DeviceError> {
        // SAFETY: each attribute is set with a value of its own type.
        let result = unsafe {
            let value = std::ptr::from_ref(&value).cast();
            sys::cublasLtMatmulDescSetAttribute(self.product, attribute, value, size_of::<T>())
        };
        check(result, "cublasLtMatmulDescSetAttribute")
    }

    /// Sets how many stored rows a matrix has.
    fn resize(&self, index: usize, rows: usize) -> Result<(), cublasStatus_t> {
        let attribute = sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_COLS;
        let rows = rows as u64;
        // SAFETY: the layout is alive, and the attribute one 64-bit number.
        match unsafe {
            let value = std::ptr::from_ref(&rows).cast();
            sys::cublasLtMatrixLayoutSetAttribute(self.layouts[index], attribute, value, size_of::<u64>())
        } {
            cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
            status => Err(status),
        }
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: each descriptor is this plan's own and destroyed once; null where its creation failed.
        unsafe {
            for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
                let _ = sys::cublasLtMatrixLayoutDestroy(layout);
            }
            if !self.product.is_null() {
                let _ = sys::cublasLtMatmulDescDestroy(self.product);
            }
        }
    }
}

/// The library's first choice for a shape.
fn choose(handle: sys::cublasLtHandle_t, plan: &Plan, shape: Shape) -> Result<sys::cublasLtMatmulAlgo_t, DeviceError> {
    use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
    let mut preference = std::ptr::null_mut();
    // SAFETY: creates a preference where it is told, destroyed below.
    unsafe { check(sys::cublasLtMatmulPreferenceCreate(&mut preference), "cublasLtMatmulPreferenceCreate")? };
    let set = |attribute, value: *const c_void, bytes| {
        // SAFETY: the preference is alive; the value has as many bytes as its attribute takes.
        let result = unsafe { sys::cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes) };
        check(result, "cublasLtMatmulPreferenceSetAttribute")
    };
    let workspace = WORKSPACE_BYTES as u64;
    let [a, b, c, bias] = shape.alignment;
    // Nothing is told of the bias' own alignment; whatever writes the result in wide accesses reads the bias so.
    let d = c.min(bias);
    // In 16 bits, parts of a sum that is split may not be added up: sums are `f32`.
    let reductions = match shape.output {
        Number::F32 => sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_MASK as u32,
        Number::Bf16 => sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32,
    };
    let [layout_a, layout_b, layout_c] = plan.layouts;
    // SAFETY: plain numbers, for which zero is a value.
    let mut choice: sys::cublasLtMatmulHeuristicResult_t = unsafe { std::mem::zeroed() };
    let mut found = 0;
    let result = (|| {
        let bytes = std::ptr::from_ref(&workspace).cast();
        set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, bytes, size_of::<u64>())?;
        for (attribute, number) in [
            (Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, b),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, a),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c),
            (Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d),
        ] {
            set(attribute, std::ptr::from_ref(&number).cast(), size_of::<u32>())?;
        }
        // SAFETY: all descriptors are alive; at most one choice is written.
        let result = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                handle,
                plan.product,
                layout_b,
                layout_a,
                layout_c,
                layout_c,
                preference,
                1,
                &mut choice,
                &mut found,
            )
        };
        check(result, format_args!("the choice of an algorithm for {shape}"))
    })();
    // SAFETY: created above, destroyed once.
    let _ = unsafe { sys::cublasLtMatmulPreferenceDestroy(preference) };
    result?;
    if found == 0 || choice.state != cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        let call = format!("the choice of an algorithm for {shape}");
        return Err(DeviceError::Blas { call, reason: "it has none".to_string() });
    }
    Ok(choice.algo)
}

fn run(
    handle: sys::cublasLtHandle_t,
    workspace: Ptr,
    stream: CUstream,
    plan: &Plan,
    matmul: &Matmul,
) -> Result<(), cublasStatus_t> {
    let sizes = stored(matmul.m, matmul.n, matmul.k, [matmul.a_transposed, matmul.b_transposed]);
    for (index, (rows, _)) in sizes.into_iter().enumerate() {
        plan.resize(index, rows)?;
    }
    if let Some(bias) = matmul.bias {
        let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
        if plan.set(attribute, bias.0).is_err() {
            return Err(cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE);
        }
    }
    let (alpha, beta) = (1.0f32, if matmul.accumulate { 1.0f32 } else { 0.0 });
    let [layout_a, layout_b, layout_c] = plan.layouts;
    // SAFETY: all descriptors are alive; the caller answers for the matrices' addresses and sizes.
    let status = unsafe {
        sys::cublasLtMatmul(
            handle,
            plan.product,
            std::ptr::from_ref(&alpha).cast(),
            matmul.b.0 as *const c_void,
            layout_b,
            matmul.a.0 as *const c_void,
            layout_a,
            std::ptr::from_ref(&beta).cast(),
            matmul.c.0 as *const c_void,
            layout_c,
            matmul.c.0 as *mut c_void,
            layout_c,
            &plan.algorithm,
            workspace.0 as *mut c_void,
            WORKSPACE_BYTES,
            stream.cast(),
        )
    };
    match status {
        cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        status => Err(status),
    }
}

/// Stored rows and columns of `a`, `b` and `c`.
fn stored(m: usize, n: usize, k: usize, [a, b]: [bool; 2]) -> [(usize, usize); 3] {
    [if a { (k, m) } else { (m, k) }, if b { (n, k) } else { (k, n) }, (m, n)]
}

fn number(number: Number) -> sys::cudaDataType {
    match number {
        Number::F32 => sys::cudaDataType::CUDA_R_32F,
        Number::Bf16 => sys::cudaDataType::CUDA_R_16BF,
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { m, n, k, ld, transposed, input, output, .. } = self;
        write!(f, "[{m}, {k}] x [{k}, {n}] ({input:?} to {output:?}, rows {ld:?} apart, transposed {transposed:?})")
    }
}

fn failed(status: cublasStatus_t, matmul: &Matmul) -> DeviceError {
    DeviceError::Blas { call: format!("the product {}", Shape::new(matmul)), reason: format!("{status:?}") }
}

fn check(status: cublasStatus_t, call: impl std::fmt::Display) -> Result<(), DeviceError> {
    match status {
        cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        status => Err(DeviceError::Blas { call: call.to_string(), reason: format!("{status:?}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_round_up_by_little_and_to_few() {
        let shape = |m| {
            let matmul = Matmul {
                m,
                n: 77,
                k: 384,
                a: Ptr(4096),
                a_transposed: false,
                lda: 384,
                b: Ptr(64),
                b_transposed: true,
                ldb: 384,
                c: Ptr(2),
                ldc: 77,
                accumulate: false,
                bias: None,
                input: Number::Bf16,
                output: Number::F32,
                compute: Compute::F32,
            };
            Shape::new(&matmul)
        };
        assert_eq!(shape(1).alignment, [256, 64, 2, 2]);
        let mut different: Vec<usize> = (1..=32768).map(|m| shape(m).rounded().m).collect();
        assert!(different.iter().zip(1..).all(|(&rounded, m)| rounded >= m && rounded - m < 16.max(m / 8)));
        different.dedup();
        assert!(different.len() < 100, "{}", different.len());
    }
}
