"""Captured training steps: optimizers, running statistics, accumulation, changing batches and settings."""

import pytest
from steps import arrays, classes, net, same_with_jit, training

import minigrad
from minigrad import Tensor, nn, no_grad
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
