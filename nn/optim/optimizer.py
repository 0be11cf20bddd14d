"""What all optimizers share: parameter groups, settings that captured steps see change, state in files.

What a captured step must see change lives in tensors: the state from construction on, and the settings that schedulers
vary as 0-d tensors. A step appends to the lazy graph like any other computation and runs with the next realize.
"""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from minigrad import capture, dtypes
from minigrad.errors import ArgumentError, ArgumentTypeError, StateDictError
from minigrad.mode import no_grad
from minigrad.nn.module import describe, zero_grad
from minigrad.tensor import Tensor

Settings = Mapping[str, Any]
State = dict[str, Tensor]
Params = Iterable[Tensor] | Iterable[Mapping[str, Any]]


class ParamGroup(UserDict[str, Any]):
    """The settings of a group of parameters, ``params`` among them.

    Assigning a setting also writes the 0-d tensors that steps read, so that it takes effect in captured steps:
    ``optimizer.param_groups[0]["lr"] = 0.01``. Reading gives what was assigned.

    Attributes:
        params: the parameters.
        scalars: the tensors that steps read.
        constants: the settings that are built into a step; a captured one is captured anew when they change.
    """

    def __init__(self, optimizer: type[Optimizer], state: dict[Tensor, State], settings: dict[str, Any]) -> None:
        super().__init__()
        self._optimizer, self._state = optimizer, state
        self.params: list[Tensor] = settings["params"]
        dtype = dtypes.float64 if self.params[0].dtype is dtypes.float64 else dtypes.float32
        optimizer.check(settings)
        self._written = optimizer.scalars(settings)
        self.scalars = {n: Tensor(v, dtype, self.params[0].device) for n, v in self._written.items()}
        self.assign(settings)

    def __setitem__(self, key: str, value: Any) -> None:
        """Change one setting; one that makes no sense raises and changes nothing."""
        self.assign({key: value})

    def assign(self, settings: Settings) -> None:
        """Change several settings at once."""
        merged = {**self.data, **settings}
        self._optimizer.check(merged)
        self.data = merged
        self.constants = self._optimizer.constants(merged)
        with no_grad():
            for name, value in self._optimizer.scalars(merged).items():
                if value != self._written[name]:
                    self.scalars[name].assign(value)
                    self._written[name] = value
        for param in self.params:
            state = self._state.setdefault(param, {})
            state.update(self._optimizer.new_state(param, merged, state))


class Optimizer:
    """Base of all optimizers.

    A subclass says which settings steps read from 0-d tensors and which are constants, what state a parameter has, and
    how one parameter is updated.

    Args:
        params: tensors, or mappings with ``params`` and settings of their own (parameter groups).
        defaults: the settings of groups that do not say otherwise.

    Raises:
        ArgumentError: if there are no parameters, one comes twice, or a setting makes no sense.
    """

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.param_groups: list[ParamGroup] = []
        self.state: dict[Tensor, State] = {}
        given = list(params)
        groups = given if given and isinstance(given[0], Mapping) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)  # type: ignore[arg-type]

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise ``ArgumentError`` if the settings make no sense."""
        raise NotImplementedError

    @staticmethod
    def scalars(settings: Settings) -> dict[str, float]:
        """The numbers that a step reads from 0-d tensors."""
        raise NotImplementedError

    @staticmethod
    def constants(settings: Settings) -> dict[str, Any]:
        """The settings that are built into a step."""
        raise NotImplementedError

    @staticmethod
    def new_state(param: Tensor, settings: Settings, state: State) -> State:
        """The entries that ``state`` of ``param`` lacks under these settings."""
        raise NotImplementedError

    def update(
        self, param: Tensor, grad: Tensor, state: State, scalars: dict[str, Tensor], constants: Settings
    ) -> None:
        """Take one step with one parameter, in place, under ``no_grad``."""
        raise NotImplementedError

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with settings of their own, such as another learning rate."""
        name = f"{type(self).__name__}.add_param_group"
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        if not params:
            raise ArgumentError.of(name, "at least one parameter", "none")
        seen = set(self.state)
        for param in params:
            if not isinstance(param, Tensor):
                raise ArgumentTypeError.of(name, "tensors", type(param).__name__, "pass model.parameters()")
            if param in seen:
                raise ArgumentError.of(name, "each parameter once", f"one of shape {param.shape} twice")
            seen.add(param)
        self.param_groups.append(ParamGroup(type(self), self.state, {**self.defaults, **group, "params": params}))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or fill them with zeros in place."""
        for group in self.param_groups:
            zero_grad(group.params, set_to_none)

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update every parameter that has a gradient, in place. Lazy: it runs with the next realize.

        Args:
            closure: called first, to compute the loss and the gradients.

        Returns:
            What ``closure`` returned.
        """
        loss = None if closure is None else closure()
        with no_grad():
            for group in self.param_groups:
                constants, scalars = group.constants, group.scalars
                for param in group.params:
                    grad = param.grad
                    if grad is not None:
                        grad = -grad if constants["maximize"] else grad
                        self.update(param, grad, self.state[param], scalars, constants)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """State and settings in PyTorch's form; parameters are numbered in the order of the groups."""
        params = [param for group in self.param_groups for param in group.params]
        index = {param: i for i, param in enumerate(params)}
        return {
            "state": {i: {n: t.detach() for n, t in self.state[p].items()} for i, p in enumerate(params)},
            "param_groups": [{**group, "params": [index[p] for p in group.params]} for group in self.param_groups],
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy what :meth:`state_dict` gave, or PyTorch's, into this optimizer; state that is absent becomes zero.

        Raises:
            StateDictError: if groups, parameters or shapes do not fit; nothing has been loaded.
            ArgumentError: if a setting makes no sense; likewise.
        """
        name = f"load_state_dict of {type(self).__name__}"
        given = [len(group["params"]) for group in state_dict["param_groups"]]
        own = [len(group.params) for group in self.param_groups]
        if given != own:
            raise StateDictError.of(name, f"groups of {own} parameters", f"groups of {given}")
        copies: list[tuple[Tensor, str, Any]] = []
        misshapen = []
        for group, settings in zip(self.param_groups, state_dict["param_groups"]):
            merged = {**group, **settings, "params": group.params}
            self.check(merged)
            for number, param in zip(settings["params"], group.params):
                values = state_dict["state"].get(number, {})
                state = self.state[param]
                for key, tensor in {**state, **self.new_state(param, merged, state)}.items():
                    value = values.get(key)
                    shape = tensor.shape if value is None else tuple(value.shape)
                    if shape != tensor.shape:
                        misshapen.append(f"{number}.{key} {shape} instead of {tensor.shape}")
                    copies.append((param, key, value))
        if misshapen:
            raise StateDictError.of(name, "shapes that fit its parameters", describe({"misshapen": misshapen}))
        for group, settings in zip(self.param_groups, state_dict["param_groups"]):
            group.assign({key: value for key, value in settings.items() if key != "params"})
        with no_grad():
            for param, key, value in copies:
                tensor = self.state[param][key]
                value = value if isinstance(value, Tensor) else Tensor(0.0 if value is None else value)
                tensor.assign(value.detach().to(tensor.device).cast(tensor.dtype))

    def __repr__(self) -> str:
        """The settings of each group."""
        groups = ("\n".join(f"    {k}: {v}" for k, v in g.items() if k != "params") for g in self.param_groups)
        lines = "\n".join(f"Parameter Group {i}\n{text}" for i, text in enumerate(groups))
        return f"{type(self).__name__} (\n{lines}\n)"


capture.observed.extend([Optimizer, ParamGroup])  # a captured step notices when an attribute that it read changed


def check_least(op: str, name: str, value: float) -> None:
    """Raise if a setting is negative or NaN."""
    if not value >= 0:
        raise ArgumentError.of(op, f"{name} of at least 0", value)
