"""The binding in front of SoftHSM2, with a say in what it answers: what hardware does and a token in files does not."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.services.softhsm import SoftHsm


class Wrapped:
    """An object of the binding. Its methods are counted, may fail, and give wrapped objects in their turn."""

    def __init__(self, real: Any, faults: Faults) -> None:
        self.__dict__.update(_real=real, _faults=faults)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if callable(value):
            return lambda *args, **kwargs: self._faults.call(self._real, name, value, args, kwargs)
        return self._faults.attribute(name, self._faults.wrap(value))

    def __getitem__(self, key: Any) -> Any:
        return self._faults.call(self._real, "__getitem__", self._real.__getitem__, (key,), {})


class Faults:
    """What the library in front of the token is to do.

    Attributes:
        calls: how often each method was called.
        inside, most_inside: threads in a call now, and the most that ever were.
        flags: added to the token's flags.
        mechanisms: taken away from the token's mechanisms.
    """

    def __init__(self, p11: Any) -> None:
        self.p11 = p11
        self.calls: Counter[str] = Counter()
        self.inside = self.most_inside = 0
        self.flags = 0
        self.missing_mechanisms: set[Any] = set()
        self.changes: dict[str, Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]] = {}
        self._failures: dict[str, list[Exception]] = {}
        self._lock = threading.Lock()

    def fail(self, method: str, code: str, count: int = 1) -> None:
        """Let the next calls of a method end with a return code, by the binding's name or as a number."""
        errors = self.p11.exceptions
        exc = errors.PKCS11Error(f"Unmapped error code {code}") if code.startswith("0x") else getattr(errors, code)()
        self._failures.setdefault(method, []).extend([exc] * count)

    def heal(self) -> None:
        """End everything above."""
        self._failures.clear()
        self.changes.clear()
        self.missing_mechanisms.clear()
        self.flags = 0

    def wrap(self, value: Any) -> Any:
        """Return an object of the binding wrapped, and everything else as it is."""
        if type(value).__module__.startswith("pkcs11") and type(value).__name__ in {"lib", "Slot", "Token", "Session"}:
            return Wrapped(value, self)
        return Wrapped(value, self) if isinstance(value, self.p11.types.Object) else value

    def attribute(self, name: str, value: Any) -> Any:
        """Return an attribute as the token is to show it."""
        return value | self.flags if name == "flags" else value

    def call(
        self,
        target: Any,
        name: str,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Make a call, or what is to be made of it."""
        with self._lock:
            self.calls[name] += 1
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            if failures := self._failures.get(name):
                raise failures.pop(0)
            plain = tuple(each._real if isinstance(each, Wrapped) else each for each in args)
            if name in self.changes:
                return self.changes[name](method, plain, kwargs)
            result = method(*plain, **kwargs)
        finally:
            with self._lock:
                self.inside -= 1
        if name == "get_mechanisms":
            return result - self.missing_mechanisms
        if name in {"get_slots", "get_objects"}:
            return [self.wrap(each) for each in result]
        return self.wrap(result)


class FaultyModule:
    """Puts ``Faults`` in front of the module of this process, and takes them away again."""

    def __init__(self, hsm: SoftHsm) -> None:
        self._hsm = hsm
        self.real: Any = None

    def __enter__(self) -> Faults:
        module = self._hsm.module

        def enter() -> Faults:
            from keystead.providers.pkcs11.token import SDK

            module._leave()
            self.real = module._library()
            faults = Faults(SDK.load())
            module._lib = Wrapped(self.real, faults)
            return faults

        return self._hsm.in_turn(enter)

    def __exit__(self, *_: object) -> None:
        module = self._hsm.module

        def leave() -> None:
            module._leave()
            module._lib = self.real

        self._hsm.in_turn(leave)
