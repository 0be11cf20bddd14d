"""PyTorch's files: read without PyTorch; files by hand, and by PyTorch where it is there; hostile and damaged ones."""

import base64
import io
import os
import pickle
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np
import pytest

from minigrad import Tensor, dtypes, nn
from minigrad.errors import DataError, StateDictError

# Files that PyTorch 2.13 wrote, as a zip archive and in the older format, of
# w = torch.arange(6.).reshape(2, 3); {"w": w, "t": w.t(), "part": w[:, 1:], "b": torch.tensor([True, False]),
# "h": torch.tensor([1.5, -2.0], dtype=torch.bfloat16), "n": torch.tensor(7)}
WRITTEN = {
    "zip": (
        "c-p0vT~E_s6vv;nqnlO7z?UH^zTnHIIB2^uC+bKwjY&;}smbEaQntD_mX*^zK-8F!C?wwL7chPc?v(fq^ul=I9T&zcZ@u(+TC8me"
        "OrYDdX50Dy&#zC<Ih|73I6}!J+H|B*Khm6rVJ_&SO$}@LxhIw)r_iI&vBbOpl&!^xU=d;sY!gMkK95bS!`B^sX5O@#b*#5Lwo_ja"
        "d0?{HT7m?3NTk-%f%PQ3V%ZwL@BPR_+%+77o*GNejk$T?R1QO8T16_OvMZ2OSv9r-`(8I1wq@xJY})M(f6r;^j^4a&HZTu-t_u4x"
        "9H_!U*9}9;AlVJph#NhI>(@*DSe03Uv>KzfeXk8F>&I}Y3WsZCXV9GHU^o(09-SrvhAJ~2$$+OkhGDP@$K8Z8aKe*qT%v5-mVbpO"
        "-4FqWh#!ODlzU~%a9WKm!x_)(EQaAKoO1&WI3M<M_e&V}{Vup+B3$(RvKxLm>UYWWyNqF^3Rm2~HsnKockOn|_ZoFWBp4%JF$@Cn"
        "%H=!{5rb5P!hC*8O(fUw$JO5?l&+~Q>nMY6`E`_kY&)|Wt}p0Lhukqmu0+ad$A>^cR)2keNs;N=8e|Za{()@NUtP1zR(n=&V?~yB"
        "!!ll=0F_1f$&eJxwg7#o;seY)#kx()Rgow5vImxlv87Xn<s0kAIFg0imLY|1hPrxmOp&kc0l;%zs*sOK@+NDEtoM_YDD&pW+X3>&"
        "Ko_EsFp;3h+5aYrA)4vK@TXe${ZAn|oJmyVn|mz4wF+9J1c~WK>vUYiyAVu<2_!|nz9)jjhBIZD`})JCNt4?$^r8u$!SBP;ZXqO|"
        "X8!!H^|1T?4<Yei1G<;r(H)a?;4_WR@4DGk<opgngt1cT>bO`E%cXMpYOx@Ui$#HaNJXhcUP7@@C`f`(rj#dN9ZqKnN7ki`QCOcd"
        "ILp$T$fM7}s5&@+G9l$125mL{q9(y1G8i)X95mT9xuQP7LC_cSsj_JE0E)_kU7HHYzp^MYJEGcPABMF?Jfan%+F%ETwO^uIF{%w#"
        "epvgUC!&?2+F<SWhP2-T+AZ!`u%w2<d(ELP#XhBS+{oY7V6XT}K5~A^c<0~T-&W_`u7AGI`|dsUdN@zRyYXJ^9}8JA#s"
    ),
    "older": (
        "c-no^NpI6Y6aZj*>?B}lDLZ8?yTcOVr6!zOA=Jy1rRL%bvQlSM8(E$_dt3xkrCb_Oegg-N{EYq`egYB)o|guKEG&CG9*@8G=6NRM"
        "ix&U-y76=6{r5M^y$N~wL&0_rB;8w*Bx#&-!2=%qyDZHjo`8%Kyajv{M?%ERXUQlUCO|%W8V-t&W9DbkCzgS-2deJ1a4-vbDxgJ)"
        "r{GhR2xwE)QwxJ9JJ6wOo*%`Oar6Vof#7Kn_WWE#ai;kx+s>nS<O`N$JoR@?4T!FLodU<1!yN`n^@+9-^PzZK4Qilzi#X?*ZJCx~"
        "S&p@8I0I;vc?9De^Ju>k(AlCAB~+QhF{)5`3dauuTyo3;fh*3m*Xf9*Z1f@uga%sIg%bi!y0B0tD_}9iTtX#mjCCrkVk{Lg6iTLW"
        "n#x6}GY4ToofUA-h4W=K#zQRAh5u<6Ywgk&BBaoktBfyK+7$s;UAR^zwhh-SsxHiP&f{5KZv4^vwqpziPy05kpiWS~S=M78Zc%w3"
        "ZddXh0e4-vSIQyWpO?#;8_rDE=XBFB3%y(G4{H5kp+Bnh#{zmTJSp`A`g8gw?va^n{3BbIZG(xjjIxDtw_Ay}fK?ZqVqd*0_Ep1j"
        "<)$o2QvjvuU#P4{r0S5Rqu$|~bST&TPJM4ne;<=IY}WC_Yl7Fe_1{E$+Sd"
    ),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.pth"


@pytest.mark.parametrize("kind", WRITTEN)
def test_files_of_pytorch(path, kind):
    path.write_bytes(zlib.decompress(base64.b85decode(WRITTEN[kind])))
    state = nn.load(path)
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = {
        "w": w, "t": w.T, "part": w[:, 1:], "b": np.array([True, False]),
        "h": np.array([1.5, -2], ml_dtypes.bfloat16), "n": np.array(7),
    }  # fmt: skip
    assert list(state) == list(expected)
    for name, array in expected.items():
        assert state[name].dtype.numpy == array.dtype
        np.testing.assert_array_equal(state[name].numpy(), array)


# Pickles by hand: the instructions of each value, which leave it on the stack.


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def named(path):
    module, _, name = path.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def several(*items):
    return b"(" + b"".join(items) + b"t"


def called(path, *arguments):
    return named(path) + several(*arguments) + b"R"


def table(**items):
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def storage(kind="Float", key="0", size=6, name="storage"):
    return several(text(name), named(f"torch.{kind}Storage"), text(key), text("cpu"), number(size)) + b"Q"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, memory=None):
    sizes = (several(*map(number, shape)), several(*map(number, strides)))
    hooks = called("collections.OrderedDict")
    return called("torch._utils._rebuild_tensor_v2", memory or storage(), number(offset), *sizes, b"\x89", hooks)


NUMBERS = np.arange(6, dtype=np.float32)
RECORDS = {"data/0": NUMBERS.tobytes(), "byteorder": b"little", "version": b"3\n"}


def write(path, body, records=RECORDS, method=zipfile.ZIP_STORED):
    """A zip archive as PyTorch writes it, whose pickle leaves one value."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)


def test_a_file_by_hand(path):
    write(path, table(w=tensor(), transposed=tensor((3, 2), (1, 3)), repeated=tensor((2, 4), (0, 1), offset=2)))
    state = nn.load(path)
    np.testing.assert_array_equal(state["w"].numpy(), NUMBERS.reshape(2, 3))
    np.testing.assert_array_equal(state["transposed"].numpy(), NUMBERS.reshape(2, 3).T)
    np.testing.assert_array_equal(state["repeated"].numpy(), np.stack([NUMBERS[2:]] * 2))


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
def test_every_dtype(path, dtype):
    array = np.array([[0, 1, 100]]).astype(dtype.numpy)
    kinds = {"bool_": "Bool", "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int", "int64": "Long"}
    kinds |= {"float16": "Half", "bfloat16": "BFloat16", "float32": "Float", "float64": "Double"}
    if dtype.name in kinds:
        value = tensor((1, 3), (3, 1), memory=storage(kinds[dtype.name], size=3))
    else:  # PyTorch has no storages of these: the dtype is told beside bytes
        sizes = several(number(1), number(3)), several(number(3), number(1))
        memory = storage("Untyped", size=array.nbytes)
        value = called(
            "torch._utils._rebuild_tensor_v3",
            memory, number(0), *sizes, b"\x89", called("collections.OrderedDict"), named(f"torch.{dtype.name}"),
        )  # fmt: skip
    write(path, table(a=value), {"data/0": array.tobytes()})
    assert nn.load(path)["a"].dtype is dtype
    np.testing.assert_array_equal(nn.load(path)["a"].numpy(), array)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict"])
def test_a_state_dict_is_found_in_a_checkpoint_of_training(path, wrapper):
    optimizer = table(state=b"}", param_groups=b"]" + table(lr=b"G" + struct.pack(">d", 0.1)) + b"a")
    size = called("torch.Size", several(number(2)))
    body = table(epoch=number(3), best=tensor(), size=size, optimizer=optimizer, **{wrapper: table(w=tensor())})
    write(path, body)
    assert list(nn.load(path)) == ["w"]


def test_parameters_and_attributes_of_state_dicts_are_read_over(path):
    parameter = called("torch._utils._rebuild_parameter", tensor(), b"\x88", called("collections.OrderedDict"))
    ordered = called("collections.OrderedDict") + text("w") + parameter + b"s" + table(_metadata=b"}") + b"b"
    write(path, ordered)
    np.testing.assert_array_equal(nn.load(path)["w"].numpy(), NUMBERS.reshape(2, 3))


def nested(depth):
    return b"]" * depth + b"a" * (depth - 1)


SHARED = b"]q\x01" + b"]h\x01h\x01\x86aq\x01" * 60  # lists of pairs of lists: 2**60 things to print
HOSTILE = {
    "os.system": (called("posix.system", text("touch hacked")), "posix.system"),
    "eval": (called("builtins.eval", text("1/0")), "builtins.eval"),
    "stack global": (text("os") + text("system") + b"\x93", "os.system"),
    "a class": (named("torch.nn.modules.linear.Linear") + b")\x81", "torch.nn.modules.linear.Linear"),
    "an object": (named("collections.OrderedDict") + b")\x81", "instruction NEWOBJ"),
    "an instance": (b"(icollections\nOrderedDict\n", "instruction INST"),
    "an extension": (b"\x82\x01", "instruction EXT1"),
    "attributes of a type": (named("collections.OrderedDict") + table(a=b"N") + b"b", "attributes of an object"),
    "a call of a number": (number(1) + b")R", "a value is called"),
    "a call of what is shared": (SHARED + b")R", "a value is called"),
    "a size that is shared": (called("torch._utils._rebuild_tensor_v2", storage(), SHARED, b")", b")"), "a size that"),
    "a wrong call": (called("torch._utils._rebuild_tensor_v2", number(1)), "TypeError"),
    "a tensor of a number": (called("torch._utils._rebuild_tensor_v2", number(1), number(0), b")", b")"), "storage"),
    "a deep list": (table(a=nested(100_000)), "'a': list"),
    "a deep key": (b"}" + b")" + b"\x85" * 100_000 + b"Ns", "not plain"),
    "a deep key of a call": (
        called("collections.OrderedDict", b"]" + b")" + b"\x85" * 100_000 + b"N\x86a"), "not plain"
    ),
    "keys of what is no dict": (number(1) + b"NNs", "a dict is not"),
    "items of what is no list": (number(1) + b"Na", "a list is not"),
    "nothing on the stack": (b"\x85", "the stack is empty"),
    "no mark": (b"t", "IndexError"),
    "two values": (b"NN", "ValueError"),
    "memory that is not there": (b"h\x07", "KeyError"),
    "a huge position in memory": (b"Nr\xff\xff\xff\xff", "got a NoneType"),
    "a string that is cut": (b"X\xff\xff\xff\xffabc", "complete pickle"),
    "an unknown instruction": (b"\xff", "complete pickle"),
    "another identifier": (storage(name="module"), "something else than a storage"),
    "a wrong identifier": (number(1) + b"Q", "TypeError"),
    "a path as a key": (table(a=tensor(memory=storage(key="../../../etc/passwd"))), "etc/passwd"),
    "a record that is not there": (table(a=tensor(memory=storage(key="1"))), "archive/data/1"),
    "another size": (table(a=tensor(memory=storage(size=7))), "28 bytes in archive/data/0, got 24"),
    "beyond the end": (table(a=tensor(offset=1)), "strides"),
    "before the start": (table(a=tensor(offset=-1)), "below 0"),
    "strides that go back": (table(a=tensor(strides=(3, -1))), "below 0"),
    "strides that leave": (table(a=tensor(strides=(4, 1))), "strides"),
    "no strides": (table(a=tensor(strides=())), "strides that do not fit"),
    "many axes": (table(a=tensor((1,) * 100, (1,) * 100)), "complete PyTorch file"),
    "a bomb of repetition": (table(a=tensor((10**6, 10**6), (0, 0))), "tensors of at most"),
    "a bomb of bombs": (table(**{f"a{i}": tensor((2**18,), (0,)) for i in range(2)}), "tensors of at most"),
    "complex numbers": (table(a=tensor(memory=storage("ComplexFloat"))), "a of complex64"),
    "a tensor alone": (tensor(), "got a Strided"),
    "no state dict": (table(epoch=number(3), names=b"]"), "'epoch': int, 'names': list"),
}  # fmt: skip


@pytest.mark.parametrize("body, message", HOSTILE.values(), ids=HOSTILE)
def test_hostile_and_wrong_pickles(path, tmp_path, monkeypatch, body, message):
    monkeypatch.chdir(tmp_path)
    write(path, body)
    with pytest.raises(DataError, match=message) as caught:
        nn.load(path)
    assert "model.pth" in str(caught.value)
    assert os.listdir(tmp_path) == ["model.pth"]


def test_damaged_archives(path):
    write(path, table(w=tensor()))
    content = path.read_bytes()
    changed = content.replace(RECORDS["data/0"], RECORDS["data/0"][:-1] + b"x")
    for damage in (content[:-1], content[:100], content[:4], content[50:], changed):
        path.write_bytes(damage)
        with pytest.raises(DataError, match="model.pth.*\n.*copy it again"):
            nn.load(path)


def test_archives_of_another_kind(path):
    np.savez(path.with_suffix(".npz"), a=NUMBERS)
    with pytest.raises(DataError, match="one data.pkl, got a zip archive with 0"):
        nn.load(path.with_suffix(".npz"))
    write(path, table(w=tensor()), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match="not compressed, got archive/"):
        nn.load(path)
    write(path, table(w=tensor()), RECORDS | {"byteorder": b"big"})
    with pytest.raises(DataError, match="little-endian machine, got byte order big"):
        nn.load(path)
    path.write_bytes(bytes(257) + b"ustar" + bytes(250))
    with pytest.raises(DataError, match="0.1.10 or newer"):
        nn.load(path)


# The format before PyTorch 1.6.

MAGIC = 0x1950A86A20F9469CFC6C


def older(body, keys=("0",), storages=None, magic=MAGIC, machine=None):
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}} if machine is None else machine
    start = [pickle.dumps(value, 2) for value in (magic, 1001, machine)]
    memory = struct.pack("<q", 6) + NUMBERS.tobytes() if storages is None else storages
    return b"".join([*start, b"\x80\x02" + body + b".", pickle.dumps(list(keys), 2), memory])


def older_storage(view=b"N", size=6):
    return several(text("storage"), named("torch.FloatStorage"), text("0"), text("cpu"), number(size), view) + b"Q"


def test_an_older_file_by_hand(path):
    view = several(text("view"), number(2), number(4))
    part = tensor((2, 2), (2, 1), memory=older_storage(view))
    path.write_bytes(older(table(w=tensor(memory=older_storage()), part=part)))
    state = nn.load(path)
    np.testing.assert_array_equal(state["w"].numpy(), NUMBERS.reshape(2, 3))
    np.testing.assert_array_equal(state["part"].numpy(), NUMBERS[2:].reshape(2, 2))


WHOLE = table(w=tensor(memory=older_storage()))
OLDER = {
    "another number": (older(WHOLE, magic=(MAGIC, 1)), "another pickle"),
    "a big-endian machine": (older(WHOLE, machine={"little_endian": False}), "byte order big"),
    "no machine": (older(WHOLE, machine=3), "another pickle"),
    "a global": (older(called("builtins.exec", text("1/0"))), "builtins.exec"),
    "storages that end early": (older(WHOLE)[:-1], "ends within storage 0"),
    "no storages": (older(WHOLE, storages=b""), "8 bytes too early"),
    "a huge storage": (older(WHOLE, storages=b"\xff" * 8 + NUMBERS.tobytes()), "ends within storage 0"),
    "a large storage": (older(WHOLE, storages=struct.pack("<q", 2**50)), "ends within storage 0"),
    "keys that were not used": (older(WHOLE, keys=("1",)), "KeyError"),
    "no keys": (older(WHOLE, keys=()), "KeyError"),
    "no list of keys": (older(WHOLE, keys=(3,)), "KeyError"),
    "a storage that is too small": (older(WHOLE, storages=struct.pack("<q", 5) + bytes(20)), "24 bytes in storage 0"),
    "a view beyond the end": (
        older(table(w=tensor(memory=older_storage(several(text("v"), number(1), number(6)))))), "28 bytes in storage 0"
    ),
    "only the start": (older(WHOLE)[:20], "complete pickle"),
}  # fmt: skip


@pytest.mark.parametrize("content, message", OLDER.values(), ids=OLDER)
def test_wrong_older_files(path, content, message):
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        nn.load(path)
    assert "model.pth" in str(caught.value)


def test_other_pickles_and_missing_files_are_named(path):
    with pytest.raises(DataError, match="model.pth"):
        nn.load(path)
    path.write_bytes(pickle.dumps({"w": 1}))
    with pytest.raises(DataError, match="got a pickle of something else"):
        nn.load(path)


# Into networks.


def test_names_with_the_prefix_of_a_wrapper_are_explained():
    net = nn.Sequential(nn.Linear(3, 2))
    state = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    with pytest.raises(StateDictError, match=r"(?s)missing: 0.weight.*hint: .*removeprefix\('module.'\)"):
        net.load_state_dict(state)
    with pytest.raises(StateDictError) as caught:
        net.load_state_dict({"module.1.weight": Tensor([1.0])})
    assert "hint" not in str(caught.value)


def test_a_checkpoint_of_another_architecture_loads_nothing():
    net, other = nn.models.cifar_resnet(20), nn.models.cifar_resnet(32, num_classes=7)
    before = net.fc.bias.numpy().copy()
    with pytest.raises(StateDictError) as caught:
        net.load_state_dict(other.state_dict())
    for part in ("unexpected: layer1.3.conv1.weight", "misshapen: fc.weight (7, 64) instead of (10, 64)"):
        assert part in str(caught.value)
    with pytest.raises(StateDictError, match="missing: layer1.3"):
        other.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(net.fc.bias.numpy(), before)
    keys = net.load_state_dict(nn.models.cifar_resnet(32).state_dict(), strict=False)
    assert not keys.missing_keys and keys.unexpected_keys[0].startswith("layer1.3")


# What PyTorch itself writes, where it is there.


@pytest.mark.parametrize("options", [{}, {"pickle_protocol": 4}, {"_use_new_zipfile_serialization": False}], ids=str)
def test_what_pytorch_saves(path, options):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 5))
    net[2].weight = net[0].weight  # shared
    large = torch.randn(7, 5)
    views = {"column": large[:, 1], "step": large[::2, 1:4], "expanded": large[0].expand(3, 5), "empty": large[:0]}
    whole = {"state_dict": {**net.state_dict(), **views, "p": torch.nn.Parameter(large)}, "epoch": 3, "lr": [0.1]}
    torch.save(whole, path, **options)
    state = nn.load(path)
    assert list(state) == list(whole["state_dict"])
    for name, expected in whole["state_dict"].items():
        assert state[name].dtype is dtypes.as_dtype(str(expected.dtype).removeprefix("torch."))
        np.testing.assert_array_equal(state[name].numpy(), expected.detach().numpy())


def test_a_network_of_pytorch_that_is_pickled_whole_is_refused(path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(3, 2), path)
    with pytest.raises(DataError, match="torch.nn.modules.linear.Linear\n.*save its state dict"):
        nn.load(path)


def test_a_stream_of_pickles_is_read_no_further_than_needed():
    from minigrad.nn.pickled import decode

    stream = io.BytesIO(pickle.dumps([1, "a"], 0) + pickle.dumps({"b": (2.5, None, True, b"c")}, 5) + b"rest")
    assert decode("here", stream, {}) == [1, "a"]
    assert decode("here", stream, {}) == {"b": (2.5, None, True, b"c")}
    assert stream.read() == b"rest"
