// Values of a spectrum as they lie in the file: little-endian, at any byte.
#pragma once

enum Stored { STORED_F4 = 0, STORED_F8 = 1, STORED_I4 = 2, STORED_I8 = 3 };

enum Fault { FAULT_ORDER = 1, FAULT_MZ = 2, FAULT_INTENSITY = 4, FAULT_NEGATIVE = 8 };

__device__ inline int stored_bytes(int dtype) {
    return dtype == STORED_F4 || dtype == STORED_I4 ? 4 : 8;
}

// The 4 bytes at byte `at`. Only words that hold some of them are read.
__device__ inline unsigned int load_word(const unsigned int* raw, long long at) {
    const long long word = at >> 2;
    const unsigned int shift = 8 * (unsigned int)(at & 3);
    if (shift == 0) return raw[word];
    return raw[word] >> shift | raw[word + 1] << (32 - shift);
}

// A float64 needs no more than the alignment of 4 bytes: it is read as two words.
__device__ inline unsigned long long load_two_words(const unsigned int* raw, long long at) {
    return load_word(raw, at) | (unsigned long long)load_word(raw, at + 4) << 32;
}

// Value number `k` of the array of `dtype` at byte `at`, as float64 (int64 rounds to even).
__device__ inline double load_value(const unsigned int* raw, long long at, long long k, int dtype) {
    at += k * stored_bytes(dtype);
    if (dtype == STORED_F4) return __int_as_float((int)load_word(raw, at));
    if (dtype == STORED_I4) return (int)load_word(raw, at);
    const long long bits = (long long)load_two_words(raw, at);
    return dtype == STORED_F8 ? __longlong_as_double(bits) : (double)bits;
}
