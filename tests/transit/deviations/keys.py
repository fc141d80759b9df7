"""Of keys, and of what is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.transit.replay.deviations import Deviation
from tests.transit.replay.wire import Request


def _body(request: Request) -> Mapping[str, Any]:
    return request.body if isinstance(request.body, dict) else {}


def _items(request: Request) -> list[Mapping[str, Any]]:
    batch = _body(request).get("batch_input")
    return [each for each in batch if isinstance(each, dict)] if isinstance(batch, list) else []


def _has_null_plaintext(request: Request) -> bool:
    given = _items(request) or [_body(request)]
    return any("plaintext" in each and each["plaintext"] is None for each in given)


def _names_xchacha(request: Request) -> bool:
    return _body(request).get("type") == "xchacha20-poly1305"


def _asks_for_a_status_without_body(request: Request) -> bool:
    asked = _body(request).get("partial_failure_response_code")
    return isinstance(asked, int) and (asked in (204, 205, 304) or 0 < asked < 200)


def _rewraps_associated_data(request: Request) -> bool:
    return any("associated_data" in each for each in [_body(request), *_items(request)])


_NO_XCHACHA: Final = "XChaCha20-Poly1305 is not offered: its long nonces are not needed where no nonce is drawn twice"
OF_EXCHANGES: Final = (
    Deviation(
        "A number of random bytes that is none is refused in a path, too, where OpenBao reads past it.",
        path="/v1/transit/random/-.*",
        status=400,
    ),
    Deviation(
        f"{_NO_XCHACHA}. So no key of it is listed.",
        scenario="keys",
        indexes=frozenset({102, 103, 104, 109, 110}),
        places=("body.data.keys.*",),
    ),
    Deviation(
        f"{_NO_XCHACHA}. So no key of it is listed.",
        scenario="upsert",
        indexes=frozenset({27}),
        places=("body.data.keys.*",),
    ),
    Deviation(
        f"{_NO_XCHACHA}. The name is that of a key that encrypting has made.",
        scenario="derived-and-convergent",
        indexes=frozenset({71, 75}),
        places=("body.data.ciphertext",),
    ),
    Deviation(
        "The engine is always there, and has no key at first.",
        scenario="keys",
        indexes=frozenset({1}),
        places=("body.errors*",),
    ),
    Deviation(
        "Keys that live elsewhere are not offered, and are a type that is not known.",
        scenario="keys",
        indexes=frozenset({35}),
        places=("body.errors.0",),
    ),
)
ROWS: Final = (
    Deviation(
        'A null plaintext is refused: whoever sends one has lost it on the way, and an empty one is "".',
        path="/v1/transit/encrypt/.*",
        when=_has_null_plaintext,
        status=400,
    ),
    Deviation(
        "Key material does not leave: export, backup and restore are refused, and `keystead` has its own backups.",
        path="/v1/transit/(export|byok-export|backup|restore)(/.*)?",
        status=400,
    ),
    Deviation(f"{_NO_XCHACHA}.", when=_names_xchacha, status=400),
    Deviation(
        "A batch has a body: it is not answered with a status that has none, or is no answer.",
        path="/v1/transit/(encrypt|decrypt)/.*",
        when=_asks_for_a_status_without_body,
        places=("status", "body.warnings*"),
    ),
    Deviation(
        "A rewrap takes associated data, so that what was encrypted with it can be rewrapped.",
        path="/v1/transit/rewrap/.*",
        when=_rewraps_associated_data,
        places=("status", "body.*", "headers.*"),
    ),
    Deviation(
        "A size in the path that does not begin and end as a name is no size, or one: it is not passed by.",
        path=r"/v1/transit/random/(\W.*|[^/]*\W)",
        places=("status", "body.*"),
    ),
    Deviation(
        "What is kept in memory of keys is bounded by the service itself, not by this API.",
        path="/v1/transit/cache-config",
        status=404,
    ),
    Deviation(
        "A key was never backed up or restored here, and none is told to have been.",
        scenario="export-backup-restore",
        path="/v1/transit/keys/.*",
        places=("body.data.backup_info.*", "body.data.restore_info.*"),
    ),
    Deviation(
        "A ciphertext names its data key and its salt, and so is 26 bytes longer.",
        path="/v1/transit/encrypt/.*",
        places=("body.data.ciphertext.$string.length",),
    ),
)
