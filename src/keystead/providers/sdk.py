"""Loading a vendor's SDK at its first use, and saying which extra brings it where it is missing."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType

from keystead.errors import MissingDependencyError


@dataclass(frozen=True, slots=True)
class Sdk:
    """A vendor's SDK.

    Attributes:
        service: what it is for, as in ``AWS KMS``.
        package: its name where it is installed from.
        module: what is imported.
        extra: the extra of Keystead that installs it.
    """

    service: str
    package: str
    module: str
    extra: str

    def require(self) -> None:
        """Raise ``MissingDependencyError`` unless the SDK is installed; loads nothing of it."""
        try:
            found = importlib.util.find_spec(self.module)
        except ModuleNotFoundError as exc:
            if not self._is_what_is_missing(exc):
                raise
            found = None
        if found is None:
            raise self._missing()

    def load(self, module: str | None = None) -> ModuleType:
        """Return the SDK's module, or another ``module`` of it; blocks for as long as importing takes.

        Raises:
            MissingDependencyError: the SDK itself is missing. What it fails to import itself is its own error.
        """
        try:
            return importlib.import_module(module or self.module)
        except ModuleNotFoundError as exc:
            if not self._is_what_is_missing(exc):
                raise
            raise self._missing() from exc

    def _is_what_is_missing(self, exc: ModuleNotFoundError) -> bool:
        return exc.name is not None and (self.module == exc.name or self.module.startswith(f"{exc.name}."))

    def _missing(self) -> MissingDependencyError:
        return MissingDependencyError(
            f"{self.service} support requires {self.package}. Install with: pip install keystead[{self.extra}]"
        )
