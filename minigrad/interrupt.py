"""Ctrl-C and SIGTERM are noted when they come: none is lost, and work that must not be torn is done first."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, ClassVar


class Interrupts:
    """Within the block, the first signal is noted, and what happens is up to the block; a second one acts as before.

    A block around another shares what it has noted with it. Outside the main thread, where Python delivers no signals,
    nothing is changed.

    Args:
        raising: raise ``KeyboardInterrupt`` at once, but note Ctrl-C (and no other signal) first. Python drops an
            exception that is raised in a ``__del__`` or in the callback of a weak reference: the note stays.

    >>> with Interrupts() as interrupts:
    ...     signal.raise_signal(signal.SIGINT)
    ...     interrupts.received.name
    'SIGINT'
    """

    _innermost: ClassVar[Interrupts | None] = None

    def __init__(self, raising: bool = False) -> None:
        self._raising = raising
        self._noted: signal.Signals | None = None
        self._outer: Interrupts | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def received(self) -> signal.Signals | None:
        """The signal that was noted, here or in a block around this one, or None."""
        return self._noted or (self._outer.received if self._outer else None)

    def __enter__(self) -> Interrupts:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            self._outer, Interrupts._innermost = Interrupts._innermost, self
            numbers = (signal.SIGINT,) if self._raising else (signal.SIGINT, signal.SIGTERM)
            if self.received is None:
                self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        """Give them back."""
        self._give_back()
        if Interrupts._innermost is self:
            Interrupts._innermost = self._outer

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = signal.Signals(number)
        if self._raising:
            raise KeyboardInterrupt
        self._give_back()
