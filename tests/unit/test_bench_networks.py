"""The networks that ``minigrad bench --what networks`` times are the same on both sides."""

import json

import numpy as np
import pytest

import minigrad
from minigrad import Tensor, nn
from minigrad.cli import bench_networks, main
from minigrad.cli.bench_networks import mirror


@pytest.mark.parametrize("name", ["resnet20", "plain20"])
def test_the_mirrored_network_computes_the_same(name):
    torch = pytest.importorskip("torch")
    minigrad.manual_seed(3)
    model = nn.models.get(name)
    theirs = mirror(torch, model)
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32), dtype=np.float32)
    ours = model(Tensor(images))  # training mode: running statistics follow
    given = theirs(torch.from_numpy(images))
    np.testing.assert_allclose(ours.numpy(), given.detach().numpy(), rtol=1e-3, atol=1e-3)  # float32, 20 layers
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(model.state_dict()[key].numpy(), value.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg16", "googlenet", "resnet18", "resnet50", "resnet56"])
def test_every_network_can_be_mirrored(name):
    """By shapes alone: PyTorch's meta device computes nothing, and here nothing is drawn."""
    torch = pytest.importorskip("torch")
    model = bench_networks.network(name)
    with torch.device("meta"):
        theirs = bench_networks.mirrored(torch, model)
        assert theirs(torch.zeros(2, *model.input_size)).shape == model(Tensor.zeros(2, *model.input_size)).shape
    expected = {key: tensor.shape for key, tensor in model.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()} == expected


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg_e", "googlenet"])
def test_nothing_is_dropped_where_results_are_compared(name):
    drops = [module for module in bench_networks.network(name).modules() if isinstance(module, nn.Dropout)]
    assert drops and all(module.p == 0 for module in drops)


def test_bench_of_a_network(tmp_path, capsys):
    options = ["--networks", "resnet20", "--batch-size", "2", "--repeats", "1", "--json", str(tmp_path / "bench.json")]
    assert main(["bench", "--what", "networks", *options]) == 0
    assert "resnet20 training" in capsys.readouterr().out
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["resnet20 inference", "resnet20 training"]
    assert all(row["minigrad ms/image"] > 0 for row in rows)
