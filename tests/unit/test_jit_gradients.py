"""Gradients and captured steps: who owns them, who changes them, and which parameters ask for one."""

import numpy as np
from steps import arrays, classes, net, same_with_jit, training

from minigrad import Tensor, jit
from minigrad.nn import optim


def test_the_gradient_is_one_buffer_and_lazy_readers_of_it_keep_theirs():
    model = net()
    step = training(jit, model, optim.SGD(model.parameters(), 0.1))
    weight = model[0].weight
    data = list(zip(arrays(6, 4), classes(6)))
    step(*data[0])
    grad, before = weight.grad, weight.grad.numpy()
    copies = [grad.clone(), grad * 1, grad.T[0] + 0]
    step(*data[1])
    assert weight.grad is grad and not np.allclose(grad.numpy(), before)
    for found, expected in zip(copies, (before, before, before.T[0])):
        np.testing.assert_array_equal(found.numpy(), expected)


def test_gradients_are_changed_inside():
    def scenario(wrap):
        model = net()
        optimizer = optim.SGD(model.parameters(), 0.1)

        @wrap
        def step(x, y):
            optimizer.zero_grad()
            model(x).cross_entropy(y).backward()
            norm = sum((p.grad * p.grad).sum() for p in model.parameters()).sqrt()
            for i, p in enumerate(model.parameters()):
                if i % 2:
                    p.grad *= 0.1 / norm
                else:
                    p.grad = (p.grad * (0.1 / norm)).detach()
            optimizer.step()
            return norm

        out = []
        for x, y in zip(arrays(6, 4), classes(6)):
            out.append(step(x, y))
            out += [p.grad * 1 for p in model.parameters()]
        return out, list(model.parameters())

    same_with_jit(scenario, captures=1)


def test_only_the_update_is_captured():
    """Whether there is a gradient at entry is part of the signature, which one it is is not."""

    def scenario(wrap):
        model = net()
        optimizer = optim.Adam(model.parameters(), 0.1)
        update = wrap(optimizer.step)
        for i, (x, y) in enumerate(zip(arrays(6, 4), classes(6))):
            optimizer.zero_grad()
            model(Tensor(x)).cross_entropy(Tensor(y)).backward()
            if i == 3:
                model[0].bias.grad = None
            update()
        return list(model.parameters())

    same_with_jit(scenario, captures=2)


def test_a_gradient_from_outside_is_accumulated_into():
    def scenario(wrap):
        w = Tensor([1.0, 2.0], requires_grad=True)
        step = wrap(lambda x: (w * x).sum().backward())
        out = []
        for i, x in enumerate(arrays(2)):
            w.grad = Tensor([float(i), 0.0])
            step(x)
            out.append(w.grad * 1)
        return out, w.grad

    same_with_jit(scenario, captures=1)


def test_a_layer_is_frozen_and_melted():
    def scenario(wrap):
        model = net()
        optimizer = optim.SGD(model.parameters(), 0.1)
        step = training(wrap, model, optimizer)
        out = []
        for i, (x, y) in enumerate(zip(arrays(6, 4, count=6), classes(6, count=6))):
            model[0].requires_grad_(i % 3 != 1)
            step(x, y)
            out += [p * 1 for p in model.parameters()]
        return out

    same_with_jit(scenario, captures=2)


def test_gradients_that_are_filled_with_zeros():
    def scenario(wrap):
        model = net()
        optimizer = optim.SGD(model.parameters(), 0.1, momentum=0.9)

        @wrap
        def step(x, y):
            optimizer.zero_grad(set_to_none=False)
            loss = model(x).cross_entropy(y)
            loss.backward()
            optimizer.step()
            return loss

        out = [step(x, y) for x, y in zip(arrays(6, 4), classes(6))]
        return out, list(model.parameters()), [p.grad for p in model.parameters()]

    same_with_jit(scenario, captures=2)
