// A libcuda.so.1 that is none: the program's own calls of the driver, on the emulated device.
//
// It holds the program to what the driver's documentation promises and nothing more. Calls only queue work, which runs
// as late as that allows: when somebody waits for it. Uploads read the host's memory then, and downloads write it. With
// `eager` in EMULATED_GPU everything runs at once instead; what a program computes may not depend on which.
//
// Refused, and counted: calls without a context, handles that are not alive, launches beyond a kernel's or a GPU's limits,
// copies and kernels that leave their memory, host memory that is freed while a copy still needs it. An error of the
// device stays, as on a GPU.
//
// EMULATED_GPU has words with commas between them:
//   eager           work runs when it is asked for
//   no-pool         a GPU without memory pools
//   memory=MIB      how much memory it has [81920]
//   no-work         kernels, products and zeroing do nothing: what is left is the host's time
//   fault=KERNEL    this kernel ends in an illegal access
//   skip=KERNEL     this kernel does nothing
//   trace           the report counts launches by kernel
//   record=FILE     launches with all that they need, for `races`: of each kernel the first with a grid and a block
//   record-each=N   so many of several blocks [4], and one of a single block, for each setting of its flags
// `cublaslt.cpp` has more. EMULATED_GPU_REPORT names a file that each process adds its report to; without, it goes to
// stderr where there is something to complain of. Recordings are added to, too.

#include "driver.h"

#include <csignal>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>
#include <set>

#include "memory.h"
#include "module.h"

// The library of the kernels.
extern "C" int emulated_launch(const char* name, const unsigned* grid, const unsigned* block, unsigned shared_bytes,
                               void** arguments);
extern "C" void emulated_fault(const char* message);

namespace emulated_driver {
namespace {

struct Work {
    std::function<void()> run;
    /// Memory of the host that it reads or writes.
    uint64_t host;
    size_t host_bytes;
};

struct Stream {
    std::deque<Work> queue;
    /// Pieces of work that have ever been added and run.
    uint64_t added = 0, ran = 0;
};

struct Event {
    bool timed = false;
    Stream* stream = nullptr;
    uint64_t behind = 0;
    std::chrono::steady_clock::time_point time;

    bool done() const { return !stream || stream->ran >= behind; }
};

struct Module {
    std::map<std::string, Function> functions;
};

/// All there is. Never destroyed: calls may come while the process ends.
struct State {
    std::recursive_mutex mutex;
    bool initialized = false;
    /// How often the one context is retained.
    int retained = 0;
    Result lost = SUCCESS;
    Memory device, host;
    std::set<Stream*> streams;
    std::set<Event*> events;
    std::set<Module*> modules;
    uint64_t threshold = 0;
    uint64_t complaints = 0, launches = 0, products = 0, copies = 0, allocations = 0, waits = 0;
    std::map<std::string, uint64_t> launches_of;
};

State& state = *new State;
int the_context, the_pool;
thread_local void* current = nullptr;
/// The kernel that runs on this thread.
thread_local const char* running = nullptr;

const bool eager = asked("eager"), no_work = asked("no-work"), trace = asked("trace");
const std::string fault_in = value_of("fault"), skipped = value_of("skip");

void say(const std::string& text) { fprintf(stderr, "emulated driver: %s\n", text.c_str()); }

void run_until(Stream& stream, uint64_t number) {
    while (stream.ran < number && !stream.queue.empty()) {
        const Work work = std::move(stream.queue.front());
        stream.queue.pop_front();
        if (!state.lost) work.run();
        stream.ran++;
    }
}

void run_all() {
    for (Stream* stream : state.streams) run_until(*stream, stream->added);
}

void add(Stream& stream, std::function<void()> run, const void* host = nullptr, size_t host_bytes = 0) {
    stream.queue.push_back({std::move(run), reinterpret_cast<uint64_t>(host), host_bytes});
    stream.added++;
    if (eager) run_until(stream, stream.added);
}

Result refuse(Result result, const std::string& what) {
    complain(what);
    return result;
}

size_t memory_limit() {
    static const std::string mebibytes = value_of("memory");
    static const size_t limit = (mebibytes.empty() ? 81920 : strtoull(mebibytes.c_str(), nullptr, 10)) << 20;
    return limit;
}

/// An access of a kernel to memory that nobody may touch ends its launch; all others are the program's own.
struct sigaction previous_action;

void on_fault(int signal, siginfo_t* info, void* context) {
    if (running) {
        const uint64_t address = reinterpret_cast<uint64_t>(info->si_addr);
        emulated_fault(("an access to " + state.device.place(address)).c_str());
    }
    if (previous_action.sa_flags & SA_SIGINFO && previous_action.sa_sigaction) {
        previous_action.sa_sigaction(signal, info, context);
    } else {
        sigaction(signal, &previous_action, nullptr);
    }
}

void catch_faults() {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    // The handler does not return from a kernel's fault, so the signal may come again.
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGSEGV, &action, &previous_action);
}

/// A launch that is about to run.
struct Launch {
    std::string name;
    unsigned grid[3], block[3], shared;
    std::vector<uint64_t> slots;
    /// Parameters of one byte.
    std::string flags;
};

/// Writes launches as `races/replay.cpp` reads them.
void record(const Launch& launch) {
    static const std::string path = value_of("record"), each = value_of("record-each");
    if (path.empty()) return;
    static FILE* const file = fopen(path.c_str(), "ab");
    static std::map<std::string, std::set<std::vector<unsigned>>> recorded;
    const auto& [name, grid, block, shared, slots, flags] = launch;
    const bool single = grid[0] == 1 && grid[1] == 1 && grid[2] == 1;
    const size_t most = single ? 1 : each.empty() ? 4 : strtoull(each.c_str(), nullptr, 10);
    const std::vector<unsigned> size = {grid[0], grid[1], grid[2], block[0], block[1], block[2]};
    auto& sizes = recorded[name + (single ? " alone " : " ") + flags];
    if (!file || sizes.size() >= most || !sizes.insert(size).second) return;
    std::map<uint64_t, size_t> memory;
    for (const uint64_t slot : slots) {
        if (const auto found = state.device.allocation(slot)) memory.insert(*found);
    }
    fprintf(file, "%s", name.c_str());
    for (const unsigned number : size) fprintf(file, " %u", number);
    fprintf(file, " %u %zu %zu\n", shared, slots.size(), memory.size());
    fwrite(slots.data(), 8, slots.size(), file);
    for (const auto [address, bytes] : memory) {
        const uint64_t place[2] = {address, bytes};
        fwrite(place, 1, sizeof place, file);
        fwrite(reinterpret_cast<const void*>(address), 1, bytes, file);
    }
    fflush(file);
}

std::string report() {
    std::string text;
    const auto line = [&](const char* name, uint64_t count) {
        text += std::string(name) + " " + std::to_string(count) + "\n";
    };
    uint64_t queued = 0;
    for (const Stream* stream : state.streams) queued += stream->queue.size();
    line("complaints", state.complaints);
    line("launches", state.launches);
    line("products", state.products);
    line("copies", state.copies);
    line("allocations", state.allocations);
    line("waits", state.waits);
    line("left-in-streams", queued);
    line("left-allocated", state.device.count());
    line("left-page-locked", state.host.count());
    line("left-events", state.events.size());
    line("peak-bytes", state.device.peak);
    if (trace) {
        for (const auto& [name, count] : state.launches_of) line(name.c_str(), count);
    }
    return text;
}

__attribute__((destructor)) void write_report() {
    if (const char* path = getenv("EMULATED_GPU_REPORT")) {
        if (FILE* file = fopen(path, "a")) {
            fputs(report().c_str(), file);
            fclose(file);
        }
    } else if (state.complaints > 0) {
        fputs(report().c_str(), stderr);
    }
}

}  // namespace

bool asked(const char* word) {
    const char* words = getenv("EMULATED_GPU");
    return words && ("," + std::string(words) + ",").find("," + std::string(word) + ",") != std::string::npos;
}

std::string value_of(const char* name) {
    const char* all = getenv("EMULATED_GPU");
    const std::string words = "," + std::string(all ? all : "") + ",", start = "," + std::string(name) + "=";
    const size_t at = words.find(start);
    if (at == std::string::npos) return "";
    const size_t value = at + start.size();
    return words.substr(value, words.find(',', value) - value);
}

void complain(const std::string& what) {
    state.complaints++;
    say(what);
}

void lose_device(Result result, const std::string& what) {
    complain(what);
    if (!state.lost) state.lost = result;
}

void enqueue(void* stream, std::function<void()> work) {
    const std::lock_guard<std::recursive_mutex> lock(state.mutex);
    if (!no_work) add(*static_cast<Stream*>(stream), std::move(work));
}

bool is_stream(void* stream) {
    const std::lock_guard<std::recursive_mutex> lock(state.mutex);
    return state.streams.count(static_cast<Stream*>(stream)) > 0;
}

bool inside(uint64_t address, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> lock(state.mutex);
    return state.device.inside(address, bytes);
}

bool usable() {
    const std::lock_guard<std::recursive_mutex> lock(state.mutex);
    return current == &the_context && state.retained > 0 && !state.lost;
}

void count_product() {
    const std::lock_guard<std::recursive_mutex> lock(state.mutex);
    state.products++;
}

}  // namespace emulated_driver

using namespace emulated_driver;

/// Begins a call that needs a context: one call at a time, and none on a lost device.
#define CALL                                                                                                           \
    const std::lock_guard<std::recursive_mutex> lock(state.mutex);                                                     \
    if (current != &the_context || state.retained == 0) {                                                              \
        return refuse(INVALID_CONTEXT, std::string(__func__) + " on a thread without a context");                      \
    }                                                                                                                  \
    if (state.lost) return state.lost
/// Begins a call that needs the driver alone.
#define EARLY_CALL                                                                                                     \
    const std::lock_guard<std::recursive_mutex> lock(state.mutex);                                                     \
    if (!state.initialized) return refuse(NOT_INITIALIZED, std::string(__func__) + " before cuInit")
#define ALIVE(set, handle)                                                                                             \
    if (state.set.count(handle) == 0) return refuse(INVALID_HANDLE, std::string(__func__) + ": no handle of " #set)
#define EXPECT(condition, what)                                                                                        \
    if (!(condition)) return refuse(INVALID_VALUE, std::string(__func__) + ": " what)

// Before there is a context.

API Result cuInit(unsigned flags) {
    EXPECT(flags == 0, "flags");
    state.initialized = true;
    return SUCCESS;
}

API Result cuDriverGetVersion(int* version) {
    *version = 13000;
    return SUCCESS;
}

API Result cuGetErrorString(Result result, const char** text) {
    static const std::map<Result, const char*> texts = {
        {SUCCESS, "no error"},
        {INVALID_VALUE, "invalid argument"},
        {OUT_OF_MEMORY, "out of memory"},
        {NOT_INITIALIZED, "initialization error"},
        {INVALID_DEVICE, "invalid device ordinal"},
        {INVALID_CONTEXT, "invalid device context"},
        {INVALID_HANDLE, "invalid resource handle"},
        {NOT_FOUND, "named symbol not found"},
        {NOT_READY, "device not ready"},
        {ILLEGAL_ADDRESS, "an illegal memory access was encountered"},
        {LAUNCH_OUT_OF_RESOURCES, "too many resources requested for launch"},
        {MISALIGNED_ADDRESS, "misaligned address"},
        {LAUNCH_FAILED, "unspecified launch failure"},
    };
    const auto found = texts.find(result);
    *text = found == texts.end() ? nullptr : found->second;
    return found == texts.end() ? INVALID_VALUE : SUCCESS;
}

API Result cuDeviceGetCount(int* count) {
    EARLY_CALL;
    *count = 1;
    return SUCCESS;
}

API Result cuDeviceGet(int* device, int ordinal) {
    EARLY_CALL;
    if (ordinal != 0) return INVALID_DEVICE;
    *device = 0;
    return SUCCESS;
}

API Result cuDeviceGetName(char* name, int length, int) {
    EARLY_CALL;
    snprintf(name, length, "emulated GPU behind a driver");
    return SUCCESS;
}

API Result cuDeviceTotalMem_v2(size_t* bytes, int) {
    EARLY_CALL;
    *bytes = memory_limit();
    return SUCCESS;
}

/// What a block may have on every GPU from Ampere on; the emulated device has no more.
static constexpr int MOST_SHARED = 99 << 10;

API Result cuDeviceGetAttribute(int* value, int attribute, int) {
    EARLY_CALL;
    static const std::map<int, int> values = {
        {1, 1024},           // threads of a block
        {8, 48 << 10},       // shared memory of a block
        {10, 32},            // lanes of a warp
        {13, 1'980'000},     // clock, kHz
        {16, 132},           // multiprocessors
        {36, 2'619'000},     // clock of the memory, kHz
        {37, 5120},          // width of its bus
        {38, 50 << 20},      // second-level cache
        {39, 2048},          // threads of a multiprocessor
        {75, 9},             // compute capability
        {76, 0},
        {81, 228 << 10},     // shared memory of a multiprocessor
        {82, 64 << 10},      // its registers
        {97, MOST_SHARED},   // shared memory of a block that asks for it
        {115, asked("no-pool") ? 0 : 1},
    };
    const auto found = values.find(attribute);
    if (found == values.end()) {
        return refuse(INVALID_VALUE, "attribute " + std::to_string(attribute) + " of a device is not known here");
    }
    *value = found->second;
    return SUCCESS;
}

API Result cuDevicePrimaryCtxRetain(void** context, int) {
    EARLY_CALL;
    if (state.retained++ == 0) catch_faults();
    state.device.filled = !no_work;
    *context = &the_context;
    return SUCCESS;
}

API Result cuDevicePrimaryCtxRelease_v2(int) {
    EARLY_CALL;
    EXPECT(state.retained > 0, "not retained");
    if (--state.retained == 0) {
        // All that is the context's goes with it.
        run_all();
        state.device.free_all();
        state.lost = SUCCESS;
    }
    return SUCCESS;
}

API Result cuCtxSetCurrent(void* context) {
    EARLY_CALL;
    EXPECT(context == nullptr || (context == &the_context && state.retained > 0), "no context");
    current = context;
    return SUCCESS;
}

API Result cuCtxGetCurrent(void** context) {
    EARLY_CALL;
    *context = current;
    return SUCCESS;
}

API Result cuCtxSynchronize() {
    CALL;
    state.waits++;
    run_all();
    return state.lost;
}

// Streams and events.

API Result cuStreamCreate(void** stream, unsigned flags) {
    CALL;
    EXPECT(flags == 1, "a stream that waits for the default stream");
    *stream = *state.streams.insert(new Stream).first;
    return SUCCESS;
}

API Result cuStreamSynchronize(Stream* stream) {
    CALL;
    ALIVE(streams, stream);
    state.waits++;
    run_until(*stream, stream->added);
    return state.lost;
}

API Result cuStreamQuery(Stream* stream) {
    CALL;
    ALIVE(streams, stream);
    // Somebody may ask until it is done.
    run_until(*stream, stream->ran + 1);
    return state.lost ? state.lost : stream->queue.empty() ? SUCCESS : NOT_READY;
}

API Result cuStreamDestroy_v2(Stream* stream) {
    CALL;
    ALIVE(streams, stream);
    run_until(*stream, stream->added);
    for (Event* event : state.events) {
        if (event->stream == stream) event->stream = nullptr;
    }
    state.streams.erase(stream);
    delete stream;
    return state.lost;
}

API Result cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    CALL;
    ALIVE(streams, stream);
    ALIVE(events, event);
    if (Stream* other = event->stream) {
        add(*stream, [other, behind = event->behind] { run_until(*other, behind); });
    }
    return SUCCESS;
}

API Result cuEventCreate(Event** event, unsigned flags) {
    CALL;
    EXPECT(flags == 0 || flags == 2, "flags");
    *event = *state.events.insert(new Event).first;
    (*event)->timed = flags == 0;
    return SUCCESS;
}

API Result cuEventRecord(Event* event, Stream* stream) {
    CALL;
    ALIVE(events, event);
    ALIVE(streams, stream);
    add(*stream, [event] {
        if (state.events.count(event) > 0) event->time = std::chrono::steady_clock::now();
    });
    event->stream = stream;
    event->behind = stream->added;
    return SUCCESS;
}

API Result cuEventSynchronize(Event* event) {
    CALL;
    ALIVE(events, event);
    state.waits++;
    if (event->stream) run_until(*event->stream, event->behind);
    return state.lost;
}

API Result cuEventQuery(Event* event) {
    CALL;
    ALIVE(events, event);
    if (!event->done()) run_until(*event->stream, event->stream->ran + 1);
    return state.lost ? state.lost : event->done() ? SUCCESS : NOT_READY;
}

API Result cuEventElapsedTime(float* milliseconds, Event* from, Event* to) {
    CALL;
    ALIVE(events, from);
    ALIVE(events, to);
    EXPECT(from->timed && to->timed, "events that keep no time");
    if (!from->done() || !to->done()) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return SUCCESS;
}

API Result cuEventElapsedTime_v2(float* milliseconds, Event* from, Event* to) {
    return cuEventElapsedTime(milliseconds, from, to);
}

API Result cuEventDestroy_v2(Event* event) {
    CALL;
    ALIVE(events, event);
    state.events.erase(event);
    delete event;
    return SUCCESS;
}

// Memory.

API Result cuMemGetInfo_v2(size_t* free, size_t* total) {
    CALL;
    *total = memory_limit();
    *free = *total - std::min(*total, state.device.total);
    return SUCCESS;
}

static Result allocate(uint64_t* address, size_t bytes) {
    EXPECT(bytes > 0, "an allocation of nothing");
    if (state.device.total + bytes > memory_limit()) return OUT_OF_MEMORY;
    *address = state.device.allocate(bytes);
    state.allocations++;
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

static void free_now(uint64_t address) {
    const std::string wrong = state.device.free(address);
    if (!wrong.empty()) lose_device(ILLEGAL_ADDRESS, wrong);
}

API Result cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    CALL;
    return allocate(address, bytes);
}

API Result cuMemFree_v2(uint64_t address) {
    CALL;
    run_all();
    free_now(address);
    return state.lost;
}

API Result cuMemAllocAsync(uint64_t* address, size_t bytes, Stream* stream) {
    CALL;
    ALIVE(streams, stream);
    EXPECT(!asked("no-pool"), "no memory pools");
    return allocate(address, bytes);
}

API Result cuMemFreeAsync(uint64_t address, Stream* stream) {
    CALL;
    ALIVE(streams, stream);
    add(*stream, [address] { free_now(address); });
    return SUCCESS;
}

API Result cuDeviceGetDefaultMemPool(void** pool, int) {
    EARLY_CALL;
    *pool = &the_pool;
    return SUCCESS;
}

API Result cuMemPoolSetAttribute(void* pool, int attribute, void* value) {
    CALL;
    EXPECT(pool == &the_pool, "no pool");
    switch (attribute) {
        case 4: state.threshold = *static_cast<uint64_t*>(value); return SUCCESS;
        case 6:
        case 8: state.device.peak = state.device.total; return SUCCESS;
        default: return refuse(INVALID_VALUE, "an unknown attribute of a pool");
    }
}

API Result cuMemPoolGetAttribute(void* pool, int attribute, void* value) {
    CALL;
    EXPECT(pool == &the_pool, "no pool");
    auto& result = *static_cast<uint64_t*>(value);
    switch (attribute) {
        case 4: result = state.threshold; return SUCCESS;
        case 5:
        case 7: result = state.device.total; return SUCCESS;
        case 6:
        case 8: result = state.device.peak; return SUCCESS;
        default: return refuse(INVALID_VALUE, "an unknown attribute of a pool");
    }
}

API Result cuMemPoolTrimTo(void* pool, size_t) {
    CALL;
    EXPECT(pool == &the_pool, "no pool");
    return SUCCESS;
}

API Result cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    CALL;
    EXPECT(bytes > 0, "an allocation of nothing");
    *address = reinterpret_cast<void*>(state.host.allocate(bytes));
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

API Result cuMemFreeHost(void* address) {
    CALL;
    for (const Stream* stream : state.streams) {
        for (const Work& work : stream->queue) {
            const bool needed = work.host_bytes > 0 && state.host.inside(work.host, work.host_bytes) &&
                                state.host.same(work.host, reinterpret_cast<uint64_t>(address));
            EXPECT(!needed, "a copy still needs this memory");
        }
    }
    const std::string wrong = state.host.free(reinterpret_cast<uint64_t>(address));
    return wrong.empty() ? SUCCESS : refuse(INVALID_VALUE, wrong);
}

API Result cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, Stream* stream) {
    CALL;
    ALIVE(streams, stream);
    state.copies++;
    const auto copy = [=] {
        if (!inside(to, bytes)) return lose_device(ILLEGAL_ADDRESS, "an upload to " + state.device.place(to + bytes - 1));
        memcpy(reinterpret_cast<void*>(to), from, bytes);
    };
    add(*stream, copy, from, bytes);
    return SUCCESS;
}

API Result cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, Stream* stream) {
    CALL;
    ALIVE(streams, stream);
    state.copies++;
    const auto copy = [=] {
        if (!inside(from, bytes)) {
            return lose_device(ILLEGAL_ADDRESS, "a download from " + state.device.place(from + bytes - 1));
        }
        memcpy(to, reinterpret_cast<void*>(from), bytes);
    };
    add(*stream, copy, to, bytes);
    return SUCCESS;
}

API Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, Stream* stream) {
    CALL;
    ALIVE(streams, stream);
    state.copies++;
    add(*stream, [=] {
        if (!inside(from, bytes) || !inside(to, bytes)) {
            return lose_device(ILLEGAL_ADDRESS, "a copy that leaves its memory");
        }
        memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes);
    });
    return SUCCESS;
}

API Result cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, Stream* stream) {
    CALL;
    ALIVE(streams, stream);
    if (no_work) return SUCCESS;
    add(*stream, [=] {
        if (!inside(at, bytes)) return lose_device(ILLEGAL_ADDRESS, "memory is set at " + state.device.place(at + bytes - 1));
        memset(reinterpret_cast<void*>(at), value, bytes);
    });
    return SUCCESS;
}

// Kernels.

API Result cuModuleLoadDataEx(Module** module, const void* image, unsigned count, const int* options, void**) {
    CALL;
    for (unsigned i = 0; i < count; i++) {
        // The buffers of the compiler's messages, and their sizes; where a driver's compiler may look for line numbers.
        EXPECT((options[i] >= 3 && options[i] <= 6) || options[i] == 12 || options[i] == 13, "an unknown option");
    }
    auto loaded = std::make_unique<Module>();
    const std::string wrong = read_ptx(static_cast<const char*>(image), loaded->functions);
    if (!wrong.empty()) return refuse(INVALID_VALUE, wrong);
    *module = *state.modules.insert(loaded.release()).first;
    return SUCCESS;
}

API Result cuModuleUnload(Module* module) {
    CALL;
    ALIVE(modules, module);
    run_all();
    state.modules.erase(module);
    delete module;
    return state.lost;
}

API Result cuModuleGetFunction(Function** function, Module* module, const char* name) {
    CALL;
    ALIVE(modules, module);
    const auto found = module->functions.find(name);
    if (found == module->functions.end()) return NOT_FOUND;
    *function = &found->second;
    return SUCCESS;
}

API Result cuFuncSetAttribute(Function* function, int attribute, int value) {
    CALL;
    EXPECT(attribute == 8, "an unknown attribute");
    if (value < 0 || value + function->static_shared > unsigned(MOST_SHARED)) {
        return refuse(INVALID_VALUE, function->name + ": more shared memory than a block can have");
    }
    function->allowed_shared = value;
    return SUCCESS;
}

/// What is wrong with a launch of this size, or nothing.
static std::string wrong_size(const Function& function, const unsigned* grid, const unsigned* block, unsigned shared) {
    const auto most = [](unsigned number, unsigned limit) { return number >= 1 && number <= limit; };
    if (!most(grid[0], 0x7fffffff) || !most(grid[1], 65535) || !most(grid[2], 65535)) return "a grid of wrong size";
    if (!most(block[0], 1024) || !most(block[1], 1024) || !most(block[2], 64)) return "a block of wrong size";
    if (block[0] * block[1] * block[2] > function.most_threads) return "more threads than the kernel is made for";
    if (shared > function.allowed_shared) return "more shared memory than was asked for";
    if (shared + function.static_shared > std::max(function.allowed_shared, 48u << 10)) return "too much shared memory";
    return "";
}

API Result cuLaunchKernel(Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared, Stream* stream, void** parameters,
                          void** extra) {
    CALL;
    ALIVE(streams, stream);
    EXPECT(!extra, "parameters in another form");
    auto launch = std::make_shared<Launch>(
        Launch{function->name, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared, {}, {}});
    const std::string wrong = wrong_size(*function, launch->grid, launch->block, shared);
    if (!wrong.empty()) return refuse(INVALID_VALUE, function->name + ": " + wrong);
    state.launches++;
    if (trace) state.launches_of[function->name]++;
    if (no_work || function->name == skipped) return SUCCESS;
    // The driver takes the parameters at the call.
    for (size_t i = 0; i < function->parameters.size(); i++) {
        uint64_t slot = 0;
        memcpy(&slot, parameters[i], function->parameters[i]);
        launch->slots.push_back(slot);
        if (function->parameters[i] == 1) launch->flags += slot ? '1' : '0';
    }
    add(*stream, [launch] {
        std::vector<void*> pointers;
        for (uint64_t& slot : launch->slots) pointers.push_back(&slot);
        const char* name = launch->name.c_str();
        if (launch->name == fault_in) return lose_device(ILLEGAL_ADDRESS, launch->name + ": a fault that was asked for");
        record(*launch);
        running = name;
        const int failed = emulated_launch(name, launch->grid, launch->block, launch->shared, pointers.data());
        running = nullptr;
        if (failed == 1) lose_device(LAUNCH_FAILED, launch->name + " is in the PTX and not in the sources");
        if (failed == 2) lose_device(ILLEGAL_ADDRESS, launch->name + " has failed");
    });
    return SUCCESS;
}
