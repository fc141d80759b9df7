"""The facts about a machine that a figure needs beside it; nothing that names the machine."""

from __future__ import annotations

import os
import platform
import sysconfig
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

import keystead


def facts() -> dict[str, str]:
    """Return what is known, in the order to be shown."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "system": _system(),
        "load when the run began": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "Python": _python(),
        "Keystead": keystead.__version__,
        "cryptography": f"{version('cryptography')}, {backend.openssl_version_text()}",
    }


def _system() -> str:
    """Return the system with its distribution: one and the same Python is faster or slower by who built it."""
    system = f"{platform.system()} {platform.machine()}"
    try:
        return f"{system}, {platform.freedesktop_os_release()['PRETTY_NAME']}"
    except OSError:
        return system


def _python() -> str:
    """Return the interpreter, and what it says of how it was optimised; that of a distribution says nothing, and is."""
    options = str(sysconfig.get_config_var("CONFIG_ARGS"))
    named = [option for option in ("--enable-optimizations", "--with-lto") if option in options]
    return ", ".join((f"{platform.python_implementation()} {platform.python_version()}", *named))


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or "unknown"
