// A libcublasLt that is none: matrix products as its documentation says them, one sum after another.
//
// Refused, and counted: descriptors whose shapes or types do not fit together, an algorithm run with less than it was
// chosen for (types, alignment, the workspace), operands that leave their memory.
//
// EMULATED_GPU has words with commas between them; of those in `driver.cpp`, `no-work` goes for products too.
//   other-sizes-refused    an algorithm runs the sizes that it was chosen for alone
//   first-refused          the first of several algorithms runs nothing
//   fastest=N              all algorithms but this one, counted from 0, take 2 ms longer
//   orders-differ          each algorithm adds up in an order of its own
//   no-bias                there is no algorithm that adds a bias
//   no-odd-bias            nor one where the result's rows are no multiple of 16 bytes apart
//   no-algorithm           there is none at all
//   misaligned-bias        a bias at an address that is no multiple of 16 loses the device

#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "driver.h"

using namespace emulated_driver;

enum Status { DONE = 0, NOT_INITIALIZED_YET = 1, INVALID = 7, NOT_SUPPORTED = 15 };
enum Type { F32 = 0, BF16 = 14 };
enum Epilogue : unsigned { NOTHING = 1, BIAS = 4 };
enum Compute { COMPUTE_F32 = 68, COMPUTE_TF32 = 77 };

struct Product {
    int compute;
    int transposed[2] = {0, 0};
    unsigned epilogue = NOTHING;
    uint64_t bias = 0;
};

struct Layout {
    int type;
    uint64_t rows, columns;
    int64_t stride;

    size_t element() const { return type == BF16 ? 2 : 4; }
    size_t bytes() const { return rows && columns ? ((columns - 1) * stride + rows) * element() : 0; }
};

struct Preference {
    uint64_t workspace = 0;
    unsigned reductions = 0x3f;
    unsigned alignment[4] = {256, 256, 256, 256};
};

/// What stands in the program's memory between the choice and the run: 64 bytes.
struct Algorithm {
    uint32_t mark, number;
    uint64_t m, n, k;
    uint16_t alignment[4];
    uint8_t types[2], transposed[2];
    uint32_t epilogue;
    uint64_t rest[2];
};
static_assert(sizeof(Algorithm) == 64);
static constexpr uint32_t MARK = 0x61746c42;

struct Choice {
    Algorithm algorithm;
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
};
static_assert(sizeof(Choice) == 96);

struct Sizes {
    uint64_t m, n, k;
};

static Status refuse(const std::string& what) {
    complain("cuBLASLt: " + what);
    return INVALID;
}

/// Reads an attribute of this many bytes.
template <class T>
static Status take(T& to, const void* value, size_t bytes) {
    if (bytes != sizeof(T)) return refuse("an attribute of wrong size");
    memcpy(&to, value, bytes);
    return DONE;
}

static int handle;

API size_t cublasLtGetVersion() { return 130000; }

API Status cublasLtCreate(void** created) {
    if (!usable()) return NOT_INITIALIZED_YET;
    *created = &handle;
    return DONE;
}

API Status cublasLtDestroy(void* destroyed) { return destroyed == &handle ? DONE : refuse("no handle"); }

API Status cublasLtMatmulDescCreate(Product** product, int compute, int scale) {
    if (scale != F32 || (compute != COMPUTE_F32 && compute != COMPUTE_TF32)) return refuse("an unknown kind of product");
    *product = new Product{compute};
    return DONE;
}

API Status cublasLtMatmulDescDestroy(Product* product) {
    delete product;
    return DONE;
}

API Status cublasLtMatmulDescSetAttribute(Product* product, int attribute, const void* value, size_t bytes) {
    switch (attribute) {
        case 3: return take(product->transposed[0], value, bytes);
        case 4: return take(product->transposed[1], value, bytes);
        case 7: return take(product->epilogue, value, bytes);
        case 8: return take(product->bias, value, bytes);
        default: return refuse("an unknown attribute of a product");
    }
}

API Status cublasLtMatrixLayoutCreate(Layout** layout, int type, uint64_t rows, uint64_t columns, int64_t stride) {
    if ((type != F32 && type != BF16) || stride < int64_t(rows)) return refuse("a matrix whose columns overlap");
    *layout = new Layout{type, rows, columns, stride};
    return DONE;
}

API Status cublasLtMatrixLayoutDestroy(Layout* layout) {
    delete layout;
    return DONE;
}

API Status cublasLtMatrixLayoutSetAttribute(Layout* layout, int attribute, const void* value, size_t bytes) {
    switch (attribute) {
        case 2: return take(layout->rows, value, bytes);
        case 3: return take(layout->columns, value, bytes);
        case 4: return take(layout->stride, value, bytes);
        default: return refuse("an unknown attribute of a matrix");
    }
}

API Status cublasLtMatmulPreferenceCreate(Preference** preference) {
    *preference = new Preference;
    return DONE;
}

API Status cublasLtMatmulPreferenceDestroy(Preference* preference) {
    delete preference;
    return DONE;
}

API Status cublasLtMatmulPreferenceSetAttribute(Preference* preference, int attribute, const void* value, size_t bytes) {
    switch (attribute) {
        case 1: return take(preference->workspace, value, bytes);
        case 3: return take(preference->reductions, value, bytes);
        case 5:
        case 6:
        case 7:
        case 8: return take(preference->alignment[attribute - 5], value, bytes);
        default: return refuse("an unknown preference");
    }
}

/// Sizes of `d [m, n] = a [m, k] b [k, n]`, columns first; false where they do not fit together.
static bool fit(const Product& product, const Layout& a, const Layout& b, const Layout& c, const Layout& d, Sizes& sizes) {
    const bool a_t = product.transposed[0], b_t = product.transposed[1];
    sizes = {d.rows, d.columns, a_t ? a.rows : a.columns};
    return (a_t ? a.columns : a.rows) == sizes.m && (b_t ? b.columns : b.rows) == sizes.k &&
           (b_t ? b.rows : b.columns) == sizes.n && c.rows == sizes.m && c.columns == sizes.n && c.type == d.type &&
           a.type == b.type;
}

API Status cublasLtMatmulAlgoGetHeuristic(void*, const Product* product, const Layout* a, const Layout* b,
                                          const Layout* c, const Layout* d, const Preference* preference, int asked_for,
                                          Choice* choices, int* found) {
    Sizes sizes;
    *found = 0;
    if (!fit(*product, *a, *b, *c, *d, sizes)) return refuse("matrices that do not fit together");
    const bool f32 = a->type == F32;
    if ((f32 && d->type != F32) || (product->compute == COMPUTE_TF32 && !f32)) return refuse("types that do not go together");
    if (product->epilogue != NOTHING && product->epilogue != BIAS) return refuse("an unknown epilogue");
    if (product->epilogue == BIAS && !product->bias) return refuse("a bias without an address");
    if (asked_for < 1) return refuse("no algorithm is asked for");
    const bool bias = product->epilogue == BIAS, odd = d->stride * d->element() % 16 != 0;
    if (asked("no-algorithm") || (bias && asked("no-bias")) || (bias && odd && asked("no-odd-bias"))) return NOT_SUPPORTED;
    for (; *found < asked_for && *found < 3; ++*found) {
        Choice& choice = choices[*found];
        memset(&choice, 0, sizeof choice);
        Algorithm& algorithm = choice.algorithm;
        algorithm.mark = MARK;
        algorithm.number = *found;
        algorithm.m = sizes.m, algorithm.n = sizes.n, algorithm.k = sizes.k;
        for (int i = 0; i < 4; i++) algorithm.alignment[i] = preference->alignment[i];
        algorithm.types[0] = a->type, algorithm.types[1] = d->type;
        algorithm.transposed[0] = product->transposed[0], algorithm.transposed[1] = product->transposed[1];
        algorithm.epilogue = product->epilogue;
        choice.workspace = preference->workspace;
    }
    return DONE;
}

/// What keeps an algorithm from a run that it was not chosen for, or nothing.
static std::string unfit(const Algorithm& algorithm, const Product& product, const Layout& a, const Layout& d,
                         const uint64_t (&addresses)[4]) {
    if (algorithm.mark != MARK) return "no algorithm";
    if (algorithm.types[0] != a.type || algorithm.types[1] != d.type) return "an algorithm for other types";
    if (algorithm.transposed[0] != product.transposed[0] || algorithm.transposed[1] != product.transposed[1]) {
        return "an algorithm for matrices in another order";
    }
    if (algorithm.epilogue != product.epilogue) return "an algorithm with another epilogue";
    for (int i = 0; i < 4; i++) {
        if (algorithm.alignment[i] == 0 || addresses[i] % algorithm.alignment[i] != 0) {
            return "an operand at an address that the algorithm was not chosen for";
        }
    }
    return "";
}

static float read(uint64_t at, int type, size_t index) {
    if (type == F32) return reinterpret_cast<const float*>(at)[index];
    const uint32_t bits = uint32_t(reinterpret_cast<const uint16_t*>(at)[index]) << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static void write(uint64_t at, int type, size_t index, float value) {
    if (type == F32) {
        reinterpret_cast<float*>(at)[index] = value;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t rounded = value != value ? 0x7fff : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    reinterpret_cast<uint16_t*>(at)[index] = rounded;
}

/// What a tensor core keeps of an f32: ten bits of the mantissa.
static float cut_to_tf32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    bits &= 0xffffe000u;
    memcpy(&value, &bits, 4);
    return value;
}

/// An operand as `[count, k]`, what is summed over side by side.
static std::vector<float> gather(uint64_t at, const Layout& layout, size_t count, size_t k, bool across, bool cut) {
    std::vector<float> values(count * k);
    for (size_t i = 0; i < count; i++) {
        for (size_t l = 0; l < k; l++) {
            const float value = read(at, layout.type, across ? i + l * layout.stride : l + i * layout.stride);
            values[i * k + l] = cut ? cut_to_tf32(value) : value;
        }
    }
    return values;
}

/// Eight sums side by side, then the rest: a fixed order. Other algorithms begin somewhere else, if their orders differ.
static float dot(const float* a, const float* b, size_t k, uint32_t order) {
    if (order > 0 && k > 2 * order) {
        const size_t first = k / 2 + order;
        return dot(a + first, b + first, k - first, 0) + dot(a, b, first, 0);
    }
    float sums[8] = {};
    size_t l = 0;
    for (; l + 8 <= k; l += 8) {
        for (int i = 0; i < 8; i++) sums[i] += a[l + i] * b[l + i];
    }
    float sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    for (; l < k; l++) sum += a[l] * b[l];
    return sum;
}

API Status cublasLtMatmul(void*, const Product* product, const float* alpha, const void* a_at, const Layout* a,
                          const void* b_at, const Layout* b, const float* beta, const void* c_at, const Layout* c,
                          void* d_at, const Layout* d, const Algorithm* algorithm, void* workspace,
                          size_t workspace_bytes, void* stream) {
    if (!usable()) return refuse("a product without a context or on a lost device");
    Sizes sizes;
    if (!fit(*product, *a, *b, *c, *d, sizes)) return refuse("matrices that do not fit together");
    if (!is_stream(stream)) return refuse("no stream");
    const auto address = [](const void* p) { return reinterpret_cast<uint64_t>(p); };
    const uint64_t addresses[4] = {address(a_at), address(b_at), address(c_at), address(d_at)};
    if (c_at != d_at || c->stride != d->stride) return refuse("a product that is added to another matrix");
    if (algorithm) {
        const std::string wrong = unfit(*algorithm, *product, *a, *d, addresses);
        if (!wrong.empty()) return refuse(wrong);
        // A weight's own sizes never change; the tokens are one of the others.
        const bool same = algorithm->m == sizes.m && algorithm->n == sizes.n && algorithm->k == sizes.k;
        if (!same && asked("other-sizes-refused")) return NOT_SUPPORTED;
        if (algorithm->number == 0 && asked("first-refused")) return NOT_SUPPORTED;
    }
    count_product();
    enqueue(stream, [product = *product, a = *a, b = *b, d = *d, sizes, addresses = std::vector(addresses, addresses + 4),
                     alpha = *alpha, beta = *beta, workspace = address(workspace), workspace_bytes,
                     number = algorithm ? algorithm->number : 0] {
        static const std::string fastest = value_of("fastest");
        if (!fastest.empty() && fastest != std::to_string(number)) {
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
        static const bool orders_differ = asked("orders-differ");
        const uint32_t order = orders_differ ? number : 0;
        const uint64_t a_at = addresses[0], b_at = addresses[1], d_at = addresses[3];
        const auto lose = [](const char* what) { lose_device(ILLEGAL_ADDRESS, std::string("cuBLASLt: ") + what); };
        if (!inside(a_at, a.bytes()) || !inside(b_at, b.bytes()) || !inside(d_at, d.bytes())) {
            return lose("an operand leaves its memory");
        }
        if (workspace % 256 != 0 || !inside(workspace, workspace_bytes)) return lose("the workspace leaves its memory");
        const bool bias = product.epilogue == BIAS;
        if (bias && !inside(product.bias, sizes.m * d.element())) return lose("the bias leaves its memory");
        if (bias && product.bias % 16 != 0 && asked("misaligned-bias")) {
            return lose_device(MISALIGNED_ADDRESS, "cuBLASLt: a bias at an address that is no multiple of 16");
        }
        // Whoever counts on what the last product left here is wrong.
        memset(reinterpret_cast<void*>(workspace), 0xff, std::min<size_t>(workspace_bytes, 4096));
        const bool cut = product.compute == COMPUTE_TF32;
        const auto left = gather(a_at, a, sizes.m, sizes.k, !product.transposed[0], cut);
        const auto right = gather(b_at, b, sizes.n, sizes.k, product.transposed[1], cut);
        for (size_t j = 0; j < sizes.n; j++) {
            for (size_t i = 0; i < sizes.m; i++) {
                const size_t at = i + j * d.stride;
                float sum = alpha * dot(&left[i * sizes.k], &right[j * sizes.k], sizes.k, order);
                if (beta != 0) sum += beta * read(d_at, d.type, at);
                if (bias) sum += read(product.bias, d.type, i);
                write(d_at, d.type, at, sum);
            }
        }
    });
    return DONE;
}
