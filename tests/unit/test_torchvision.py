"""Where torchvision is installed: its weights load into the networks as they are, and give its logits."""

import importlib
import sys

import numpy as np
import pytest

from minigrad import Tensor, dtypes, nn, no_grad


@pytest.fixture(scope="module")
def torchvision():
    """``torchvision.models``.

    The networks need none of torchvision's compiled operators, but importing it needs their names, and without the very
    build of PyTorch that it was made for it has none.
    """
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError:
        for name in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes) -> Tensor")
    return importlib.import_module("torchvision.models")


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn", "googlenet", "resnet18", "resnet50"])
def test_weights_of_torchvision_give_its_logits(torchvision, name):
    torch = importlib.import_module("torch")
    torch.manual_seed(0)
    options = {"init_weights": False} if name == "googlenet" else {}  # its own drawing takes half a minute
    theirs = getattr(torchvision, name)(**options).double().eval()
    for key, tensor in theirs.named_buffers():  # running statistics that are neither 0 nor 1
        if key.endswith(("running_mean", "running_var")):
            tensor.uniform_(*((-0.1, 0.1) if key.endswith("mean") else (0.5, 1.5)))
    ours = nn.models.get(name, **({} if name.startswith("resnet") else {"torchvision": True})).to(dtypes.float64).eval()
    ours.load_state_dict({key: Tensor(tensor.numpy()) for key, tensor in theirs.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224))
    with no_grad(), torch.no_grad():
        found, expected = ours(Tensor(x)).numpy(), theirs(torch.from_numpy(x)).numpy()
    assert np.abs(found - expected).max() < 1e-11 * np.abs(expected).max()  # 50 layers of sums, each within 1e-15
