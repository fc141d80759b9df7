"""Plugins of a Kubernetes cluster's control plane: rotated, killed, and without their KMS, under load."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from keystead.config.service import load_service
from keystead.errors import ProviderConnectionError
from keystead.manager.manager import KeyManager
from keystead.model import EncryptedData
from keystead.server.kubernetes.names import keyring_of
from soak.figures import Figure, Figures, Setting
from soak.harness import Child, fork, in_child, wait_for
from soak.kubernetes_load import KEY, Seen, load
from soak.places import Place

NODES: Final = ("one", "two", "three")
POLL_S: Final = 0.5
RECHECK_S: Final = 0.5
GRACE_S: Final = 0.5
AWAY_S: Final = 15.0
"""For an outage, and for a process that starts and opens its store on a busy machine."""


CALL_MS: Final = 5.0
"""For 95 of a hundred calls of plugins that nothing else is asked of; the short form shares its machine."""


class Kubernetes:
    """See the module."""

    name = "kubernetes"
    claim = (
        "Plugins that are rotated, killed and without their KMS answer nothing wrong, encrypt under the key that their "
        "status has told, and read whatever any of them has written."
    )

    def run(self, setting: Setting) -> list[Figure]:
        """Keep three plugins of one store busy, on each kind of store."""
        figures = Figures()
        for place in setting.databases.each(setting.folder):
            _drill(figures, place, setting.choose(short=12.0, full=600.0), setting.choose(short=100.0, full=CALL_MS))
        return figures.rows


class SwitchedProvider:
    """A local KMS that is away while a file is there."""

    provider_name = "local"

    def __init__(self, place: Place) -> None:
        self._local = place.providers()["local"]
        self._switch = away(place)

    async def encrypt(
        self, plaintext: bytes, key_id: str, *, context: Mapping[str, str] | None = None
    ) -> EncryptedData:
        """Encrypt, unless away."""
        self._require()
        return await self._local.encrypt(plaintext, key_id, context=context)

    async def decrypt(self, encrypted: EncryptedData, *, context: Mapping[str, str] | None = None) -> bytes:
        """Decrypt, unless away."""
        self._require()
        return await self._local.decrypt(encrypted, context=context)

    def _require(self) -> None:
        if self._switch.exists():
            raise ProviderConnectionError("away")


def away(place: Place) -> Path:
    """Return the file that stands for an outage of the KMS."""
    return place.folder / "away"


def _drill(figures: Figures, place: Place, seconds: float, call_ms: float) -> None:
    in_child(_begin, place)
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="ks-") as sockets:
        paths = {name: Path(sockets) / f"{name}.sock" for name in NODES}
        nodes = {name: fork(_plugin, place, path) for name, path in paths.items()}
        try:
            for path in paths.values():
                wait_for(path.exists, 60, "a socket")
            loading = fork(load, list(paths.values()), place.folder)
            wait_for((place.folder / "loading").exists, 60, "the load")
            done = _disturb(place, paths, nodes, seconds)
            (place.folder / "stop").touch()
            seen = loading.result(120)
        finally:
            for node in nodes.values():
                node.kill()
    figures.at_most(place.kind, "95th percentile of calls before the load, in ms", seen.quiet_p95_ms, call_ms)
    _tell(figures, place.kind, done, seen)


def _begin(place: Place) -> None:
    """Make the store."""

    async def main() -> None:
        async with place.manager():
            pass

    asyncio.run(main())


def _plugin(place: Place, path: Path) -> None:
    """Be a plugin, until a signal ends it."""
    from keystead.server.kubernetes.plugin import serve

    def manager(*given: Any, **options: Any) -> KeyManager:
        return place.manager(
            providers={"local": SwitchedProvider(place)},
            background=True,
            epoch_max_age_s=POLL_S,
            kek_recheck_s=RECHECK_S,
            grace_s=GRACE_S,
            state_dir=place.folder / f"state-{path.stem}",
        )

    KeyManager.from_config = manager  # type: ignore[method-assign]
    settings = load_service(environ={"KEYSTEAD_STORE": place.url, "KEYSTEAD_KMS": "local:"})
    asyncio.run(serve(settings, path, KEY))


def _rotate(place: Place) -> None:
    async def main() -> None:
        async with place.manager() as km:
            await km.require_session().lifecycle.rotation.rotate(keyring_of(KEY))

    asyncio.run(main())


def _disturb(place: Place, paths: dict[str, Path], nodes: dict[str, Child[None]], seconds: float) -> dict[str, int]:
    """Rotate, kill, restart and take the KMS away, in turns; return how often, with every node healthy in between."""
    done = dict.fromkeys(("rotations", "kills", "restarts", "outages"), 0)
    until = time.monotonic() + seconds
    names = itertools.cycle(NODES)
    for step in itertools.cycle(("rotate", "kill", "rotate", "stop", "outage")):
        if time.monotonic() > until and all(done.values()):
            return done
        if step == "rotate":
            in_child(_rotate, place)
            done["rotations"] += 1
            time.sleep(4 * POLL_S)
            continue
        if step == "outage":
            away(place).touch()
            time.sleep(2 * (RECHECK_S + GRACE_S))
            away(place).unlink()
            done["outages"] += 1
            time.sleep(2 * POLL_S)
            continue
        name = next(names)
        if step == "kill":
            nodes[name].kill()
            done["kills"] += 1
        else:
            os.kill(nodes[name].pid, signal.SIGTERM)
            nodes[name].result(30)
            done["restarts"] += 1
        nodes[name] = fork(_plugin, place, paths[name])
        time.sleep(2 * POLL_S)
    raise AssertionError


def _tell(figures: Figures, where: str, done: dict[str, int], seen: Seen) -> None:
    figures.tell(
        where, "plugins, rotations, kills, restarts, outages", f"{len(NODES)}, {', '.join(map(str, done.values()))}"
    )
    figures.tell(where, "answers", ", ".join(f"{count} {what}" for what, count in sorted(seen.answers.items())))
    figures.equal(where, "plaintexts that came back other than they were", seen.wrong, 0)
    figures.equal(where, "encrypted under another key than the status had told", seen.mismatched, 0)
    figures.equal(
        where, "refused by an answer that no outage explains", ", ".join(sorted(seen.refused)) or "none", "none"
    )
    figures.equal(where, "key ids that stood for two data keys", seen.ambiguous, 0)
    figures.at_least(where, "key ids that were told", len(seen.key_ids), 2)
    figures.at_least(where, "outages that a status told of", seen.outages_told, 1)
    longest_s = seen.longest_away_s
    figures.at_most(where, "longest time in seconds until a plugin was healthy again", longest_s, AWAY_S)
    figures.equal(where, "at the end: of what was kept, read by every plugin", seen.read_at_end, seen.kept_at_end)
    figures.tell(where, "95th percentile of calls under that load, in ms", seen.p95_ms)
