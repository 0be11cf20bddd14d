"""Mathematical functions as C text, generic in the width of vectors: what C's operators do not say alone.

A text is C but for single capital letters, which stand for types of the wanted width, and names that begin with ``@``,
which are functions of this library at the same width:

- ``F D`` float, double; ``I U`` int, uint; ``L W`` long, ulong; ``H`` ushort. ``T`` is the type that an integer
  function is made for, ``V`` the unsigned type of its size, ``P`` the unsigned type of at least 32 bits.
- ``F(x)`` puts a scalar in every lane, ``to_F(x)`` converts, ``as_F(x)`` reinterprets bits, ``root(x)`` is the
  square root of a scalar. ``@@f(x)`` is ``f`` at half the width.

Comparisons give masks for ``?:``: of vectors 0 or -1 per lane in an integer of the same size, of scalars 0 or 1. Both
understand ``&``, ``|`` and ``!=``.

float32 functions are made of operators only. Each does the same for all lanes: no branches but for arguments that are
rare. They hold with and without fused multiply-adds: a product whose rounding error matters is made of factors with
few digits. The polynomials are minimax fits by Remez's exchange in 120-bit arithmetic, weighted for the relative error
of the result, their coefficients then rounded to float32; errors in brackets are those after that. The greatest error
found in millions of arguments of all exponents, in ulps, stands beside each function; it was measured on a CPU with
fused multiply-adds, where intermediate results below the least normal number are flushed to 0.
"""

from __future__ import annotations

FLOAT: dict[str, str] = {}  # float32
DOUBLE: dict[str, str] = {}  # float64, as far as it is not BUILT_IN
SIGNED: dict[str, str] = {}  # integers of any size
UNSIGNED: dict[str, str] = {}


def _horner(variable: str, *coefficients: float) -> str:
    """A polynomial, coefficients from the lowest power."""
    text = f"{coefficients[-1]}f"
    for c in coefficients[-2::-1]:
        text = f"({text} * {variable} + {c}f)"
    return text


# Exponentials --------------------------------------------------------------------------------------------------------

# x = n ln 2 + r, |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits. ln 2 is taken
# in two parts, the first of 15 digits, so that its product with n is exact.
_REDUCE = """F t = x * 1.44269504f + 12582912.0f;
    I n = as_I(t) - 0x4b400000;
    t = t - 12582912.0f;
    F r = x - t * 0.693145752f;
    r = r - t * 1.42860682e-06f;"""
# e**r = 1 + r + r^2 p(r), degree 4 [2^-27.8].
_EXP = _horner("r", 0.49999994, 0.1666652, 0.0416684, 0.008368851, 0.0013814309)
# The same for e**r - 1, degree 5 [2^-28.7].
_EXPM1 = _horner("r", 0.5, 0.16666666, 0.04166636, 0.0083333915, 0.001394082, 0.00019845171)

# 2^n in two factors, since n may lie beyond the exponents that exist.
FLOAT["scaled"] = """
F @scaled(F x, I n) {
    I m = n >> 1;
    return x * as_F((m + 127) << 23) * as_F((n - m + 127) << 23);
}"""

# 1.0 ulp.
FLOAT["exp"] = f"""
F @exp(F x) {{
    x = x < F(-104.0f) ? F(-104.0f) : x;
    x = x > F(89.0f) ? F(89.0f) : x;
    {_REDUCE}
    return @scaled(r * r * {_EXP} + r + 1.0f, n);
}}"""

# 2^n p + 2^n - 1, computed at half its size so that 2^n exists up to the overflow of the result.
# 1.5 ulp.
FLOAT["expm1"] = f"""
F @expm1(F x) {{
    x = x < F(-18.0f) ? F(-18.0f) : x;
    x = x > F(89.0f) ? F(89.0f) : x;
    {_REDUCE}
    F p = r * r * {_EXPM1} + r;
    F h = as_F((n + 126) << 23);
    return n == I(0) ? p : 2.0f * (h * p + (h - 0.5f));
}}"""

# 2.5 ulp.
FLOAT["sigmoid"] = """
F @sigmoid(F x) {
    return 1.0f / (1.0f + @exp(-x));
}"""

# (e**2a - 1) / (e**2a + 1) of a = |x|; 1 from 9.02 on.
# 2.4 ulp.
FLOAT["tanh"] = """
F @tanh(F x) {
    F a = as_F(as_I(x) & 0x7fffffff);
    a = a > F(10.0f) ? F(10.0f) : a;
    F e = @expm1(2.0f * a);
    return as_F(as_I(e / (e + 2.0f)) | (as_I(x) & ~0x7fffffff));
}"""

# erf(a) = 1 - e**(-a q(a)): q(a) = -ln(erfc(a)) / a is smooth, degree 7 on [0, 3.93] [2^-24.2, of which its first
# coefficient's rounding is the most]; 1 beyond.
_ERF = _horner(
    "a", 1.1283792, 0.63661647, 0.102814406, -0.019321723, 0.00020575653, 0.0012516973, -0.0003809772, 4.0704057e-05
)
# 2.9 ulp.
FLOAT["erf"] = f"""
F @erf(F x) {{
    F a = as_F(as_I(x) & 0x7fffffff);
    a = a > F(3.93f) ? F(3.93f) : a;
    F y = -@expm1(-a * {_ERF});
    return as_F((as_I(y) & 0x7fffffff) | (as_I(x) & ~0x7fffffff));
}}"""

# Logarithms ----------------------------------------------------------------------------------------------------------

# x = m 2^e with sqrt(1/2) <= m < sqrt(2), for positive x; denormal ones are read as integers.
FLOAT["split"] = """
F @split(F x, I *e) {
    I bits = as_I(x);
    I tiny = bits < 0x800000;
    bits = tiny ? as_I(as_F(bits | 0x3f800000) - 1.0f) : bits;
    I n = (bits - 0x3f3504f3) >> 23;
    *e = n - (tiny ? I(126) : I(0));
    return as_F(bits - (n << 23));
}"""

# ln(1 + f) + e ln 2, where ln(1 + f) = f - f^2 / 2 + f^3 p(f), degree 7 [2^-27.2].
_LOG = _horner("f", 0.3333333, -0.2500082, 0.2000123, -0.16623364, 0.14201699, -0.13160053, 0.12761931, -0.07635267)
FLOAT["log_sum"] = f"""
F @log_sum(F f, F e) {{
    F z = f * f;
    F y = f * z * {_LOG};
    y = y - e * 2.12194442e-04f;
    y = y - 0.5f * z;
    return (f + y) + e * 0.693359375f;
}}"""

# 0.9 ulp.
FLOAT["log"] = """
F @log(F x) {
    I e;
    F m = @split(x, &e);
    F y = @log_sum(m - 1.0f, to_F(e));
    y = x < F(INFINITY) ? y : x;
    return x > F(0.0f) ? y : (x == F(0.0f) ? F(-INFINITY) : F(NAN));
}"""

# What 1 + x loses by rounding is added to the reduced argument.
# 1.5 ulp.
FLOAT["log1p"] = """
F @log1p(F x) {
    F u = x + 1.0f;
    F lost = x > F(1.0f) ? 1.0f - (u - x) : x - (u - 1.0f);
    I e;
    F m = @split(u, &e);
    F y = @log_sum((m - 1.0f) + lost * (0.5f * as_F((128 - e) << 23)), to_F(e));
    y = x < F(INFINITY) ? y : x;
    return u > F(0.0f) ? y : (u == F(0.0f) ? F(-INFINITY) : F(NAN));
}"""

# Powers --------------------------------------------------------------------------------------------------------------

# Lane by lane in a loop, which compilers turn into one instruction; 0.5 ulp.
FLOAT["sqrt"] = """
F @sqrt(F x) {
    float *lane = (float *)&x;
    for (int i = 0; i < WIDTH; ++i) lane[i] = root(lane[i]);
    return x;
}"""

# 1.5 ulp.
FLOAT["rsqrt"] = """
F @rsqrt(F x) {
    return 1.0f / @sqrt(x);
}"""

# 2^(y log2 |x|), x > 0. The logarithm needs 8 digits more than the result, so it is a sum of two floats: with
# s = (m - 1) / (m + 1), itself a sum sh + sl, it is e + 2 / ln(2) s + s^3 p(s^2), degree 3 [2^-32]. Factors of exact
# products keep 12 digits. 2^r = 1 + r q(r), degree 5 [2^-25.9].
_LOG2 = _horner("z", 0.9617967, 0.57708293, 0.41170022, 0.34034175)
_EXP2 = _horner("r", 0.6931472, 0.24022648, 0.05550332, 0.00961844, 0.0013399133, 0.00015353148)
FLOAT["power"] = f"""
F @power(F x, F y) {{
    I e;
    F m = @split(x, &e);
    F f = m - 1.0f;
    F d = m + 1.0f;
    F inverse = 1.0f / d;
    F dh = as_F(as_I(d) & -4096);
    F sh = as_F(as_I(f * inverse) & -4096);
    F sl = ((f - sh * dh) - sh * (m - (dh - 1.0f))) * inverse;
    F s = sh + sl;
    F z = s * s;
    F head = sh * 2.884765625f;
    F rest = sl * 2.88539004f + sh * 0.000624456792f + s * z * {_LOG2};
    F whole = to_F(e) + head;
    rest = rest + (head - (whole - to_F(e)));
    F log = whole + rest;
    rest = rest + (whole - log);
    F yh = as_F(as_I(y) & -4096);
    F lh = as_F(as_I(log) & -4096);
    F p = as_F(as_I(y * log) & -4096);
    F tail = (yh * lh - p) + yh * (log - lh) + (y - yh) * lh + (y - yh) * (log - lh) + y * rest;
    F near = p < F(-160.0f) ? F(-160.0f) : p;
    near = near > F(160.0f) ? F(160.0f) : near;
    F t = near + 12582912.0f;
    F r = (near - (t - 12582912.0f)) + (p == near ? tail : F(0.0f));
    return @scaled(r * {_EXP2} + 1.0f, as_I(t) - 0x4b400000);
}}"""

# Special cases are those of C99. Beyond 2^40 an exponent makes 0 or infinity of any x but 1.
# 3.8 ulp.
FLOAT["pow"] = """
F @pow(F x, F y) {
    F ax = as_F(as_I(x) & 0x7fffffff);
    F ay = as_F(as_I(y) & 0x7fffffff);
    F most = as_F((as_I(y) & ~0x7fffffff) | 0x53800000);
    F v = @power(ax, ay > F(1.09951163e+12f) ? most : y);
    v = ax == F(0.0f) ? (y < F(0.0f) ? F(INFINITY) : F(0.0f)) : v;
    v = ax == F(INFINITY) ? (y < F(0.0f) ? F(0.0f) : F(INFINITY)) : v;
    F w = ay < F(16777216.0f) ? ay : F(16777216.0f);
    I k = to_I(w);
    I odd = (to_F(k) == w) & ((k & 1) != 0);
    v = odd ? as_F(as_I(v) ^ (as_I(x) & ~0x7fffffff)) : v;
    v = ((x < F(0.0f)) & (ax < F(INFINITY)) & (to_F(k) != w)) ? F(NAN) : v;
    v = ((x != x) | (y != y)) ? F(NAN) : v;
    return ((y == F(0.0f)) | (x == F(1.0f))) ? F(1.0f) : v;
}"""

# Trigonometry --------------------------------------------------------------------------------------------------------

# x = n pi/2 + r. Below 3200 n has 11 digits and pi/2 is taken in parts of 13: the products are exact, and so are the
# differences where they are small. Of larger arguments, m 2^e with an integer m, the fraction of m 2^e * 2/pi is taken
# in 64-bit integers from those digits of 2/pi that matter (Payne and Hanek, 1983).
_TWO_OVER_PI = "0u 0xa2f9836eu 0x4e441529u 0xfc2757d1u 0xf534ddc0u 0xdb629599u 0x3c439041u 0xfe5163abu".split()


def _word(first: int) -> str:
    """Word ``i + first`` of the digits of 2/pi, for i from 0 to 4."""
    text = f"U({_TWO_OVER_PI[first + 4]})"
    for i in range(3, -1, -1):
        text = f"(i == I({i}) ? U({_TWO_OVER_PI[first + i]}) : {text})"
    return text


FLOAT["quadrant_far"] = f"""
F @quadrant_far(F x, I *n) {{
    I bits = as_I(x);
    I place = ((bits >> 23) & 255) - 120;
    I i = place >> 5;
    U left = as_U(place & 31);
    U a = {_word(0)};
    U b = {_word(1)};
    U c = {_word(2)};
    U d = {_word(3)};
    a = (a << left) | ((b >> 1u) >> (31u - left));
    b = (b << left) | ((c >> 1u) >> (31u - left));
    c = (c << left) | ((d >> 1u) >> (31u - left));
    U m = as_U((bits & 0x7fffff) | 0x800000);
    W turns = (to_W(a * m) << 32UL) + to_W(b) * to_W(m) + ((to_W(c) * to_W(m)) >> 32UL);
    F r = to_F(as_L(turns << 2UL)) * 8.51530395e-20f;
    I quadrants = to_I(as_L((turns + (1UL << 61)) >> 62UL));
    *n = bits < I(0) ? -quadrants : quadrants;
    return (bits < I(0) ? -r : r) + (x - x);
}}"""

FLOAT["quadrant"] = """
F @quadrant(F x, I *n) {
    F t = x * 0.636619747f + 12582912.0f;
    *n = as_I(t);
    t = t - 12582912.0f;
    F r = x - t * 1.570556640625f;
    r = r - t * 2.396702766418457e-04f;
    r = r - t * 1.5890691429376602e-08f;
    r = r - t * 2.5633440682570896e-12f;
    I far = (as_I(x) & 0x7fffffff) > 0x45480000;
    if (@any(far)) {
        I k;
        F s = @quadrant_far(x, &k);
        *n = far ? k : *n;
        r = far ? s : r;
    }
    return r;
}"""

# sin r = r + r^3 p(r^2), degree 2 [2^-26.9]; cos r = 1 - r^2 / 2 + r^4 q(r^2), degree 2 [2^-31.1].
_SIN = _horner("z", -0.16666654, 0.008332151, -0.0001951398)
_COS = _horner("z", 0.041666646, -0.0013887356, 2.4437044e-05)
# 2.7 ulp for the largest arguments, 2.1 below 3200.
FLOAT["wave"] = f"""
F @wave(F r, I n) {{
    F z = r * r;
    F s = r * z * {_SIN} + r;
    F c = z * z * {_COS} + (1.0f - 0.5f * z);
    F y = (n & 1) != 0 ? c : s;
    return as_F(as_I(y) ^ ((n & 2) << 30));
}}"""

FLOAT["sin"] = """
F @sin(F x) {
    I n;
    F r = @quadrant(x, &n);
    return @wave(r, n);
}"""

FLOAT["cos"] = """
F @cos(F x) {
    I n;
    F r = @quadrant(x, &n);
    return @wave(r, n + 1);
}"""

# atan t = t + t^3 p(t^2) for 0 <= t <= 1, degree 7 [2^-25.7].
_ATAN = _horner(
    "z", -0.33333153, 0.19993772, -0.14211047, 0.106659755, -0.07552159, 0.043211263, -0.01636759, 0.0029206143
)
# 1.7 ulp.
FLOAT["atan2"] = f"""
F @atan2(F y, F x) {{
    F ax = as_F(as_I(x) & 0x7fffffff);
    F ay = as_F(as_I(y) & 0x7fffffff);
    I steep = ay > ax;
    F low = steep ? ax : ay;
    F high = steep ? ay : ax;
    F t = low / high;
    t = high == F(0.0f) ? F(0.0f) : t;
    t = low == F(INFINITY) ? F(1.0f) : t;
    F z = t * t;
    F r = t * z * {_ATAN} + t;
    r = steep ? 1.57079637f - (r + 4.37113900e-08f) : r;
    r = as_I(x) < I(0) ? 3.14159274f - (r + 8.74227800e-08f) : r;
    r = as_F(as_I(r) | (as_I(y) & ~0x7fffffff));
    return ((x != x) | (y != y)) ? F(NAN) : r;
}}"""

# Rounding and remainders ---------------------------------------------------------------------------------------------

FLOAT["round"] = """
F @round(F x) {
    F a = as_F(as_I(x) & 0x7fffffff);
    F r = (a + 8388608.0f) - 8388608.0f;
    r = a < F(8388608.0f) ? r : a;
    return as_F(as_I(r) | (as_I(x) & ~0x7fffffff));
}"""

FLOAT["floor"] = """
F @floor(F x) {
    F r = @round(x);
    return r > x ? r - 1.0f : r;
}"""

FLOAT["ceil"] = """
F @ceil(F x) {
    F r = @round(x);
    r = r < x ? r + 1.0f : r;
    return as_F(as_I(r) | (as_I(x) & ~0x7fffffff));
}"""

FLOAT["trunc"] = """
F @trunc(F x) {
    F a = as_F(as_I(x) & 0x7fffffff);
    F r = @round(a);
    r = r > a ? r - 1.0f : r;
    return as_F(as_I(r) | (as_I(x) & ~0x7fffffff));
}"""

# x = q y + r 2^e for x >= y = unit 2^e > 0, where q is an integer (rounded once it passes 2^24) and |r| <= unit / 2.
# Ten digits of q at a time: products and differences are exact, as q has 11 digits and y is taken in parts of 12.
FLOAT["divided"] = """
F @divided(F x, F y, F *q, F *unit, I *e) {
    I ex;
    I ey;
    F r = @split(x, &ex);
    F m = @split(y, &ey);
    *unit = m;
    F mh = as_F((as_I(m) + 2048) & -4096);
    F ml = m - mh;
    F total = F(0.0f);
    I n = ex - ey;
    do {
        I k = n < I(10) ? n : I(10);
        k = k < I(0) ? I(0) : k;
        F scale = as_F((k + 127) << 23);
        r = r * scale;
        F part = (r / m + 12582912.0f) - 12582912.0f;
        r = (r - part * mh) - part * ml;
        total = total * scale + part;
        n = n - 10;
    } while (@any(n > I(0)));
    *q = total;
    *e = ey;
    return r;
}"""

_DIVIDE = """F ax = as_F(as_I(x) & 0x7fffffff);
    F ay = as_F(as_I(y) & 0x7fffffff);
    F q;
    F unit;
    I e;
    F r = @divided(ax, ay, &q, &unit, &e);"""

# 0.5 ulp, the remainder itself is exact.
FLOAT["mod"] = f"""
F @mod(F x, F y) {{
    {_DIVIDE}
    I below = ax < ay;
    r = below ? x : (x < F(0.0f) ? -r : r);
    unit = below ? ay : unit;
    unit = y < F(0.0f) ? -unit : unit;
    r = ((r != F(0.0f)) & ((r < F(0.0f)) != (y < F(0.0f)))) ? r + unit : r;
    r = below ? r : @scaled(r, e);
    r = r == F(0.0f) ? as_F(as_I(y) & ~0x7fffffff) : r;
    return ((ax < F(INFINITY)) & (ay > F(0.0f))) ? r : F(NAN);
}}"""

# Exact below 2^24, then the rounded quotient.
FLOAT["floordiv"] = f"""
F @floordiv(F x, F y) {{
    {_DIVIDE}
    q = ax < ay ? F(0.0f) : q;
    r = ax < ay ? ax : r;
    F v = (x < F(0.0f)) != (y < F(0.0f)) ? (r > F(0.0f) ? -1.0f - q : -q) : (r < F(0.0f) ? q - 1.0f : q);
    v = q < F(16777216.0f) ? v : x / y;
    v = ((ax < F(INFINITY)) & (y == y)) ? v : F(NAN);
    return ((y == F(0.0f)) & (x == x)) ? x / y : v;
}}"""

# Half types, as their bits -------------------------------------------------------------------------------------------

FLOAT["float16_to_float32"] = """
F @float16_to_float32(H h) {
    I bits = to_I(h);
    I a = bits & 0x7fff;
    I wide = (a << 13) + (a < I(0x7c00) ? I(0x38000000) : I(0x70000000));
    wide = a < I(0x400) ? as_I(to_F(a) * 5.96046448e-08f) : wide;
    return as_F(wide | ((bits & 0x8000) << 16));
}"""

# Below 2^-14, the least normal half, adding 0.5 rounds to a multiple of 2^-24.
FLOAT["float32_to_float16"] = """
H @float32_to_float16(F x) {
    I bits = as_I(x);
    I a = bits & 0x7fffffff;
    I h = (a + 0xfff + ((a >> 13) & 1) - 0x38000000) >> 13;
    h = a < I(0x38800000) ? as_I(as_F(a) + 0.5f) - 0x3f000000 : h;
    h = a >= I(0x477ff000) ? I(0x7c00) : h;
    h = a > I(0x7f800000) ? I(0x7e00) : h;
    return to_H(h | ((bits >> 16) & 0x8000));
}"""

FLOAT["round_float16"] = """
F @round_float16(F x) {
    I bits = as_I(x);
    I a = bits & 0x7fffffff;
    I r = (a + 0xfff + ((a >> 13) & 1)) & -8192;
    r = a < I(0x38800000) ? as_I((as_F(a) + 0.5f) - 0.5f) : r;
    r = a >= I(0x477ff000) ? I(0x7f800000) : r;
    r = a > I(0x7f800000) ? a : r;
    return as_F(r | (bits & ~0x7fffffff));
}"""

FLOAT["bfloat16_to_float32"] = """
F @bfloat16_to_float32(H h) {
    return as_F(to_I(h) << 16);
}"""

FLOAT["float32_to_bfloat16"] = """
H @float32_to_bfloat16(F x) {
    return to_H((as_I(@round_bfloat16(x)) >> 16) & 0xffff);
}"""

FLOAT["round_bfloat16"] = """
F @round_bfloat16(F x) {
    I bits = as_I(x);
    I r = as_I(as_U(bits) + 0x7fffu + as_U((bits >> 16) & 1)) & -65536;
    return as_F((bits & 0x7fffffff) > I(0x7f800000) ? (bits | 0x400000) & -65536 : r);
}"""

# Integers ------------------------------------------------------------------------------------------------------------

UNSIGNED["threefry"] = (
    "T @threefry(T k0, T k1, T c0, T c1) {\n    T k2 = k0 ^ k1 ^ 0x1bd11bdau;\n    T x = c0 + k0;\n    T y = c1 + k1;\n"
    + "".join(
        f"    x = x + y; y = ((y << {r}u) | (y >> {32 - r}u)) ^ x;\n"
        + (f"    x = x + k{(i // 4 + 1) % 3}; y = y + k{(i // 4 + 2) % 3} + {i // 4 + 1}u;\n" if i % 4 == 3 else "")
        for i, r in enumerate((13, 15, 26, 6, 17, 29, 16, 24, 13, 15, 26, 6, 17, 29, 16, 24, 13, 15, 26, 6))
    )
    + "    return x;\n}"
)

# Division by 0, and of the least number by -1, traps on some processors: neither is done.
SIGNED["floordiv"] = """
T @floordiv(T x, T y) {
    T d = ((y == T(0)) | (y == T(-1))) ? T(1) : y;
    T q = x / d;
    T r = x - q * d;
    q = ((r != T(0)) & ((r < T(0)) != (d < T(0)))) ? q - T(1) : q;
    V minus = V(0) - as_V(x);
    q = y == T(-1) ? as_T(minus) : q;
    return y == T(0) ? T(0) : q;
}"""

SIGNED["mod"] = """
T @mod(T x, T y) {
    T d = ((y == T(0)) | (y == T(-1))) ? T(1) : y;
    T r = x % d;
    return ((r != T(0)) & ((r < T(0)) != (d < T(0)))) ? r + d : r;
}"""

UNSIGNED["floordiv"] = """
T @floordiv(T x, T y) {
    T q = x / (y == T(0) ? T(1) : y);
    return y == T(0) ? T(0) : q;
}"""

UNSIGNED["mod"] = """
T @mod(T x, T y) {
    return x % (y == T(0) ? T(1) : y);
}"""

# By squaring; the product is unsigned and of at least 32 bits, so that it wraps.
SIGNED["power"] = UNSIGNED["power"] = """
T @power(T x, V n) {
    P b = to_P(as_V(x));
    P r = P(1);
    for (int i = 0; i < BITS; ++i) {
        P digit = to_P(n & V(1));
        r = digit != P(0) ? r * b : r;
        b = b * b;
        n = n >> V(1);
    }
    V low = to_V(r & P(~0UL >> (64 - BITS)));
    return as_T(low);
}"""

SIGNED["pow"] = """
T @pow(T x, T y) {
    T unit = x == T(-1) ? ((y & T(1)) != T(0) ? T(-1) : T(1)) : (x == T(1) ? T(1) : T(0));
    return y < T(0) ? unit : @power(x, as_V(y));
}"""

UNSIGNED["pow"] = """
T @pow(T x, T y) {
    return @power(x, y);
}"""

SIGNED["shift_left"] = UNSIGNED["shift_left"] = """
T @shift_left(T x, T y) {
    V n = as_V(y) < V(BITS) ? as_V(y) : V(0);
    V v = as_V(x) << n;
    return as_V(y) < V(BITS) ? as_T(v) : T(0);
}"""

SIGNED["shift_right"] = """
T @shift_right(T x, T y) {
    V n = as_V(y) < V(BITS) ? as_V(y) : V(BITS - 1);
    return x >> as_T(n);
}"""

UNSIGNED["shift_right"] = """
T @shift_right(T x, T y) {
    T v = x >> (y < T(BITS) ? y : T(0));
    return y < T(BITS) ? v : T(0);
}"""

# To float32, inexact results with an odd last digit: rounding them again to a half type gives what rounding once does.
_ODD = """L large = u >= W(1UL << 38);
    u = large ? (u >> 28UL) | ((u & ((1UL << 28) - 1UL)) != W(0) ? W(1) : W(0)) : u;
    L long_ = u >= W(1UL << 24);
    u = long_ ? (u >> 14UL) | ((u & ((1UL << 14) - 1UL)) != W(0) ? W(1) : W(0)) : u;
    F y = to_F(to_I(u));
    y = to_I(long_) != I(0) ? y * 16384.0f : y;
    y = to_I(large) != I(0) ? y * 268435456.0f : y;"""
UNSIGNED["to_odd"] = f"""
F @to_odd(T x) {{
    W u = to_W(x);
    {_ODD}
    return y;
}}"""

SIGNED["to_odd"] = f"""
F @to_odd(T x) {{
    L v = to_L(x);
    L negative = v < L(0);
    W u = negative ? W(0) - as_W(v) : as_W(v);
    {_ODD}
    return to_I(negative) != I(0) ? -y : y;
}}"""

DOUBLE["to_odd"] = """
F @to_odd(D x) {
    F y = to_F(x);
    D z = to_D(y);
    I away = to_I(((z > x) & (x > D(0.0))) | ((z < x) & (x < D(0.0))));
    I inexact = to_I(z != x);
    I bits = as_I(y);
    bits = away != I(0) ? bits - 1 : bits;
    return as_F(inexact != I(0) ? bits | 1 : bits);
}"""

# float64 -------------------------------------------------------------------------------------------------------------

# Built-in functions, at most 4 lanes at once: PoCL's LLVM 14 dies of those whose vectors no register holds.
LANES = 4
BUILT_IN = {name: "x" for name in "exp expm1 log log1p sin cos tanh erf sqrt floor ceil trunc rint".split()} | {
    name: "x y" for name in "pow atan2 fmod".split()
}

DOUBLE["round"] = """
D @round(D x) {
    return @rint(x);
}"""

DOUBLE["rsqrt"] = """
D @rsqrt(D x) {
    return 1.0 / @sqrt(x);
}"""

DOUBLE["sigmoid"] = """
D @sigmoid(D x) {
    return 1.0 / (1.0 + @exp(-x));
}"""

DOUBLE["mod"] = """
D @mod(D x, D y) {
    D r = @fmod(x, y);
    r = ((r != D(0.0)) & ((r < D(0.0)) != (y < D(0.0)))) ? r + y : r;
    return r == D(0.0) ? (as_L(y) < L(0) ? D(-0.0) : D(0.0)) : r;
}"""

# As NumPy does it: the rounded quotient of an exact multiple is an integer but for rounding.
DOUBLE["floordiv"] = """
D @floordiv(D x, D y) {
    D r = @fmod(x, y);
    D q = (x - r) / y;
    q = ((r != D(0.0)) & ((r < D(0.0)) != (y < D(0.0)))) ? q - 1.0 : q;
    return y == D(0.0) ? x / y : @round(q);
}"""
