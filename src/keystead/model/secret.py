"""Bytes that must not be printed, copied or serialised by accident."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex


class SecretBytes(bytes):
    """Key bytes that work as ``bytes`` wherever a primitive takes them.

    ``repr``, ``str`` and formatting show the type's name only; pickling and copying raise ``TypeError``. CPython
    cannot wipe an immutable object: the bytes live until the garbage collector frees them.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "SecretBytes(hidden)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("SecretBytes cannot be pickled or copied; wrap the key instead")

    def __copy__(self) -> NoReturn:
        raise TypeError("SecretBytes cannot be copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("SecretBytes cannot be copied")
