// decode: the points of a batch out of the bytes of the file.
//
//   mz[i], intensity[i] = the stored values as float64
//   position[i]         = where mz[i] lies on the axis
//   fault[i]            = FAULT_* bits: out of order, not a number, out of range, negative
//
// Layout    raw is little-endian, arrays begin at any byte; spectrum s owns points
//           [offset[s], offset[s + 1]); several spectra may share one m/z array.
// Units     mz in Th, intensity in counts, position in bins (Th for listed centres).
// Launch    1 thread per point; grid-stride over n_points.
// Writes    every element of owner, mz, intensity, position and fault exactly once.
// Oracle    gpuconvert/spectra.py, decode and find_faults; MassAxis.position
#include "axis.cuh"
#include "raw.cuh"

extern "C" __global__ void decode(
    const Problem* __restrict__ problem,
    const unsigned int* __restrict__ raw,       // (n_words,)
    const long long* __restrict__ mz_at,        // (n_spectra,) byte of the first value
    const long long* __restrict__ intensity_at, // (n_spectra,)
    const long long* __restrict__ offset,       // (n_spectra + 1,)
    const long long n_spectra,
    const long long n_points,
    const int mz_dtype, // a Stored
    const int intensity_dtype,
    int* __restrict__ owner,             // (n_points,) spectrum
    double* __restrict__ mz,             // (n_points,)
    double* __restrict__ intensity,      // (n_points,)
    double* __restrict__ position,       // (n_points,)
    unsigned char* __restrict__ fault) { // (n_points,)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        const long long s = last_not_above(offset, n_spectra, i);
        const long long k = i - offset[s];
        const double m = load_value(raw, mz_at[s], k, mz_dtype);
        const double count = load_value(raw, intensity_at[s], k, intensity_dtype);
        unsigned char bits = 0;
        if (k > 0 && m < load_value(raw, mz_at[s], k - 1, mz_dtype)) bits |= FAULT_ORDER;
        if (!(m >= 0 && m <= problem->max_mz)) bits |= FAULT_MZ;
        if (!(fabs(count) <= problem->max_intensity)) bits |= FAULT_INTENSITY;
        if (count < 0) bits |= FAULT_NEGATIVE;
        owner[i] = (int)s;
        mz[i] = m;
        intensity[i] = count;
        position[i] = position_of(m, *problem);
        fault[i] = bits;
    }
}
