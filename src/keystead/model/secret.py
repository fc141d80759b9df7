"""Bytes and texts that must not be printed, copied or serialised by accident."""

from __future__ import annotations

from typing import NoReturn, Self, SupportsIndex


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


class SecretText(str):
    """A credential that works as ``str`` wherever an SDK takes one: a token, a password.

    ``repr``, ``str`` and formatting show the type's name only; pickling and copying raise ``TypeError``. Methods of
    ``str`` see the text itself.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Keep ``text``, which may be a secret one already."""
        return super().__new__(cls, str.__str__(text))

    def __repr__(self) -> str:
        return "SecretText(hidden)"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("SecretText cannot be pickled or copied; read the credential where it is needed")

    def __copy__(self) -> NoReturn:
        raise TypeError("SecretText cannot be copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("SecretText cannot be copied")
