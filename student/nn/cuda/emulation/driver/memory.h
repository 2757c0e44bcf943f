// Memory whose bounds are looked after: every allocation ends at a page that nobody may touch, and so does what is freed.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <sys/mman.h>

namespace emulated_driver {

/// Allocations by their addresses.
class Memory {
   public:
    /// Filled with ones, if at all: no number in any format, and no index of anything. 0 where the machine has no more.
    uint64_t allocate(size_t bytes) {
        const size_t used = round_up(bytes, ALIGNMENT), pages = round_up(used, PAGE);
        void* start = mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (start == MAP_FAILED) return 0;
        auto* first = static_cast<unsigned char*>(start);
        mprotect(first + pages, PAGE, PROT_NONE);
        if (filled) memset(first, FILLING, pages);
        const uint64_t address = reinterpret_cast<uint64_t>(first + pages - used);
        live[address] = {bytes, first, pages};
        total += bytes;
        if (total > peak) peak = total;
        return address;
    }

    /// Says what is wrong with freeing it, or nothing.
    std::string free(uint64_t address) {
        const auto found = live.find(address);
        if (found == live.end()) return "memory is freed that is not allocated";
        const auto [bytes, start, pages] = found->second;
        const auto* data = reinterpret_cast<unsigned char*>(address);
        const bool touched = filled && (!untouched(start, data) || !untouched(data + bytes, start + pages));
        live.erase(found);
        total -= bytes;
        // The addresses are never given to anybody else, so that a late access is found.
        mmap(start, pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        return touched ? "memory right beside an allocation of " + std::to_string(bytes) + " bytes was written" : "";
    }

    /// All of it, with what it is part of.
    void free_all() {
        while (!live.empty()) free(live.begin()->first);
    }

    bool inside(uint64_t address, size_t bytes) const {
        const auto found = around(address);
        return found != live.end() && address + bytes <= found->first + found->second.bytes;
    }

    /// Start and size of the allocation that an address lies in.
    std::optional<std::pair<uint64_t, size_t>> allocation(uint64_t address) const {
        const auto found = around(address);
        if (!inside(address, 1)) return std::nullopt;
        return std::pair(found->first, found->second.bytes);
    }

    /// Whether an address lies in the allocation that begins at `start`.
    bool same(uint64_t address, uint64_t start) const {
        const auto found = around(address);
        return found != live.end() && found->first == start;
    }

    /// Where an address is that no allocation has.
    std::string place(uint64_t address) const {
        const auto found = around(address);
        if (found == live.end()) return "an address that is not allocated";
        const auto [bytes, start, pages] = found->second;
        if (address >= reinterpret_cast<uint64_t>(start) + pages + PAGE) return "an address that is not allocated";
        return "byte " + std::to_string(address - found->first) + " of an allocation of " + std::to_string(bytes);
    }

    size_t count() const { return live.size(); }

    /// Bytes that are allocated now, and the most there were.
    size_t total = 0, peak = 0;
    bool filled = true;

   private:
    struct Allocation {
        size_t bytes;
        unsigned char* start;
        size_t pages;
    };

    // Less than a driver's 512: nothing may count on more than is documented.
    static constexpr size_t ALIGNMENT = 256, PAGE = 4096;
    static constexpr unsigned char FILLING = 0xff;

    static size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

    static bool untouched(const unsigned char* from, const unsigned char* end) {
        while (from < end) {
            if (*from++ != FILLING) return false;
        }
        return true;
    }

    std::map<uint64_t, Allocation>::const_iterator around(uint64_t address) const {
        auto found = live.upper_bound(address);
        return found == live.begin() ? live.end() : --found;
    }

    std::map<uint64_t, Allocation> live;
};

}  // namespace emulated_driver
