"""Which trust policy a command about a log goes by, and the KMSs that it needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from keystead.cli.frame import Call, say, wrong_usage
from keystead.errors import CouldNotVerifyError, KMSError
from keystead.ledger import TrustPolicy
from keystead.manager.logs import log_providers
from keystead.ports import KmsProvider

SUFFIX: Final = ".policy.json"

Log = Annotated[str, typer.Argument(metavar="FILE", help="The log's file.")]
Policy = Annotated[
    str | None,
    typer.Option("--policy", metavar="FILE", help="What to trust; FILE.policy.json beside the log if left out."),
]
KeyEnv = Annotated[
    str | None,
    typer.Option("--key-env", metavar="VAR", help="The environment variable with the secret that seals and opens."),
]


def beside(log: str | os.PathLike[str]) -> Path:
    """Return where the policy of a log is written unless somebody says where."""
    return Path(f"{os.fspath(log)}{SUFFIX}")


def policy_of(given: str | None, log: str) -> TrustPolicy | None:
    """Return the policy that was named, else the one beside the log, else None."""
    if given is not None:
        return TrustPolicy.load(given)
    found = beside(log)
    if not found.exists():
        return None
    say(f"warning: {found} stands beside the log; who can change one can change both. Keep a copy elsewhere (--policy)")
    return TrustPolicy.load(found)


def required_policy(given: str | None, log: str) -> TrustPolicy:
    """Return the policy as ``policy_of``; wrong usage where there is none."""
    found = policy_of(given, log)
    if found is None:
        wrong_usage("name the trust policy that `keystead log seal` wrote: --policy FILE")
    return found


def with_key_env(call: Call, variable: str | None) -> Call:
    """Return the call with the KMS that a variable of the environment holds the key of."""
    if variable is None:
        return call
    if call.flags.get("kms") is not None:
        wrong_usage("--key-env and --kms name the key twice")
    return Call({**call.flags, "kms": f"env:{variable}"}, call.config, call.is_json)


def providers_of(call: Call, policy: TrustPolicy) -> dict[str, KmsProvider]:
    """Return the KMSs that open sessions: what a flag names, and the settings' where the policy names none."""
    if call.flags.get("kms") is not None:
        return log_providers(call.settings())
    named = policy.kms_uris()
    if all(key.provider in named for key in policy.keys):
        return {}
    return {name: each for name, each in log_providers(call.settings()).items() if name not in named}


@contextmanager
def finding_out() -> Iterator[None]:
    """Turn everything that keeps a command from an answer into ``CouldNotVerifyError``."""
    try:
        yield
    except CouldNotVerifyError:
        raise
    except KMSError as exc:
        raise CouldNotVerifyError(str(exc)) from None
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        raise CouldNotVerifyError(f"{where}{exc.strerror or type(exc).__name__}") from None
