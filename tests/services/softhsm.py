"""SoftHSM2, a PKCS#11 token in files, loaded into the process of the tests; and what its administrator does to it.

The module is the process's: it reads ``SOFTHSM2_CONF`` when it is initialized, and everything that is done with it is
done in the turns of Keystead's own worker, since two threads in it crash the process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import pytest

from keystead.providers.pkcs11.config import PinSource, Pkcs11KMSConfig
from keystead.providers.pkcs11.token import Module, OpenToken, TokenName, module_at
from tests.components import missing

T = TypeVar("T")

PIN: Final = "the user pin"
SO_PIN: Final = "the security officer's"
LABEL: Final = "kms"
OTHER_LABEL: Final = "other"
CURE: Final = "apt-get install softhsm2 (or another package of SoftHSM2 with its softhsm2-util)"
PLACES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
P256: Final = bytes.fromhex("06082a8648ce3d030107")
P384: Final = bytes.fromhex("06052b81040022")
P521: Final = bytes.fromhex("06052b81040023")
EDWARDS25519: Final = bytes.fromhex("06032b6570")

_numbers = count(1)


class _Turn(Generic[T]):
    """A turn for whoever has no event loop."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._made: Callable[[], None] = lambda: None
        self.outcome: Future[T] = Future()

    def make(self) -> bool:
        try:
            self._made = partial(self.outcome.set_result, self._call())
        except BaseException as exc:
            self._made = partial(self.outcome.set_exception, exc)
        return True

    def deliver(self) -> None:
        self._made()


@dataclass(eq=False)
class SoftHsm:
    """The module with its tokens, ``kms`` and ``other``.

    Attributes:
        path: of the module.
        folder: where its configuration and tokens are.
        shared: labels of keys that are made once, by what they are.
    """

    path: str
    folder: Path
    shared: dict[str, str] = field(default_factory=dict)

    @property
    def tokens(self) -> Path:
        """The folder of the tokens."""
        return self.folder / "tokens"

    @property
    def module(self) -> Module:
        """The module of this process."""
        return module_at(self.path)

    def config(self, **settings: Any) -> Pkcs11KMSConfig:
        """Return the configuration of a provider of the token ``kms``."""
        return Pkcs11KMSConfig(**{"module": self.path, "token_label": LABEL, "pin": PIN, **settings})

    def in_turn(self, call: Callable[[], T]) -> T:
        """Return what ``call`` returns in a turn of the module; blocks."""
        turn = _Turn(call)
        self.module.worker._submit(turn)
        return turn.outcome.result(30)

    def administer(self, job: Callable[[OpenToken, Any], T], label: str = LABEL) -> T:
        """Return what ``job`` returns, given the token and a session that may write."""
        pins = PinSource(self.config())

        def call() -> T:
            token = self.module._opened(TokenName(label), self, pins)
            try:
                return job(token, token.session)
            finally:
                self.module._release(self)

        return self.in_turn(call)

    def make_aes(self, label: str = "", *, uses: str = "ENCRYPT DECRYPT", id_hex: str = "01", **attributes: Any) -> str:
        """Make an AES key and return its label, a new one unless it is given."""
        label = label or f"aes-{next(_numbers)}"

        def job(token: OpenToken, session: Any) -> None:
            p11 = token.p11
            session.generate_key(
                p11.KeyType.AES,
                256,
                label=label,
                id=bytes.fromhex(id_hex),
                store=True,
                capabilities=_flags(p11, uses),
                template=_template(p11, attributes),
            )

        self.administer(job)
        return label

    def make_secret(self, label: str = "", *, bits: int = 256, uses: str = "SIGN VERIFY", **attributes: Any) -> str:
        """Make a generic secret key and return its label."""
        label = label or f"secret-{next(_numbers)}"

        def job(token: OpenToken, session: Any) -> None:
            p11 = token.p11
            session.generate_key(
                p11.KeyType.GENERIC_SECRET,
                bits,
                label=label,
                id=b"\x01",
                store=True,
                capabilities=_flags(p11, uses),
                template=_template(p11, attributes),
            )

        self.administer(job)
        return label

    def make_pair(self, kind: str, parameters: int | bytes, label: str = "") -> str:
        """Make a key pair and return its label; ``parameters`` are the bits of RSA, or those of the curve."""
        label = label or f"pair-{next(_numbers)}"

        def job(token: OpenToken, session: Any) -> None:
            p11 = token.p11
            how: dict[str, Any] = {
                "label": label,
                "id": b"\x01",
                "store": True,
                "capabilities": _flags(p11, "SIGN VERIFY"),
                "private_template": _template(p11, {}),
            }
            if isinstance(parameters, int):
                session.generate_keypair(p11.KeyType.RSA, parameters, **how)
            else:
                curve = {p11.Attribute.EC_PARAMS: parameters}
                session.create_domain_parameters(p11.KeyType[kind], curve, local=True).generate_keypair(**how)

        self.administer(job)
        return label

    def shared_pair(self, kind: str, parameters: int | bytes) -> str:
        """Return the label of a key pair that is made once, since some take long to make."""
        name = f"shared {kind} {parameters!r}"
        if name not in self.shared:
            self.shared[name] = self.make_pair(kind, parameters, name)
        return name

    def import_aes(self, label: str, id_hex: str, key: bytes, uses: str = "ENCRYPT DECRYPT") -> None:
        """Put a known AES key on the token."""

        def job(token: OpenToken, session: Any) -> None:
            attribute = token.p11.Attribute
            template = {
                attribute.CLASS: token.p11.ObjectClass.SECRET_KEY,
                attribute.KEY_TYPE: token.p11.KeyType.AES,
                attribute.TOKEN: True,
                attribute.PRIVATE: True,
                attribute.LABEL: label,
                attribute.ID: bytes.fromhex(id_hex),
                attribute.VALUE: key,
                **_template(token.p11, {}),
                **{attribute[use]: use in uses.split() for use in ("ENCRYPT", "DECRYPT", "WRAP", "UNWRAP")},
            }
            session.create_object(template)

        self.administer(job)

    def set_attributes(self, label: str, **attributes: Any) -> None:
        """Change attributes of every secret and private key of a label."""

        def job(token: OpenToken, session: Any) -> None:
            for each in _keys(token, session, label):
                for name, value in attributes.items():
                    each[token.p11.Attribute[name]] = value

        self.administer(job)

    def attributes(self, label: str, *names: str) -> list[dict[str, Any]]:
        """Return attributes of every secret and private key of a label."""

        def job(token: OpenToken, session: Any) -> list[dict[str, Any]]:
            attribute = token.p11.Attribute
            return [{name: each[attribute[name]] for name in names} for each in _keys(token, session, label)]

        return self.administer(job)

    def destroy(self, label: str, *, id_hex: str | None = None, public_only: bool = False) -> None:
        """Destroy every object of a label, or those of one id, or public ones alone."""

        def job(token: OpenToken, session: Any) -> None:
            wanted: dict[Any, Any] = {token.p11.Attribute.LABEL: label}
            if id_hex is not None:
                wanted[token.p11.Attribute.ID] = bytes.fromhex(id_hex)
            if public_only:
                wanted[token.p11.Attribute.CLASS] = token.p11.ObjectClass.PUBLIC_KEY
            for each in list(session.get_objects(wanted)):
                each.destroy()

        self.administer(job)

    def remove_tokens(self) -> None:
        """Take the tokens away, as if they were pulled out."""
        self.tokens.rename(self.folder / "away")
        self.tokens.mkdir()

    def insert_tokens(self) -> None:
        """Put the tokens back."""
        if (away := self.folder / "away").exists():
            shutil.rmtree(self.tokens)
            away.rename(self.tokens)

    def elsewhere(self, code: str) -> str:
        """Run Python code in another process that has the token open for writing as ``session``; return its output."""
        program = f"""
            import pkcs11
            from pkcs11 import Attribute, KeyType, MechanismFlag, ObjectClass
            session = pkcs11.lib({self.path!r}).get_token(token_label={LABEL!r}).open(rw=True, user_pin={PIN!r})
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program) + textwrap.dedent(code)],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout


def module_path() -> str | None:
    """Return where SoftHSM2's module is, or None."""
    return next((place for place in PLACES if os.path.exists(place)), None)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[SoftHsm]:
    """Have the module with two tokens of this process's own, in ``folder``."""
    path, program = module_path(), shutil.which("softhsm2-util")
    if path is None or program is None:
        missing("softhsm", CURE)
    hsm = SoftHsm(path, folder)
    hsm.tokens.mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {hsm.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    for label in (LABEL, OTHER_LABEL):
        init_token(program, label)
    yield hsm
    hsm.in_turn(hsm.module._leave)
    del os.environ["SOFTHSM2_CONF"]


@pytest.fixture(scope="session")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """The module with two tokens of this process's own."""
    with running(tmp_path_factory.mktemp("softhsm")) as hsm:
        yield hsm


def init_token(program: str, label: str) -> None:
    """Make a token."""
    pins = ["--pin", PIN, "--so-pin", SO_PIN]
    subprocess.run([program, "--init-token", "--free", "--label", label, *pins], check=True, capture_output=True)


def _keys(token: OpenToken, session: Any, label: str) -> list[Any]:
    p11 = token.p11
    kinds = (p11.ObjectClass.SECRET_KEY, p11.ObjectClass.PRIVATE_KEY)
    return [
        each for kind in kinds for each in session.get_objects({p11.Attribute.LABEL: label, p11.Attribute.CLASS: kind})
    ]


def _flags(p11: Any, uses: str) -> Any:
    flags = p11.MechanismFlag(0)
    for use in uses.split():
        flags |= p11.MechanismFlag[use]
    return flags


def _template(p11: Any, attributes: dict[str, Any]) -> dict[Any, Any]:
    given = {"SENSITIVE": True, "EXTRACTABLE": False, **attributes}
    return {p11.Attribute[name]: value for name, value in given.items()}
