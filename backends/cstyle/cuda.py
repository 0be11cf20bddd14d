"""CUDA C++ as a dialect, and the functions of the machine that generated code calls."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from minigrad.backends.cstyle.dialect import OPENCL

# Names of types and constants as the templates write them. The compiler would warn of each line of a body that nothing
# reads after all.
_COMMON = """\
typedef unsigned char uchar;
typedef unsigned short ushort;
typedef unsigned int uint;
typedef unsigned long ulong;
#pragma nv_diag_suppress 177
template <typename T, int N> struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) pack {
    T s[N];
};
template <typename T, typename S> __device__ __forceinline__ T bits_of(S x) {
    static_assert(sizeof(T) == sizeof(S), "a type of the same size");
    T y;
    memcpy(&y, &x, sizeof(T));
    return y;
}
"""

# Instructions of the machine: all that is not C++, so that the rest can be compiled for a CPU with other definitions.
# No header is included, so that none has to be found.
MACHINE = """\
#define SHARED_MEMORY(name) extern __shared__ __align__(128) uchar name[]
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
__device__ __forceinline__ float half_to_float(ushort h) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
}
__device__ __forceinline__ ushort float_to_half(float x) {
    ushort h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}
__device__ __forceinline__ ushort float_to_bfloat(float x) {
    ushort h;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(x));
#else
    uint bits = __float_as_uint(x);
    h = x == x ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fffu;
#endif
    return h;
}
#if __CUDA_ARCH__ >= 800
// Copies of 16 bytes to shared memory, zeros where nothing is there; they are made while the thread goes on.
__device__ __forceinline__ void copy_later(void *to, const void *from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((uint)__cvta_generic_to_shared(to)), "l"(from), "r"(there ? 16 : 0) : "memory");
}
__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int still> __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" :: "n"(still) : "memory");
}
// Four matrices of 8 rows of 16 bytes; lane n says where row n % 8 of matrix n / 8 is, and gets 4 bytes of each.
__device__ __forceinline__ void load_matrices(uint (&x)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"((uint)__cvta_generic_to_shared(row)) : "memory");
}
// The same of matrices of 8 x 8 elements of 2 bytes, which are transposed on the way.
__device__ __forceinline__ void load_transposed(uint (&x)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"((uint)__cvta_generic_to_shared(row)) : "memory");
}
// Tensor cores: a matrix c of 16 x 8 floats, spread over a warp, gains the product of matrices of 32 bytes a row.
#define MULTIPLY(name, shape)                                                                                  \\
    __device__ __forceinline__ void name(float (&c)[4], const uint (&x)[4], const uint (&y)[2]) {              \\
        asm volatile("mma.sync.aligned." shape " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \\
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                          \\
                     : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));                      \\
    }
MULTIPLY(multiply_float16, "m16n8k16.row.col.f32.f16.f16.f32")
MULTIPLY(multiply_bfloat16, "m16n8k16.row.col.f32.bf16.bf16.f32")
MULTIPLY(multiply_float32, "m16n8k8.row.col.f32.tf32.tf32.f32")
__device__ __forceinline__ uint rounded_to_tf32(uint x) {
    uint y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(__uint_as_float(x)));
    return y;
}
#endif
"""

OPTIONS = ("--std=c++17",)  # of the compiler
_FUNCTIONS = {
    "float16_to_float32": "F @float16_to_float32(H h) {\n    return half_to_float(h);\n}",
    "float32_to_float16": "H @float32_to_float16(F x) {\n    return float_to_half(x);\n}",
    "round_float16": "F @round_float16(F x) {\n    return half_to_float(float_to_half(x));\n}",
    "float32_to_bfloat16": "H @float32_to_bfloat16(F x) {\n    return float_to_bfloat(x);\n}",
    "round_bfloat16": "F @round_bfloat16(F x) {\n    return @bfloat16_to_float32(float_to_bfloat(x));\n}",
}

CUDA = replace(
    OPENCL,
    name="cuda",
    function="static __device__ __forceinline__",
    rare="static __device__ __noinline__",
    kernel_text='extern "C" __global__ void __launch_bounds__({bounds}) {name}({parameters})',
    spaces=MappingProxyType({"global": "", "local": "__shared__", "private": ""}),
    restrict="__restrict__ ",
    group_text="(int)blockIdx.{axis}",
    item_text="(int)threadIdx.{axis}",
    barrier="__syncthreads();",
    reinterpret_text="bits_of<{type}>({value})",
    sqrt_text="sqrtf({value})",
    prologue=(_COMMON, MACHINE),
    float64="",
    wide=16,
    pack_text="pack<{element}, {width}>",
    warp=32,
    exchange_text="__shfl_xor_sync(0xffffffffu, {value}, {distance})",
    denormals=True,
    functions=MappingProxyType(_FUNCTIONS),
)
