"""Applications of fapilog, as they are set up by its own settings, and what is read of the logs that they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from fapilog import Settings

from keystead.ledger import TrustedKey, TrustPolicy, Verifier, VerifyReport
from keystead.ledger.format.records import parse_line

KEY_TEXT: Final = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
KEY: Final = bytes(range(32))
VARIABLE: Final = "FAPILOG_TAMPER_KEY"
STREAM: Final = "fapilog/fapilog"


def settings_for(
    folder: Path, *, core: dict[str, Any] | None = None, extra: dict[str, Any] | None = None, **sealed: Any
) -> Settings:
    """Return settings with the sink ``sealed`` over a folder; ``extra`` takes what fapilog's typed model has not."""
    where = {"inner_config": {"directory": str(folder)}, **sealed}
    sink_config: dict[str, Any] = {"sealed": where} if extra is None else {"extra": {"sealed": {**where, **extra}}}
    fields: dict[str, Any] = {
        "core": {
            "sinks": ["sealed"],
            "enrichers": ["runtime_info", "integrity", "context_vars"],
            "redactors": ["url_credentials"],
            "log_level": "INFO",
            "drop_on_full": False,
            "max_queue_size": 200_000,
            **(core or {}),
        },
        "plugins": {"allow_external": True},
        "sink_config": sink_config,
    }
    return Settings(**fields)


def log_file(folder: Path) -> Path:
    return folder / "fapilog.jsonl"


def records(path: Path) -> list[dict[str, Any]]:
    """Return what the application logged, as it stands in a file's lines, without what fapilog wraps it in."""
    found = []
    for line in path.read_bytes().splitlines():
        record = parse_line(line)
        if record.kind is None:
            value = json.loads(record.payload)
            found.append(value.get("log", value) if isinstance(value, dict) else {"message": value})
    return found


def messages(path: Path) -> list[str]:
    return [record["message"] for record in records(path)]


def policy_of_key(stream: str = STREAM, *, key_id: str = "default") -> TrustPolicy:
    """Return what is trusted by whoever has the shared key and nothing else."""
    uri = f"env:{VARIABLE}?key={key_id}&allow_in_production=true"
    return TrustPolicy(stream, (TrustedKey("local", key_id, uri),))


def verified(path: Path, policy: TrustPolicy | None = None, **options: Any) -> VerifyReport:
    with Verifier(policy or policy_of_key()) as verifier:
        return verifier.verify(path, **options)
