// The emulated device as a shared library: every kernel, and the scheduler that runs its threads.

#include "device.h"

#include <mutex>
#include <sys/mman.h>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include "../kernels.cu"

Index3 threadIdx, blockIdx, blockDim, gridDim;

// Bounds of the section that `__shared__` puts variables into; the linker knows them.
extern "C" unsigned char __start_emulated_shared[] __attribute__((weak, visibility("hidden")));
extern "C" unsigned char __stop_emulated_shared[] __attribute__((weak, visibility("hidden")));

namespace emulation {
namespace {

constexpr size_t STACK_BYTES = 128 << 10;
constexpr unsigned MOST_THREADS = 1024;
// What a block may have on every GPU from Ampere on; the data centre's have more.
constexpr unsigned MOST_SHARED = 99 << 10;

enum class State { Ready, AtWarp, AtBlock, Finished };

struct Thread {
    State state;
    Site site;
    void (*resolve)(void* const*);
    void* operand;
#if defined(__x86_64__)
    void* stack_pointer;
#else
    ucontext_t context;
#endif
};

const Registration* first_kernel = nullptr;
Thread threads[MOST_THREADS];
unsigned char* stacks = nullptr;
alignas(128) unsigned char dynamic[MOST_SHARED];
unsigned running = 0;
bool faulted = false;
const Registration* kernel = nullptr;
void** arguments = nullptr;

#if defined(__x86_64__)
void* scheduler_stack_pointer;

// Keeps what a call must keep, exchanges the stacks, and returns on the other one.
extern "C" void emulation_switch(void** from, void* to);
asm(R"(
.text
.local emulation_switch
.type emulation_switch, @function
emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

void resume(Thread& thread) { emulation_switch(&scheduler_stack_pointer, thread.stack_pointer); }
void suspend(Thread& thread) { emulation_switch(&thread.stack_pointer, scheduler_stack_pointer); }

void start(Thread& thread, unsigned char* stack, void (*entry)()) {
    // Six registers, then the address that `ret` jumps to, at a multiple of 16.
    void** top = reinterpret_cast<void**>(stack + STACK_BYTES - 64);
    *top = reinterpret_cast<void*>(entry);
    thread.stack_pointer = top - 6;
}
#else
ucontext_t scheduler_context;

void resume(Thread& thread) { swapcontext(&scheduler_context, &thread.context); }
void suspend(Thread& thread) { swapcontext(&thread.context, &scheduler_context); }

void start(Thread& thread, unsigned char* stack, void (*entry)()) {
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = stack;
    thread.context.uc_stack.ss_size = STACK_BYTES;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, entry, 0);
}
#endif

void run_thread() {
    kernel->run(arguments);
    threads[running].state = State::Finished;
    suspend(threads[running]);
}

void complain(const char* message, unsigned thread, Site site) {
    fprintf(stderr, "emulated device: %s: %s, block (%u, %u, %u) thread %u, %s:%d\n", kernel->name, message, blockIdx.x,
            blockIdx.y, blockIdx.z, thread, site.file ? site.file : "?", site.line);
    faulted = true;
}

bool same(Site a, Site b) { return a.line == b.line && strcmp(a.file, b.file) == 0; }

/// Runs a warp until all of its lanes wait for the block or have finished.
void run_warp(unsigned first, bool backwards) {
    while (!faulted) {
        for (unsigned i = 0; i < 32 && !faulted; i++) {
            running = first + (backwards ? 31 - i : i);
            if (threads[running].state != State::Ready) continue;
            threadIdx = {running % blockDim.x, running / blockDim.x % blockDim.y, running / blockDim.x / blockDim.y};
            resume(threads[running]);
        }
        if (faulted) return;
        unsigned at_warp = 0, waiting = first;
        for (unsigned i = first; i < first + 32; i++) {
            if (threads[i].state == State::AtWarp) at_warp++, waiting = i;
        }
        if (at_warp == 0) return;
        void* operands[32];
        for (unsigned i = 0; i < 32; i++) {
            const Thread& lane = threads[first + i];
            if (lane.state != State::AtWarp || lane.resolve != threads[waiting].resolve ||
                !same(lane.site, threads[waiting].site)) {
                return complain("a warp operation without all lanes", waiting, threads[waiting].site);
            }
            operands[i] = lane.operand;
        }
        threads[first].resolve(operands);
        for (unsigned i = 0; i < 32; i++) threads[first + i].state = State::Ready;
    }
}

void run_block(bool backwards) {
    const unsigned count = blockDim.x * blockDim.y * blockDim.z;
    memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
    for (unsigned i = 0; i < count; i++) {
        threads[i].state = State::Ready;
        start(threads[i], stacks + i * STACK_BYTES, run_thread);
    }
    while (!faulted) {
        for (unsigned warp = 0; warp < count / 32 && !faulted; warp++) {
            run_warp(32 * (backwards ? count / 32 - 1 - warp : warp), backwards);
        }
        if (faulted) return;
        unsigned finished = 0, waiting = 0;
        for (unsigned i = 0; i < count; i++) {
            if (threads[i].state == State::Finished) finished++;
            else waiting = i;
        }
        if (finished == count) return;
        for (unsigned i = 0; i < count; i++) {
            if (threads[i].state == State::Finished || !same(threads[i].site, threads[waiting].site)) {
                return complain("a block's barrier without all threads", waiting, threads[waiting].site);
            }
        }
        for (unsigned i = 0; i < count; i++) threads[i].state = State::Ready;
    }
}

}  // namespace

Registration::Registration(const char* name, unsigned threads, void (*run)(void**))
    : name(name), threads(threads), run(run), next(first_kernel) {
    first_kernel = this;
}

unsigned char* dynamic_shared() { return dynamic; }

void block_barrier(Site site) {
    Thread& thread = threads[running];
    thread.state = State::AtBlock;
    thread.site = site;
    suspend(thread);
}

void warp_collective(void (*resolve)(void* const*), void* operand, Site site, unsigned mask) {
    if (mask != ~0u) fault("a warp operation on part of a warp", site);
    Thread& thread = threads[running];
    thread.state = State::AtWarp;
    thread.site = site;
    thread.resolve = resolve;
    thread.operand = operand;
    suspend(thread);
}

// Copies arrive at once.
void copy_begins(void* shared, const void* global) { memcpy(shared, global, 16); }
void copies_arrive() {}
void row_is_read(const void*) {}

void fault(const char* message, Site site) {
    complain(message, running, site);
    for (;;) suspend(threads[running]);
}

}  // namespace emulation

/// Runs a kernel. 0: done; 1: no such kernel; 2: a fault, which was printed.
extern "C" __attribute__((visibility("default"))) int emulated_launch(const char* name, const unsigned* grid,
                                                                       const unsigned* block, unsigned shared_bytes,
                                                                       void** arguments) {
    using namespace emulation;
    static std::mutex one_at_a_time;
    static unsigned launches = 0;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    const Registration* found = first_kernel;
    while (found && strcmp(found->name, name) != 0) found = found->next;
    if (!found) return 1;
    kernel = found;
    emulation::arguments = arguments;
    faulted = false;
    blockIdx = {0, 0, 0};
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    const unsigned count = block[0] * block[1] * block[2];
    const Site nowhere{"the launch", 0};
    if (count == 0 || count % 32 != 0 || count > kernel->threads) complain("a block of wrong size", count, nowhere);
    if (shared_bytes > MOST_SHARED) complain("too much shared memory", shared_bytes, nowhere);
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0 || grid[1] > 65535 || grid[2] > 65535) {
        complain("a grid of wrong size", 0, nowhere);
    }
    if (faulted) return 2;
    if (!stacks) {
        void* memory = mmap(nullptr, MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) return 2;
        stacks = static_cast<unsigned char*>(memory);
    }
    const unsigned long long blocks = 1ull * grid[0] * grid[1] * grid[2];
    const bool blocks_backwards = launches++ % 2 == 1;
    for (unsigned long long i = 0; i < blocks && !faulted; i++) {
        const unsigned long long b = blocks_backwards ? blocks - 1 - i : i;
        blockIdx = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
        // What a kernel may not read: memory beyond what was asked for is filled as well.
        memset(dynamic, 0xff, shared_bytes + 4096 < MOST_SHARED ? shared_bytes + 4096 : MOST_SHARED);
        run_block(b % 2 == 1);
    }
    return faulted ? 2 : 0;
}

/// Ends the running launch from within: for what a thread of it may not do.
extern "C" __attribute__((visibility("default"))) void emulated_fault(const char* message) {
    emulation::fault(message, {"an access", 0});
}

/// The name of kernel number `index`, or null behind the last.
extern "C" __attribute__((visibility("default"))) const char* emulated_kernel(unsigned index) {
    const emulation::Registration* found = emulation::first_kernel;
    while (found && index-- > 0) found = found->next;
    return found ? found->name : nullptr;
}
