// Runs recorded launches with a thread of the machine for each thread of a block, under ThreadSanitizer.
//
// A launch's blocks are dealt to two copies of the kernels' library, each with shared memory of its own, which run side
// by side: what blocks do to each other's memory is found too. Of many blocks a few are run.
//
// usage: replay [--blocks N] [--only PART-OF-A-NAME] RECORDING KERNELS.so COPY-OF-KERNELS.so
//        replay --planted NAME KERNELS.so COPY-OF-KERNELS.so
// The exit status is ThreadSanitizer's, 66 unless told otherwise, where there is a race.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <pthread.h>
#include <set>
#include <string>
#include <thread>
#include <vector>

using RunBlocks = int (*)(const char*, const unsigned*, const unsigned*, unsigned, void**, const unsigned long long*,
                          size_t, pthread_barrier_t*);

struct Launch {
    std::string name;
    unsigned grid[3], block[3], shared;
    std::vector<uint64_t> parameters;
};

[[noreturn]] static void fail(const std::string& what) {
    fprintf(stderr, "replay: %s\n", what.c_str());
    exit(2);
}

static RunBlocks open(const char* path) {
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void* found = library ? dlsym(library, "run_blocks") : nullptr;
    if (!found) fail(dlerror());
    return reinterpret_cast<RunBlocks>(found);
}

/// Numbers of at most `most` of them: the first two, the last, and some in between.
static std::vector<unsigned long long> some_of(unsigned long long blocks, unsigned long long most) {
    std::set<unsigned long long> chosen;
    for (unsigned long long i = 0; i + 1 < most && i < blocks; i++) {
        chosen.insert(i < 2 ? i : 1 + (i - 1) * (blocks - 2) / (most - 2));
    }
    chosen.insert(blocks - 1);
    return {chosen.begin(), chosen.end()};
}

static void run(const Launch& launch, const RunBlocks (&kernels)[2], unsigned long long most_blocks) {
    const auto chosen = some_of(1ull * launch.grid[0] * launch.grid[1] * launch.grid[2], most_blocks);
    std::vector<uint64_t> slots = launch.parameters;
    std::vector<void*> parameters;
    for (uint64_t& slot : slots) parameters.push_back(&slot);
    const size_t used = chosen.size() > 1 ? 2 : 1;
    pthread_barrier_t all;
    pthread_barrier_init(&all, nullptr, used * launch.block[0] * launch.block[1] * launch.block[2]);
    std::vector<std::thread> halves;
    for (size_t half = 0; half < used; half++) {
        halves.emplace_back([&, half] {
            std::vector<unsigned long long> blocks;
            for (size_t i = half; i < chosen.size(); i += 2) blocks.push_back(chosen[i]);
            const int failed = kernels[half](launch.name.c_str(), launch.grid, launch.block, launch.shared,
                                             parameters.data(), blocks.data(), blocks.size(), &all);
            if (failed) fail(launch.name + " cannot be run: " + std::to_string(failed));
        });
    }
    for (std::thread& half : halves) half.join();
    pthread_barrier_destroy(&all);
}

/// A recording, as the driver's stand-in writes it: a launch's line, its parameters, then each piece of memory that one
/// of them points into.
class Recording {
   public:
    explicit Recording(const char* path) : file(fopen(path, "rb")) {
        if (!file) fail(std::string("no recording ") + path);
    }

    /// The next launch, with memory of its own.
    bool next(Launch& launch) {
        char name[128];
        unsigned *g = launch.grid, *b = launch.block;
        size_t parameters, pieces;
        const int found = fscanf(file, "%127s %u %u %u %u %u %u %u %zu %zu", name, g, g + 1, g + 2, b, b + 1, b + 2,
                                 &launch.shared, &parameters, &pieces);
        if (found != 10) return false;
        fgetc(file);
        launch.name = name;
        launch.parameters.resize(parameters);
        read(launch.parameters.data(), parameters * 8);
        memory.clear();
        for (size_t i = 0; i < pieces; i++) {
            uint64_t place[2];
            read(place, sizeof place);
            const auto [address, bytes] = place;
            // As well aligned as on the device.
            memory.emplace_back(bytes + 256);
            const uint64_t start = (reinterpret_cast<uint64_t>(memory.back().data()) + 255) / 256 * 256;
            read(reinterpret_cast<void*>(start), bytes);
            for (uint64_t& slot : launch.parameters) {
                if (slot >= address && slot < address + bytes) slot = slot - address + start;
            }
        }
        return true;
    }

   private:
    void read(void* to, size_t bytes) {
        if (fread(to, 1, bytes, file) != bytes) fail("the recording is cut off");
    }

    FILE* file;
    std::vector<std::vector<unsigned char>> memory;
};

int main(int count, char** arguments) {
    const char *blocks = "4", *only = "", *planted = nullptr;
    int at = 1;
    for (; at + 1 < count && strncmp(arguments[at], "--", 2) == 0; at += 2) {
        const std::string flag = arguments[at];
        (flag == "--blocks" ? blocks : flag == "--only" ? only : planted) = arguments[at + 1];
    }
    if (count - at != (planted ? 2 : 3)) fail("usage: see the top of replay.cpp");
    const RunBlocks kernels[2] = {open(arguments[count - 2]), open(arguments[count - 1])};
    if (planted) {
        std::vector<float> memory(4096);
        const uint64_t address = (reinterpret_cast<uint64_t>(memory.data()) + 255) / 256 * 256;
        run({planted, {2, 1, 1}, {64, 1, 1}, 1024, {address}}, kernels, 2);
        return 0;
    }
    Recording recording(arguments[at]);
    std::set<std::string> names;
    size_t launches = 0;
    for (Launch launch; recording.next(launch);) {
        if (launch.name.find(only) == std::string::npos) continue;
        launches++;
        names.insert(launch.name);
        run(launch, kernels, strtoull(blocks, nullptr, 10));
    }
    printf("%zu launches of %zu kernels\n", launches, names.size());
}
