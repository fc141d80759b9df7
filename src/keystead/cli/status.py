"""``keystead status`` and ``keystead maintain``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from keystead.cli.frame import FAILED, Call, command
from keystead.cli.render import Outcome, moment, pairs
from keystead.config.durations import duration_text
from keystead.manager import admin, devices
from keystead.manager.admin import StoreStatus
from keystead.manager.manager import KeyManager
from keystead.model import KMSStatus
from keystead.model.counts import counted


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "status")(status)
    command(app, "maintain")(maintain)


def status(call: Call) -> Outcome:
    """Tell the state of the store and of the default keyring, and which KEKs are still needed."""

    async def run(km: KeyManager) -> tuple[StoreStatus, KMSStatus]:
        return await admin.store_status(km), await km.get_status()

    store, default = call.run(run)
    lines: list[tuple[str, object]] = [
        (
            "store",
            f"{store.store_id}, epoch {store.epoch}, {counted(store.nodes, 'running process', 'running processes')}",
        ),
        ("keyrings", store.keyrings),
        ("data keys", ", ".join(f"{count} {state}" for state, count in store.keys.items())),
        ("default keyring", f"version {default.active_key_version}, expires {moment(default.active_key_expiry)}"),
        ("rotates every", duration_text(default.rotate_interval) if default.rotate_interval else "never by age"),
        ("next rotation", moment(store.next_rotation)),
    ]
    lines += [
        ("needed KEK", f"{kek.provider}:{kek.key_id} version {kek.version or '-'} (WRAP keys: {kek.wrap_keys})")
        for kek in store.keks
    ]
    lines += [
        ("to be destroyed", f"data key {key.id} of {key.keyring!r} after {moment(key.destroy_after)}")
        for key in store.pending_destroy
    ]
    lines += [
        ("missing wraps", f"{counted(count, 'WRAP key')} without the KEK {name!r}: `keystead key rewrap` adds it")
        for name, count in sorted(store.missing_wraps.items())
    ]
    if store.is_restored:
        lines.append(("restored", "decrypts only, until `keystead store recover`"))
    return Outcome({"store": store, "default_keyring": default}, pairs(lines))


def maintain(call: Call) -> Outcome:
    """Do everything that is due now: rotations, promotions, destructions, rewraps, leases, client keys."""
    policy = devices.policy_of(call.settings().settings)
    report, client_keys = call.run(lambda km: devices.maintain_everything(km, policy))
    lines: list[tuple[str, object]] = [
        ("rotated", report.rotated),
        ("promoted", report.promoted),
        ("destroyed", report.destroyed),
        ("rewrapped", report.rewrapped),
        ("expired leases", report.expired_leases),
        ("client keys", ", ".join(f"{count} {name}" for name, count in asdict(client_keys).items() if count) or 0),
    ]
    lines += [(f"FAILED {step}", code) for step, code in report.failures.items()]
    answer = {**asdict(report), "client_keys": client_keys}
    return Outcome(answer, pairs(lines), FAILED if report.failures else 0)
