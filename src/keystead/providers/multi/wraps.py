"""What several answers mean together: for one wrap, for the policy, and for whoever reads the log."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from keystead import telemetry
from keystead.errors import (
    DecryptionError,
    KeyRotationError,
    ProviderNotConfiguredError,
    RotationNotSupportedError,
)
from keystead.model import KeyDescription, KeyReference, WrapState
from keystead.providers.multi.calls import Answers, Failures, most_telling
from keystead.providers.multi.format import Container, Content, Wrap

log = logging.getLogger("keystead.providers")


def state_of(name: str, wrap: Wrap | None, opened: Answers[Content], described: Answers[KeyDescription]) -> WrapState:
    """Return how the wrap of one member stands; ``opened`` is empty where nobody was asked to open it."""
    if wrap is None:
        return WrapState.MISSING
    if (failure := opened.failures.get(name)) is not None:
        return WrapState.REFUSED if isinstance(failure, DecryptionError) else WrapState.UNREACHABLE
    if name in described.failures and name not in opened.results:
        return WrapState.UNREACHABLE
    now = described.results.get(name)
    if now is not None and wrap.key_id != now.key_reference.key_id:
        return WrapState.STALE
    if now is not None and now.current_version not in {None, wrap.key_version}:
        return WrapState.STALE
    return WrapState.CURRENT


def is_better(wraps: Mapping[str, Wrap], container: Container) -> bool:
    """Whether ``wraps`` have something that ``container`` has not, or leave something out."""

    def told(of: Mapping[str, Wrap]) -> set[tuple[str, str, str]]:
        return {(wrap.name, wrap.key_id, wrap.key_version) for wrap in of.values()}

    return told(wraps) != told(container.by_name())


def require_agreement(failures: Failures) -> None:
    """Raise ``DecryptionError`` where a member refused its wrap, although another opened its own."""
    if refused := {name: exc for name, exc in failures.items() if isinstance(exc, DecryptionError)}:
        raise most_telling(
            refused,
            "the wraps do not agree: one was damaged, or another key was slipped in, and nothing was replaced. Compare "
            "with an export; a new WRAP key (`keystead key rewrap`) makes this one needless",
        )


def of_others(container: Container) -> ProviderNotConfiguredError:
    """Return what is said of a ciphertext that no member has a wrap in."""
    there = ", ".join(repr(wrap.name) for wrap in container.wraps)
    return ProviderNotConfiguredError(f"it was wrapped by {there}: none of them is a member of this set of KEKs")


def half_rotated(answers: Answers[KeyReference]) -> KeyRotationError:
    """Return what is said where some members rotated their key and others did not."""
    done = ", ".join(answers.results) or "none"
    told = "; ".join(f"{name}: {error}" for name, error in answers.failures.items())
    is_hopeless = any(isinstance(error, RotationNotSupportedError) for error in answers.failures.values())
    kind = RotationNotSupportedError if is_hopeless else KeyRotationError
    return kind(
        f"not every KEK has a new version (these have: {done}); nothing is lost, and `keystead key rewrap` takes up "
        f"those that are there. {told}"
    )


def note_missing(failures: Failures) -> None:
    """Log and count the members without which something was wrapped."""
    for name, error in failures.items():
        log.warning("wrapped without the KEK %r (%s); `keystead key rewrap` adds it", name, error.code)
        telemetry.wrap_fault(name, "missing")


def note_refused(failures: Failures) -> None:
    """Log and count the members that refused their wrap of what another opened."""
    for name, error in failures.items():
        if isinstance(error, DecryptionError):
            log.warning("the KEK %r refused its wrap of a key that another one opened; see `keystead doctor`", name)
            telemetry.wrap_fault(name, "refused")
