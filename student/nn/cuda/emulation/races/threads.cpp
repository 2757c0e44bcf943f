// The kernels with a thread of the machine for each thread of a block, for a library that ThreadSanitizer looks at.
//
// Fibers take turns where they wait, so a missing barrier shows only if the order that they run in happens to need it.
// Here accesses are held against each other by what orders them: barriers of the block and `__syncwarp` do, shuffles,
// products of tiles and their loads do not. A copy in the background writes its destination both when it is asked for and
// when it is waited for, since the device may do so at any time in between.

#include <cstdlib>

#define EACH_THREAD_S thread_local
#include "../device.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

// Of ThreadSanitizer: what stands in between orders nothing and is not looked at.
extern "C" {
void AnnotateIgnoreSyncBegin(const char*, int);
void AnnotateIgnoreSyncEnd(const char*, int);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}

#include "../../kernels.cu"

thread_local Index3 threadIdx;
Index3 blockIdx, blockDim, gridDim;

extern "C" unsigned char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" unsigned char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

namespace emulation {
namespace {

constexpr unsigned MOST_WARPS = 32, MOST_SHARED = 99 << 10;

const Registration* first_kernel = nullptr;
alignas(128) unsigned char dynamic[MOST_SHARED];

/// A barrier that orders memory. Two in turns: who is slow to leave one must not learn of what others did before they came
/// to the next.
struct Barrier {
    pthread_barrier_t turns[2];

    void begin(unsigned threads) {
        for (pthread_barrier_t& turn : turns) pthread_barrier_init(&turn, nullptr, threads);
    }
    void wait(unsigned& passed) { pthread_barrier_wait(&turns[passed++ % 2]); }
    void end() {
        for (pthread_barrier_t& turn : turns) pthread_barrier_destroy(&turn);
    }
};
Barrier block_waits, warp_waits[MOST_WARPS];
/// How often this thread has passed them.
thread_local unsigned block_passed, warp_passed;

/// Where the lanes of a warp meet without an order of memory; the last to come does what is done together.
struct Meeting {
    void* operands[32];
    unsigned come = 0, turn = 0;

    void join(void (*resolve)(void* const*), void* operand) {
        const unsigned now = __atomic_load_n(&turn, __ATOMIC_ACQUIRE);
        operands[threadIdx.x % 32] = operand;
        if (__atomic_add_fetch(&come, 1, __ATOMIC_ACQ_REL) < 32) {
            while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) == now) syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, now, nullptr);
            return;
        }
        come = 0;
        resolve(operands);
        __atomic_store_n(&turn, now + 1, __ATOMIC_RELEASE);
        syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 31);
    }
};
Meeting meetings[MOST_WARPS];

struct Copy {
    void* shared;
    const void* global;
};
thread_local std::vector<Copy> copies;

struct Unseen {
    Unseen() {
        AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
        AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~Unseen() {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
        AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
        AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
    }
};

/// A launch, whose blocks all threads run one after another.
struct Launch {
    const Registration* kernel;
    void** parameters;
    unsigned shared_bytes;
    const unsigned long long* blocks;
    size_t count;
    pthread_barrier_t* all;
};

struct Thread {
    const Launch* launch;
    unsigned number;
};

/// Waits for the threads of the whole launch, which orders nothing. All are there until the last is done: whoever came
/// after another has ended would be taken for the same thread.
void wait_for_all(const Launch& launch) {
    const Unseen unseen;
    pthread_barrier_wait(launch.all);
}

void begin_block(const Launch& launch, unsigned long long block) {
    blockIdx = {unsigned(block % gridDim.x), unsigned(block / gridDim.x % gridDim.y),
                unsigned(block / gridDim.x / gridDim.y)};
    memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
    memset(dynamic, 0xff, launch.shared_bytes);
}

void* run_thread(void* argument) {
    const auto [launch, number] = *static_cast<Thread*>(argument);
    threadIdx = {number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y};
    wait_for_all(*launch);
    for (size_t i = 0; i < launch->count; i++) {
        block_waits.wait(block_passed);
        if (number == 0) begin_block(*launch, launch->blocks[i]);
        block_waits.wait(block_passed);
        launch->kernel->run(launch->parameters);
        if (!copies.empty()) fault("a copy that nobody waits for", {launch->kernel->name, 0});
    }
    wait_for_all(*launch);
    return nullptr;
}

}  // namespace

Registration::Registration(const char* name, unsigned threads, void (*run)(void**))
    : name(name), threads(threads), run(run), next(first_kernel) {
    first_kernel = this;
}

unsigned char* dynamic_shared() { return dynamic; }

void block_barrier(Site) { block_waits.wait(block_passed); }

void warp_collective(void (*resolve)(void* const*), void* operand, Site, unsigned) {
    const unsigned warp = threadIdx.x / 32;
    if (!operand) {
        // `__syncwarp`, which orders memory.
        warp_waits[warp].wait(warp_passed);
        return;
    }
    const Unseen unseen;
    meetings[warp].join(resolve, operand);
}

void copy_begins(void* shared, const void* global) {
    memcpy(shared, global, 16);
    copies.push_back({shared, global});
}

void copies_arrive() {
    for (const Copy& copy : copies) memcpy(copy.shared, copy.global, 16);
    copies.clear();
}

void row_is_read(const void* row) {
    volatile unsigned char sink;
    for (int i = 0; i < 16; i++) sink = static_cast<const volatile unsigned char*>(row)[i];
    (void)sink;
}

void fault(const char* message, Site site) {
    fprintf(stderr, "races: %s, %s:%d\n", message, site.file, site.line);
    _exit(3);
}

}  // namespace emulation

/// Runs these blocks of a launch, one after another; `all` waits for the threads that run any. 0: done; 1: no such kernel; 2: no such block size.
extern "C" __attribute__((visibility("default"))) int run_blocks(const char* name, const unsigned* grid,
                                                                  const unsigned* block, unsigned shared_bytes,
                                                                  void** parameters, const unsigned long long* blocks,
                                                                  size_t count, pthread_barrier_t* all) {
    using namespace emulation;
    const Registration* kernel = first_kernel;
    while (kernel && strcmp(kernel->name, name) != 0) kernel = kernel->next;
    if (!kernel) return 1;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const unsigned threads = block[0] * block[1] * block[2];
    if (threads == 0 || threads % 32 != 0 || threads > kernel->threads || shared_bytes > MOST_SHARED) return 2;
    block_waits.begin(threads);
    for (unsigned warp = 0; warp < threads / 32; warp++) warp_waits[warp].begin(32);
    const Launch launch{kernel, parameters, shared_bytes, blocks, count, all};
    std::vector<Thread> arguments(threads);
    std::vector<pthread_t> handles(threads);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    for (unsigned t = 0; t < threads; t++) {
        arguments[t] = {&launch, t};
        if (pthread_create(&handles[t], &attributes, run_thread, &arguments[t]) != 0) {
            fault("no more threads", {"pthread_create", 0});
        }
    }
    for (pthread_t handle : handles) pthread_join(handle, nullptr);
    pthread_attr_destroy(&attributes);
    block_waits.end();
    for (unsigned warp = 0; warp < threads / 32; warp++) warp_waits[warp].end();
    return 0;
}

// Races to be found, and their like without one.

/// Neighbours exchange numbers through shared memory, with or without a barrier in between.
template <bool ORDERED>
static void exchange(float* out) {
    __shared__ float numbers[64];
    numbers[threadIdx.x] = threadIdx.x;
    if (ORDERED) __syncthreads();
    // No order of memory comes of it.
    const float one = __shfl_xor_sync(~0u, 1.0f, 1);
    out[blockIdx.x * 64 + threadIdx.x] = one * numbers[threadIdx.x ^ 1];
}
KERNEL(planted_exchange, 64, float* out) { exchange<false>(out); }
KERNEL(clean_exchange, 64, float* out) { exchange<true>(out); }

/// A tile is copied in the background and read by others, behind the wait alone or behind a barrier too.
template <bool ORDERED>
static void copy(float* out) {
    DYNAMIC_SHARED(tile);
    copy16_async(tile + 16 * threadIdx.x, out + 4 * threadIdx.x);
    copies_commit();
    copies_wait();
    if (ORDERED) __syncthreads();
    const float number = reinterpret_cast<const float*>(tile)[4 * (threadIdx.x ^ 1)];
    if (ORDERED) __syncthreads();
    out[blockIdx.x * 256 + 256 + 4 * threadIdx.x] = number;
}
KERNEL(planted_copy, 64, float* out) { copy<false>(out); }
KERNEL(clean_copy, 64, float* out) { copy<true>(out); }

/// Copies over a tile that others may still read, and waits only then.
KERNEL(planted_early_copy, 64, float* out) {
    DYNAMIC_SHARED(tile);
    auto* numbers = reinterpret_cast<float*>(tile);
    numbers[4 * threadIdx.x] = threadIdx.x;
    __syncthreads();
    const float number = numbers[4 * (threadIdx.x ^ 1)];
    copy16_async(tile + 16 * threadIdx.x, out + 4 * threadIdx.x);
    copies_commit();
    __syncthreads();
    copies_wait();
    out[blockIdx.x * 256 + 256 + 4 * threadIdx.x] = number;
}

/// Blocks add to one sum.
KERNEL(planted_between_blocks, 64, float* out) {
    if (threadIdx.x == 0) out[0] += 1.0f;
}
