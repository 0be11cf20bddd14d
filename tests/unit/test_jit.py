"""A captured step computes what the function computes, call for call, on fresh data."""

import numpy as np
import pytest
from steps import arrays, classes, net, same_with_jit, training

import minigrad
from minigrad import Tensor, jit, nn, no_grad
from minigrad.nn import optim

OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, 0.1),
    "momentum": lambda p: optim.SGD(p, 0.1, momentum=0.9),
    "nesterov": lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "dampening": lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.5),
    "adam": lambda p: optim.Adam(p, 0.05),
    "amsgrad": lambda p: optim.Adam(p, 0.05, amsgrad=True),
    "adamw": lambda p: optim.AdamW(p, 0.05),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    def scenario(wrap):
        model = net()
        optimizer = OPTIMIZERS[name](model.parameters())
        step = training(wrap, model, optimizer)
        losses = [step(x, y) for x, y in zip(arrays(6, 4), classes(6))]
        state = [t for p in model.parameters() for t in optimizer.state[p].values()]
        return losses, list(model.parameters()), state, [p.grad for p in model.parameters()]

    same_with_jit(scenario, captures=1)


def test_dropout_and_random_numbers():
    def scenario(wrap):
        model = net(nn.Dropout(0.4))
        step = training(wrap, model, optim.SGD(model.parameters(), 0.1))
        losses = [step(x, y) for x, y in zip(arrays(6, 4), classes(6))]
        return losses, Tensor.rand(3)  # the stream goes on where it is without jit

    same_with_jit(scenario, captures=1)


def test_random_numbers_are_bitwise_the_same_between_calls_and_draws_outside():
    def scenario(wrap):
        @wrap
        def draw(x):
            return Tensor.rand(3) + 0 * x, Tensor.randn(2), Tensor.randint(0, 100, (4,)), Tensor.rand_like(x)

        out = []
        for i, x in enumerate(arrays(3)):
            out += [draw(Tensor(x)), Tensor.rand(i + 1)]
            if i == 2:
                minigrad.manual_seed(7)
        return out, Tensor(np.array(minigrad.random.get_rng_state(), np.uint64))

    same_with_jit(scenario, rtol=0, captures=1)


class Norm(nn.Module):
    """What batch normalisation does with its statistics."""

    def __init__(self, read=True):
        super().__init__()
        self.mean = self.register_buffer("mean", Tensor.zeros(4)) or self.mean
        self.register_buffer("count", Tensor(0))
        self.read = read

    def forward(self, x):
        if not self.training:
            return x - self.mean
        with no_grad():
            self.mean.assign(0.9 * self.mean + 0.1 * x.mean(0))
            self.count += 1
        return x - (self.mean if self.read else x.mean(0))


@pytest.mark.parametrize("read", [True, False])
def test_running_statistics(read):
    """Also when nothing reads them (tinygrad #17206)."""

    def scenario(wrap):
        model = nn.Sequential(Norm(read), nn.Linear(4, 3))
        step = training(wrap, model, optim.SGD(model.parameters(), 0.1))
        evaluate = wrap(lambda x: model(x))
        out = []
        for i, (x, y) in enumerate(zip(arrays(6, 4), classes(6))):
            out.append(step(x, y))
            if i % 2:
                model.eval()
                out.append(evaluate(x))
                model.train()
        return out, model.state_dict()

    same_with_jit(scenario, captures=2)


def test_gradient_accumulation_without_zeroing():
    def scenario(wrap):
        model = net()
        optimizer = optim.SGD(model.parameters(), 0.1)

        @wrap
        def accumulate(x, y):
            loss = model(x).cross_entropy(y)
            loss.backward()
            return loss

        out = []
        for i, (x, y) in enumerate(zip(arrays(6, 4, count=9), classes(6, count=9))):
            out.append(accumulate(x, y))
            if i % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
        return out, list(model.parameters())

    same_with_jit(scenario, captures=2)  # with and without a gradient at entry


def test_micro_batches_inside_one_step():
    def scenario(wrap):
        model = net()
        optimizer = optim.Adam(model.parameters(), 0.1)

        @wrap
        def step(parts, labels):
            optimizer.zero_grad()
            for x, y in zip(parts, labels):
                (model(x).cross_entropy(y) / len(parts)).backward()
            optimizer.step()

        for x, y in zip(arrays(6, 4), classes(6)):
            step([x[:2], x[2:]], [y[:2], y[2:]])
        return list(model.parameters())

    same_with_jit(scenario, captures=1)


def test_batch_sizes_alternate():
    def scenario(wrap):
        model = net()
        step = training(wrap, model, optim.SGD(model.parameters(), 0.1, momentum=0.9))
        out = []
        for i, (x, y) in enumerate(zip(arrays(6, 4, count=9), classes(6, count=9))):
            n = (6, 2, 5)[i % 3]
            out.append(step(x[:n], y[:n]))
        return out, list(model.parameters())

    same_with_jit(scenario, captures=3)


def test_learning_rate_and_momentum_change_without_a_new_capture():
    def scenario(wrap):
        model = net()
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        step = training(wrap, model, optimizer)
        for i, (x, y) in enumerate(zip(arrays(6, 4), classes(6))):
            optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
            optimizer.param_groups[0]["momentum"] = 0.9 - i / 10
            step(x, y)
        return list(model.parameters())

    same_with_jit(scenario, captures=1)


def test_settings_that_are_built_in_make_a_new_capture():
    def scenario(wrap):
        model = net()
        optimizer = optim.SGD(model.parameters(), 0.1)
        step = training(wrap, model, optimizer)
        for i, (x, y) in enumerate(zip(arrays(6, 4), classes(6))):
            optimizer.param_groups[0]["weight_decay"] = 0.1 * (i >= 3)
            step(x, y)
        return list(model.parameters())

    same_with_jit(scenario, captures=2)


def test_a_learning_rate_that_the_step_itself_lowers():
    def scenario(wrap):
        model = net()
        optimizer = optim.SGD(model.parameters(), 0.1)

        @wrap
        def step(x, y):
            optimizer.zero_grad()
            model(x).cross_entropy(y).backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"] * 0.5

        for x, y in zip(arrays(6, 4), classes(6)):
            step(x, y)
        return list(model.parameters())

    same_with_jit(scenario)


def test_layouts_of_arguments_states_and_results():
    """From 16 images on, activations lie with the batch innermost."""

    def scenario(wrap):
        minigrad.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 3))
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)
        smooth = Tensor.zeros(16, 3, 6, 6)
        before = nn.Conv2d(1, 2, 1)

        @wrap
        def step(x, y):
            optimizer.zero_grad()
            hidden = model[0](x)
            with no_grad():
                smooth.assign(0.5 * smooth + 0.5 * hidden)
            loss = model[4](model[3](model[2](model[1](hidden + 0.1 * smooth)))).cross_entropy(y)
            loss.backward()
            optimizer.step()
            return loss, hidden, hidden[::2].T, smooth

        out = []
        for i, (x, y) in enumerate(zip(arrays(16, 1, 6, 6), classes(16))):
            with no_grad():
                images = before(Tensor(x)).realize()
            result = step(images, Tensor(y))
            out += [result[:3], Tensor(result[3].numpy())]
            if i == 2:
                smooth[3] = 0.0
        return out, smooth, list(model.parameters())

    same_with_jit(scenario, captures=1)


class Straight(minigrad.Function):
    """Rounding with the gradient of something smooth."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.saved_tensors[0].cos()


def test_functions():
    def scenario(wrap):
        w = Tensor([1.0, 2.0, 3.0], requires_grad=True)
        optimizer = optim.SGD([w], 0.1)

        @wrap
        def step(x):
            optimizer.zero_grad()
            loss = (Straight.apply(w * x) * x).realize().sum()  # realize does nothing while capturing
            loss.backward()
            optimizer.step()
            return loss

        return [step(x) for x in arrays(3)], w, w.grad

    same_with_jit(scenario, captures=1)


def test_states_are_loaded_between_calls():
    def scenario(wrap):
        model = net()
        optimizer = optim.Adam(model.parameters(), 0.1)
        step = training(wrap, model, optimizer)
        data = list(zip(arrays(6, 4), classes(6)))
        start = {n: t.numpy() for n, t in model.state_dict().items()}
        settings = optimizer.state_dict()
        settings["state"] = {i: {n: t.numpy() for n, t in s.items()} for i, s in settings["state"].items()}
        out = [step(*batch) for batch in data[:3]]
        model.load_state_dict(start)
        optimizer.load_state_dict(settings)
        out += [step(*batch) for batch in data]
        return out, list(model.parameters())

    same_with_jit(scenario, captures=1)


def test_python_arguments_and_containers():
    def scenario(wrap):
        @wrap
        def f(pair, *, options, scale=1.0, flag=False, name="sum"):
            a, b = pair
            c = getattr(a * options["w"] + b, name)(0) * scale
            return {"c": c, "parts": (c - 1, [c * 2, None] if flag else None)}

        w, a, b = (Tensor(x) for x in arrays(2, 3, count=3))
        out = []
        for scale in (1.0, 2, -0.0, 0.0, 1.0):
            for flag in (False, True, 1):
                r = f((a, b), options={"w": w}, scale=scale, flag=flag)
                out += [r, 1 / (r["c"] * 0 + scale)]
        return out, f((b, a), options={"w": a}), f((b, a), options={"w": a}, name="mean")

    same_with_jit(scenario, captures=4 * 3 + 2)  # 0.0 and -0.0, True and 1 are told apart


@pytest.mark.parametrize("dtype", ["uint8", "int64", "int16", "bool", "float16", "float32", "float64"])
def test_arrays_as_arguments(dtype):
    def scenario(wrap):
        f = wrap(lambda x, y: (x.cast("float32") * 2).sum(0) + y.T[0])
        out = []
        for i in range(4):
            x = (np.arange(12) * (i + 1)).reshape(4, 3).astype(dtype)
            out.append(f(x[::-1], np.asfortranarray(arrays(3, 4)[i])))
            x[:] = 0  # it was copied
        return out

    same_with_jit(scenario, captures=1)


def test_arguments_may_alias_and_be_views():
    def scenario(wrap):
        f = wrap(lambda a, b: (a * 2, a + b.T, b.flip(0) * 1))
        x = Tensor(arrays(3, 3)[0])
        out = [f(x, x), f(x[::-1], x), f(x.T, x.flip(0)), f(x.T.T, Tensor(arrays(6, 6)[1])[::2, 1:4])]
        x += 1
        return out, f(x, x.T), f(*[Tensor.ones(3, 3)] * 2)

    same_with_jit(scenario, captures=1)


def test_a_result_is_the_next_argument():
    def scenario(wrap):
        f = wrap(lambda h, x: (h * 0.5 + x).tanh())
        h, states = Tensor.zeros(3), []
        for x in arrays(3):
            h = f(h, Tensor(x))
            states.append(h)
        return states

    same_with_jit(scenario, captures=1)


def test_argument_that_is_not_computed_yet():
    def scenario(wrap):
        f = wrap(lambda x: x + 1)
        out = []
        for x in arrays(3):
            lazy = Tensor(x).exp() * 3
            out.append(f(lazy.sum() * Tensor.ones(2)))
        return out

    same_with_jit(scenario, captures=1)


def test_gradients_as_results():
    def scenario(wrap):
        w = Tensor(arrays(4)[0], requires_grad=True)
        f = wrap(lambda x: ((x * w).exp().sum()).gradient(x, w))
        g = wrap(minigrad.grad(minigrad.grad(lambda x: (x * x * x).sum())))
        return [f(Tensor(x)) for x in arrays(4)], [g(Tensor(x[0])) for x in arrays(4)]

    same_with_jit(scenario)


def test_no_grad_inside_and_around():
    def scenario(wrap):
        w = Tensor(arrays(4)[0], requires_grad=True)

        @wrap
        def f(x):
            with no_grad():
                a = x * w
            b = x * w
            return a.sum() + b.sum(), Tensor(float(b.requires_grad)), Tensor(float(a.requires_grad))

        out = []
        for x in arrays(4):
            out.append(f(x))
            with no_grad():
                out.append(f(x))
        return out

    same_with_jit(scenario, captures=2)


def test_empty_and_zero_dimensional_arguments():
    def scenario(wrap):
        f = wrap(lambda a, b: (a.sum() + b, a * 2, b * b))
        return [f(np.zeros((0, 3), "f4"), np.full((), i, "f4")) for i in range(3)]

    same_with_jit(scenario, captures=1)


def test_nothing_to_do():
    called = []
    step = jit(lambda x: called.append(1))
    assert step(Tensor([1.0])) is None and step(Tensor([2.0])) is None
    assert called == [1]
    assert jit(lambda: Tensor(3.0))().item() == 3.0


def test_nested():
    def scenario(wrap):
        inner = wrap(lambda x: x * 2 + 1)
        outer = wrap(lambda x: inner(x) + inner(x * 3).sum())
        return [(outer(x), inner(x)) for x in arrays(3)], outer(np.ones(2, "f4"))

    same_with_jit(scenario)


def test_methods():
    class Model(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        @jit
        def forward(self, x):
            """Scaled."""
            return x * self.scale

    a, b = Model(2.0), Model(3.0)
    assert [m(Tensor([i])).item() for i in (1.0, 2.0) for m in (a, b)] == [2, 3, 4, 6]
    assert Model.forward.__name__ == "forward" and Model.forward.__doc__ == "Scaled."


def test_eager_runs_everything_at_once():
    with minigrad.config.settings.override(eager=True, fuse=False):
        calls = []
        f = jit(lambda x: calls.append(x.numpy()) or x * 2)
        assert [f(Tensor([i])).item() for i in (1.0, 2.0)] == [2, 4]
        assert len(calls) == 2
