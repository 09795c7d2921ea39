// pyramid: an image at half its resolution.
//
//   out[c, y, x] = mean of in[c, 2y ... 2y + 1, 2x ... 2x + 1], of those pixels that exist;
//                  whole numbers round to the nearest, ties to the even one
//
// Layout    channels, rows and columns; out is (n_channels, (n_rows + 1) / 2, (n_columns + 1) / 2).
// Units     those of the image.
// Launch    1 thread per pixel of out; grid-stride over all of them.
// Writes    every element of out exactly once.
// Oracle    tests/kernels/slow.py, half, in exact fractions
#include "problem.cuh"

// The mean of `n` whole numbers by their sum.
__device__ inline long long mean_of(long long sum, int n) {
    const long long mean = sum / n, twice = 2 * (sum - mean * n);
    return mean + (twice > n || (twice == n && mean % 2 != 0));
}

__device__ inline float mean_of(double sum, int n) {
    return (float)(sum / n);
}

template <class Pixel, class Sum>
__device__ inline void
halve(const Pixel* in, long long n_channels, long long n_rows, long long n_columns, Pixel* out) {
    const long long to_rows = (n_rows + 1) / 2, to_columns = (n_columns + 1) / 2;
    const long long n = n_channels * to_rows * to_columns;
    for (long long i = first_item(); i < n; i += item_stride()) {
        const long long line = i / to_columns;
        const long long column = 2 * (i - line * to_columns);
        const long long channel = line / to_rows;
        const long long row = 2 * (line - channel * to_rows);
        const Pixel* at = in + (channel * n_rows + row) * n_columns + column;
        const bool below = row + 1 < n_rows, right = column + 1 < n_columns;
        Sum sum = at[0];
        if (right) sum += at[1];
        if (below) sum += at[n_columns];
        if (below && right) sum += at[n_columns + 1];
        out[i] = (Pixel)mean_of(sum, (below ? 2 : 1) * (right ? 2 : 1));
    }
}

extern "C" __global__ void pyramid_u8(
    const unsigned char* __restrict__ in, // (n_channels, n_rows, n_columns)
    const long long n_channels,
    const long long n_rows,
    const long long n_columns,
    unsigned char* __restrict__ out) { // (n_channels, (n_rows + 1) / 2, (n_columns + 1) / 2)
    halve<unsigned char, long long>(in, n_channels, n_rows, n_columns, out);
}

extern "C" __global__ void pyramid_u16(
    const unsigned short* __restrict__ in, // (n_channels, n_rows, n_columns)
    const long long n_channels,
    const long long n_rows,
    const long long n_columns,
    unsigned short* __restrict__ out) { // (n_channels, (n_rows + 1) / 2, (n_columns + 1) / 2)
    halve<unsigned short, long long>(in, n_channels, n_rows, n_columns, out);
}

extern "C" __global__ void pyramid_f32(
    const float* __restrict__ in, // (n_channels, n_rows, n_columns)
    const long long n_channels,
    const long long n_rows,
    const long long n_columns,
    float* __restrict__ out) { // (n_channels, (n_rows + 1) / 2, (n_columns + 1) / 2)
    halve<float, double>(in, n_channels, n_rows, n_columns, out);
}
