// The words of CUDA C++ that our kernels use, for a compiler that knows C++ only.
//
// Kernels whose threads do not talk to each other need no more than a loop over blocks and
// threads. `launch` takes arguments as cudaLaunchKernel does: an array of their addresses.
#pragma once
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__

struct Index {
    unsigned x, y, z;
};
static thread_local Index blockIdx, blockDim, gridDim, threadIdx;

inline float __int_as_float(int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline double __longlong_as_double(long long bits) {
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

namespace shim {

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(arguments[I])...);
}

// Runs every thread of every block, one after the other; from the last to the first where
// `backwards`, so that a thread that leans on another one's work is found out.
template <class... A>
void launch(
    void (*kernel)(A...), unsigned blocks, unsigned threads, int backwards, void** arguments) {
    gridDim = {blocks, 1, 1};
    blockDim = {threads, 1, 1};
    for (unsigned n = 0; n < blocks * threads; ++n) {
        const unsigned at = backwards ? blocks * threads - 1 - n : n;
        blockIdx = {at / threads, 0, 0};
        threadIdx = {at % threads, 0, 0};
        call(kernel, arguments, std::index_sequence_for<A...>());
    }
}

} // namespace shim
