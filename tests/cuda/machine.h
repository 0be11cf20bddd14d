// What generated CUDA needs of a GPU, on a CPU: for tests only.
//
// A block's threads are fibers (machine.cpp), so that they can wait for one another; blocks run one after the other, and
// what they share is static. Copies in the background are made when they are waited for and not before. Whatever GPUs
// leave undefined (a barrier that not all threads reach, a shuffle by some of a warp) ends the launch with an error.
#pragma once
#include <cmath>
#include <cstring>
#include <utility>

struct Position {
    unsigned x, y, z;
};
extern "C" {
extern Position threadIdx, blockIdx;
extern unsigned char *dynamic_memory;  // what a launch asked for
void wait_for_block(int site);
void wait_for_warp(int site);
void fail(const char *what);
void *given(int lane);  // 64 bytes that a thread of the same warp shows to the others
int lane_of_thread();
void copy_later(void *to, const void *from, bool there);
void commit_copies();
void copies_are_made(int still);
}

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __shared__ static
#define SHARED_MEMORY(name) unsigned char *const name = dynamic_memory
#define __syncthreads() wait_for_block(__LINE__)
#define __syncwarp() wait_for_warp(__LINE__)

// The value that another lane has.
template <typename T> T shuffled(T value, int lane, int site) {
    static_assert(sizeof(T) <= 64, "a value that fits");
    memcpy(given(lane_of_thread()), &value, sizeof(T));
    wait_for_warp(site);
    memcpy(&value, given(lane), sizeof(T));
    wait_for_warp(site);
    return value;
}
#define __shfl_xor_sync(mask, value, distance) shuffled(value, lane_of_thread() ^ (distance), __LINE__)

template <int still> void wait_for_copies() { copies_are_made(still); }

inline float half_to_float(unsigned short h) {
    const unsigned sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, digits = h & 1023;
    const float size = exponent == 31 ? (digits ? NAN : INFINITY)
                                      : ldexpf(exponent ? 1024 + digits : digits, (exponent ? exponent : 1) - 25);
    return sign ? -size : size;
}

// Round to the nearest, ties to even: rint does, once the last digit that is kept is worth 1.
inline unsigned short float_to_half(float x) {
    const unsigned short sign = std::signbit(x) ? 0x8000 : 0;
    const float size = fabsf(x);
    if (std::isnan(x)) return 0x7fff;
    if (size >= 65520.0f) return sign | 0x7c00;
    int exponent = 0;
    frexpf(size, &exponent);
    const int last = exponent < -13 || size == 0 ? -24 : exponent - 11;
    const int digits = (int)rintf(ldexpf(size, -last));
    return sign | (last == -24 ? digits : ((last + 24) << 10) + digits);
}

inline unsigned short float_to_bfloat(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return std::isnan(x) ? 0x7fff : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// Tensor cores. A warp's matrices are spread over its lanes: lane l has 4 bytes of row l / 4, the (l % 4)-th.

inline void load_rows(unsigned (&x)[4], const void *row, bool transposed, int site) {
    if ((std::size_t)row % 16) fail("a row of a matrix that is not aligned");
    const int lane = lane_of_thread();
    memcpy(given(lane), &row, sizeof(row));
    wait_for_warp(site);
    for (int n = 0; n < 4; ++n) {
        unsigned short two[2];
        for (int half = 0; half < 2; ++half) {
            const unsigned short *line;
            memcpy(&line, given(8 * n + (transposed ? lane % 4 * 2 + half : lane / 4)), sizeof(line));
            two[half] = line[transposed ? lane / 4 : lane % 4 * 2 + half];
        }
        memcpy(&x[n], two, 4);
    }
    wait_for_warp(site);
}
#define load_matrices(x, row) load_rows(x, row, false, __LINE__)
#define load_transposed(x, row) load_rows(x, row, true, __LINE__)

inline unsigned rounded_to_tf32(unsigned x) { return (x + 0x1000u) & ~0x1fffu; }

enum Kind { FLOAT16, BFLOAT16, FLOAT32 };

inline float element(const unsigned *registers, int word, int place, Kind kind) {
    unsigned bits = registers[word];
    if (kind != FLOAT32) bits = place ? bits >> 16 : bits & 0xffffu;
    if (kind == FLOAT16) return half_to_float(bits);
    bits = kind == BFLOAT16 ? bits << 16 : bits & ~0x1fffu;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline void multiply(float (&c)[4], const unsigned (&x)[4], const unsigned (&y)[2], Kind kind, int site) {
    const int lane = lane_of_thread(), words = kind == FLOAT32 ? 1 : 2;  // elements of a register
    memcpy(given(lane), x, 16);
    memcpy((char *)given(lane) + 16, y, 8);
    wait_for_warp(site);
    for (int n = 0; n < 4; ++n) {
        const int row = lane / 4 + n / 2 * 8, column = lane % 4 * 2 + n % 2;
        double sum = 0;
        for (int k = 0; k < 8 * words; ++k) {
            const int half = k / (4 * words), owner = k % (4 * words) / words, place = k % words;
            const unsigned *left = (const unsigned *)given(row % 8 * 4 + owner);
            const unsigned *right = (const unsigned *)given(column * 4 + owner) + 4;
            sum += (double)element(left, row / 8 + 2 * half, place, kind) * element(right, half, place, kind);
        }
        c[n] += (float)sum;
    }
    wait_for_warp(site);
}
#define multiply_float16(c, x, y) multiply(c, x, y, FLOAT16, __LINE__)
#define multiply_bfloat16(c, x, y) multiply(c, x, y, BFLOAT16, __LINE__)
#define multiply_float32(c, x, y) multiply(c, x, y, FLOAT32, __LINE__)

// Calls of kernels with arguments from a table.

template <typename... A, std::size_t... I>
void applied(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
    kernel(static_cast<A>(arguments[I])...);
}
template <typename... A> void applied(void (*kernel)(A...), void **arguments) {
    applied(kernel, arguments, std::index_sequence_for<A...>());
}
#define CALLABLE(kernel) \
    extern "C" void call_##kernel(void **arguments) { applied(kernel, arguments); }
