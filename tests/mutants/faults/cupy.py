"""The CuPy backend: what the host does, by the recorder of CuPy's functions."""

from faults.fault import Fault

UNIT = "tests/unit"


def _fault(name: str, module: str, old: str, new: str, wrong: str, test: str, select: str = "test") -> Fault:
    path = f"{UNIT}/test_cupy_{test}.py"
    return Fault("cupy", f"cupy_{name}", f"minigrad.backends.cupy.{module}", old, new, wrong, select, tests=(path,))


FAULTS: tuple[Fault, ...] = (
    _fault("leading_dimension", "blas", "return Operand(TRANSPOSE, max(row if rows > 1 else 1, columns))",
           "return Operand(TRANSPOSE, max(row if rows > 1 else 1, rows))",
           "rows lie as far apart as there are of them", "products"),
    _fault("factors", "blas", "self.factors = right, left", "self.factors = left, right",
           "factors of a transposed product in their old order", "products"),
    _fault("batch_step", "blas", "b, kind, self.second.distance, matrices[1].batch,",
           "b, kind, self.second.distance, matrices[0].batch,", "second matrices as far apart as the first", "products"),
    _fault("sums_in_halves", "blas", "self._module.setMathMode(self._handle, SUMS_IN_FLOAT32)", "pass",
           "cuBLAS may add parts of sums in half types", "products"),
    _fault("always_tf32", "blas", '"highest": FLOAT32,', '"highest": FAST_TF32,',
           "float32 products are rounded unasked", "products"),
    _fault("pinned_too_early", "memory", "        piece.done.synchronize()\n        return piece", "        return piece",
           "pinned memory is written while its last copy is on the way", "runtime"),
    _fault("read_too_early", "memory", "        piece, part = coming[0]\n        piece.done.synchronize()\n",
           "        piece, part = coming[0]\n", "results are read before they are there", "runtime"),
    _fault("no_arrival", "memory", "            self.stream.wait_event(arrival)", "            pass",
           "launches do not wait for what was copied ahead", "runtime"),
    _fault("ahead_of_readers", "memory",
           "self._copying.wait_event(self.stream.record(self.cuda.Event(disable_timing=True)))", "pass",
           "what is copied ahead overtakes launches that read what was there", "runtime"),
    _fault("record_on_own_stream", "program", "stream = self._backend.recorder\n", "stream = self._backend.heap.stream\n",
           "the stream that other threads copy on is recorded", "runtime"),
    _fault("product_in_graph", "blas", "    captures = False  #", "    captures = True  #",
           "cuBLAS is called while a stream records", "runtime"),
    _fault("shared_memory", "program", "if dynamic > STATIC_SHARED:", "if dynamic > 4 * STATIC_SHARED:",
           "more shared memory is used than was asked for", "runtime"),
    _fault("padding", "dnn", "post_padding=[after for _, after in window.padding]",
           "post_padding=[before for before, _ in window.padding]", "padding after is that before", "convolution"),
    _fault("workspace", "dnn", "int(scratch[-1].pointer.ptr) if", "int(scratch[0].pointer.ptr) if",
           "cuDNN works where its result is", "convolution"),
    _fault("lent_without_owner", "exchange", "memory.size, owner, place.index)", "memory.size, None, place.index)",
           "lent memory is used again while others read it", "exchange"),
    _fault("adopted_between", "exchange", "if order is None or int(found.data.ptr) % CUDA.wide:", "if order is None:",
           "arrays that 16 bytes do not divide are adopted", "exchange"),
)  # fmt: skip
