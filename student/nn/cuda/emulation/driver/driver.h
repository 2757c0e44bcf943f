// What the emulated driver and the emulated cuBLASLt know of each other, and how both say what they found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#define EXPORTED __attribute__((visibility("default")))
#define API extern "C" EXPORTED

namespace emulated_driver {

/// Results of the driver, by CUDA's numbers.
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
};

/// Whether the environment's EMULATED_GPU, words with commas between them, has this word; of NAME=VALUE, the value.
EXPORTED bool asked(const char* word);
EXPORTED std::string value_of(const char* name);

/// Says what a call did wrong, and counts it.
EXPORTED void complain(const std::string& what);
/// The same of work on the device, which from then on fails at every call, as on a GPU.
EXPORTED void lose_device(Result result, const std::string& what);

/// Adds work to a stream. It runs when somebody waits for it, or at once where EMULATED_GPU says `eager`.
EXPORTED void enqueue(void* stream, std::function<void()> work);
EXPORTED bool is_stream(void* stream);
/// Whether all of these bytes are one allocation's, as the work before has left the memory.
EXPORTED bool inside(uint64_t address, size_t bytes);
/// Whether a context is current on this thread and the device is not lost.
EXPORTED bool usable();
EXPORTED void count_product();

}  // namespace emulated_driver
