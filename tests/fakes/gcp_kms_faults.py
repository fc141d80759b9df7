"""What can be made to go wrong in the fake Cloud KMS, call by call."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from tests.fakes.gcp_kms_keys import RefusedError

LONGEST_SILENCE_S: Final = 60.0
PERMISSIONS: Final = {
    "create_key_ring": "cloudkms.keyRings.create",
    "create_crypto_key": "cloudkms.cryptoKeys.create",
    "get_crypto_key": "cloudkms.cryptoKeys.get",
    "get_crypto_key_version": "cloudkms.cryptoKeyVersions.get",
    "list_crypto_key_versions": "cloudkms.cryptoKeyVersions.list",
    "create_crypto_key_version": "cloudkms.cryptoKeyVersions.create",
    "update_crypto_key_version": "cloudkms.cryptoKeyVersions.update",
    "update_crypto_key_primary_version": "cloudkms.cryptoKeys.update",
    "destroy_crypto_key_version": "cloudkms.cryptoKeyVersions.destroy",
    "restore_crypto_key_version": "cloudkms.cryptoKeyVersions.restore",
    "encrypt": "cloudkms.cryptoKeyVersions.useToEncrypt",
    "decrypt": "cloudkms.cryptoKeyVersions.useToDecrypt",
    "mac_sign": "cloudkms.cryptoKeyVersions.useToSign",
    "mac_verify": "cloudkms.cryptoKeyVersions.useToVerify",
    "asymmetric_sign": "cloudkms.cryptoKeyVersions.useToSign",
    "get_public_key": "cloudkms.cryptoKeyVersions.viewPublicKey",
}

Change = Callable[[Any], None]


@dataclass
class Planned:
    """What one call meets: a refusal before or after it was carried out, or a change of its request or response."""

    method: str | None
    refusal: RefusedError | None = None
    is_carried_out: bool = False
    request: Change | None = None
    response: Change | None = None


class Faults:
    """Switches; ``heal`` turns all of them off.

    Attributes:
        calls: how often each method was called, failures included.
        delay_s: how long each call waits first.
    """

    def __init__(self, denied: set[str]) -> None:
        self.calls: Counter[str] = Counter()
        self.delay_s = 0.0
        self._denied = denied
        self._lock = threading.Lock()
        self._planned: deque[Planned] = deque()
        self._light = threading.Event()
        self._light.set()

    def fail_next(
        self, count: int = 1, status: str = "UNAVAILABLE", message: str = "The service is currently unavailable.",
        *, details: list[Any] | None = None, method: str | None = None, is_carried_out: bool = False,
    ) -> None:  # fmt: skip
        """Answer the next calls with an error; ``is_carried_out``: after having done what they ask."""
        refusal = RefusedError(status, message, details or [])
        self._plan(count, Planned(method, refusal=refusal, is_carried_out=is_carried_out))

    def throttle_next(self, count: int = 1, *, retry_after_s: float | None = 0.01) -> None:
        """Answer the next calls as those over a quota, with the pause the service asks for."""
        details: list[Any] = []
        if retry_after_s is not None:
            pause = Duration(seconds=int(retry_after_s), nanos=int(retry_after_s % 1 * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=pause))
        message = "Quota exceeded for quota metric 'Cryptographic requests' of service 'cloudkms.googleapis.com'."
        self.fail_next(count, "RESOURCE_EXHAUSTED", message, details=details)

    def change_next_request(self, change: Change, count: int = 1, *, method: str | None = None) -> None:
        """Let something happen to the next requests on their way."""
        self._plan(count, Planned(method, request=change))

    def change_next_response(self, change: Change, count: int = 1, *, method: str | None = None) -> None:
        """Let something happen to the next responses on their way."""
        self._plan(count, Planned(method, response=change))

    def corrupt_next(self, field: str, count: int = 1, *, method: str | None = None) -> None:
        """Alter a field of the next responses: a byte of a payload, a checksum, a flag."""
        self.change_next_response(lambda response: _corrupt(response, field), count, method=method)

    def deny(self, *permissions: str) -> None:
        """Take permissions from the caller; all of them by default."""
        self._denied.update(permissions or PERMISSIONS.values())

    def black_hole(self) -> None:
        """Answer nothing any more."""
        self._light.clear()

    def heal(self) -> None:
        """Turn everything off."""
        with self._lock:
            self._planned.clear()
        self._denied.clear()
        self.delay_s = 0.0
        self._light.set()

    def meet(
        self,
        method: str,
        request: Any,
        admit: Callable[[], None],
        carry_out: Callable[[Any], Any],
        is_wanted: Callable[[], bool],
    ) -> Any:
        """Carry a call out, with what it meets on the way."""
        with self._lock:
            self.calls[method] += 1
            planned = next((each for each in self._planned if each.method in {None, method}), None)
            if planned is not None:
                self._planned.remove(planned)
        time.sleep(self.delay_s)
        gives_up_at = time.monotonic() + LONGEST_SILENCE_S
        while not self._light.wait(0.02) and is_wanted() and time.monotonic() < gives_up_at:
            pass
        if planned is not None and planned.refusal is not None and not planned.is_carried_out:
            raise planned.refusal
        admit()
        if PERMISSIONS.get(method) in self._denied:
            name = getattr(request, "name", "") or getattr(request, "parent", "")
            raise RefusedError(
                "PERMISSION_DENIED",
                f"Permission '{PERMISSIONS[method]}' denied on resource '{name}' (or it may not exist).",
                [error_details_pb2.ErrorInfo(reason="IAM_PERMISSION_DENIED", domain="cloudkms.googleapis.com")],
            )
        if planned is not None and planned.request is not None:
            planned.request(request)
        response = carry_out(request)
        if planned is not None and planned.refusal is not None:
            raise planned.refusal
        if planned is not None and planned.response is not None:
            planned.response(response)
        return response

    def _plan(self, count: int, planned: Planned) -> None:
        with self._lock:
            self._planned.extend([planned] * count)


def _corrupt(response: Any, field: str) -> None:
    value = getattr(response, field)
    if isinstance(value, bool):
        setattr(response, field, not value)
    elif isinstance(value, bytes):
        setattr(response, field, bytes([value[0] ^ 1]) + value[1:] if value else b"\0")
    elif isinstance(value, str):
        setattr(response, field, value[:-9] + ("A" if value[-9] != "A" else "B") + value[-8:])
    else:
        setattr(response, field, (value or 0) ^ 1)
