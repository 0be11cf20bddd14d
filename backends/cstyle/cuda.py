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
    kernel_text='extern "C" __global__ void __launch_bounds__({x} * {y} * {z}) {name}({parameters})',
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
