// What a driver learns of kernels from their PTX: names, parameters, the largest block, static shared memory.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace emulated_driver {

struct Function {
    std::string name;
    /// Bytes of each parameter.
    std::vector<size_t> parameters;
    unsigned most_threads = 1024;
    unsigned static_shared = 0;
    /// Dynamic shared memory that was asked for.
    unsigned allowed_shared = 48 << 10;
};

/// The kernels of a module, or what is not understood of its text.
inline std::string read_ptx(const std::string& text, std::map<std::string, Function>& functions) {
    const auto number_at = [&](size_t at) { return static_cast<unsigned>(strtoul(text.c_str() + at, nullptr, 10)); };
    const std::string entry = ".visible .entry ";
    if (text.find(".version ") == std::string::npos) return "the module is no PTX";
    for (size_t at = text.find(entry), next; at != std::string::npos; at = next) {
        next = text.find(entry, at + 1);
        const size_t end = next == std::string::npos ? text.size() : next;
        const size_t name = at + entry.size(), open = text.find('(', name), close = text.find(')', open);
        Function function;
        function.name = text.substr(name, open - name);
        for (size_t p = text.find(".param .", open); p < close; p = text.find(".param .", p + 1)) {
            // As in `.param .u64 name`: the last digits of the type are its bits.
            const size_t bits = number_at(p + sizeof(".param .")), bytes = bits / 8;
            if (bytes == 0 || bytes > 8) return function.name + ": a parameter of an unknown type";
            function.parameters.push_back(bytes);
        }
        const size_t bound = text.find(".maxntid ", close);
        if (bound < end) function.most_threads = number_at(bound + sizeof(".maxntid"));
        for (size_t s = text.find(".shared .align ", close); s < end; s = text.find(".shared .align ", s + 1)) {
            const size_t line = text.find('\n', s), bracket = text.find('[', s);
            const size_t type = text.find(".b8 ", s);
            if (bracket > line || type > line) return function.name + ": shared memory of an unknown kind";
            function.static_shared += number_at(bracket + 1);
        }
        functions[function.name] = function;
    }
    return functions.empty() ? "the module has no kernels" : "";
}

}  // namespace emulated_driver
