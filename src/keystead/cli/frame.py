"""What every command shares: its common options, how it runs, how it answers and how it fails.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 what was to be verified is not as it should be (a ciphertext: another key
or context, or altered bytes; a log or an audit trail: changed), 4 it could not be found out.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

from keystead.cli.render import Outcome, show
from keystead.config.durations import parse_duration
from keystead.errors import (
    ConfigurationError,
    CouldNotVerifyError,
    DecryptionError,
    InvalidInputError,
    InvalidProofError,
    InvalidSignatureError,
    KeyDecryptionFailError,
    KMSError,
    ProviderNotConfiguredError,
)

if TYPE_CHECKING:
    from keystead import blocking
    from keystead.config.sources import LoadedSettings
    from keystead.manager.manager import KeyManager

T = TypeVar("T")

FAILED: Final = 1
WRONG_USAGE: Final = 2
NOT_VERIFIED: Final = 3
COULD_NOT_VERIFY: Final = 4
_PANEL: Final = "Where and how"
_EPILOG: Final = (
    "Begin with `keystead init` in an empty folder. Settings: flag over environment (KEYSTEAD_STORE, KEYSTEAD_KMS...) "
    "over keystead.yaml over default. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the ciphertext or log does not "
    "verify, 4 whether the log does could not be found out."
)


@dataclass(frozen=True, slots=True)
class Call:
    """One run of a command: the common options, and what they lead to."""

    flags: dict[str, str | None]
    config: str | None = None
    is_json: bool = False

    def settings(self) -> LoadedSettings:
        """Return the settings in force."""
        from keystead.manager.configured import read_settings

        return read_settings(self.config, flags=self.flags)

    def manager(self, *, creates: bool = False) -> KeyManager:
        """Return the manager these settings describe, for one command: no background task.

        Args:
            creates: whether it makes the store, where an SQLite file is named in which there is none.

        Raises:
            ConfigurationError: also for a store in memory, which would forget the keys at once.
        """
        from keystead.manager.manager import KeyManager

        return KeyManager.from_config(self.lasting_settings(), background=False, create_store=creates)

    @contextmanager
    def blocking(self) -> Iterator[blocking.KeyManager]:
        """Open the manager these settings describe, for what is not async; errors as ``manager``."""
        from keystead import blocking

        with blocking.KeyManager.from_config(self.lasting_settings(), background=False, create_store=False) as km:
            yield km

    def lasting_settings(self) -> LoadedSettings:
        """Return the settings in force, of a store that outlives the command.

        Raises:
            ConfigurationError: also for a store in memory, which would forget the keys at once.
        """
        from keystead.manager.configured import store_url

        loaded = self.settings()
        if store_url(loaded).startswith("memory:"):
            raise ConfigurationError(
                "a store in memory forgets its keys when the command ends; name one that lasts, as `keystead init` does"
            )
        return loaded

    def run(
        self,
        action: Callable[[KeyManager], Awaitable[T]],
        *,
        is_opened: bool = True,
        creates: bool = False,
        asks: bool = False,
    ) -> T:
        """Run ``action`` with the manager, initialised unless ``is_opened`` is false, and close it.

        Args:
            creates: as ``manager``: for commands whose purpose is to make something.
            asks: whether it is something that takes a second person's approval where the store asks for that.
        """

        async def whole() -> T:
            km = self.manager(creates=creates)
            try:
                if is_opened:
                    await km.initialize()
                return await (_asking(km, action) if asks else action(km))
            finally:
                await km.close()

        return asyncio.run(whole())


async def _asking(km: KeyManager, action: Callable[[KeyManager], Awaitable[T]]) -> T:
    from keystead.cli.asking import asking

    async with asking(km):
        return await action(km)


Store = Annotated[str | None, typer.Option("--store", metavar="URL", help="The store's URL.", rich_help_panel=_PANEL)]
Kms = Annotated[str | None, typer.Option("--kms", metavar="URI", help="The KEK's URI.", rich_help_panel=_PANEL)]
Config = Annotated[
    str | None, typer.Option("--config", metavar="FILE", help="The settings file.", rich_help_panel=_PANEL)
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON on stdout.", rich_help_panel=_PANEL)]
Debug = Annotated[bool, typer.Option("--debug", help="Show where an error comes from.", rich_help_panel=_PANEL)]

_COMMON: Final = {"store": Store, "kms": Kms, "config": Config, "as_json": AsJson, "debug": Debug}


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., Outcome | None]], Callable[..., Outcome | None]]:
    """Register a function ``f(call, ...) -> Outcome`` as a command with the common options besides its own."""

    def register(function: Callable[..., Outcome | None]) -> Callable[..., Outcome | None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        taken = {parameter.name for parameter in own}
        common = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=_default_of(key))
            for key, kind in _COMMON.items()
            if key not in taken
        ]

        @wraps(function)
        def run(**given: Any) -> None:
            flags = {"store": given.get("store"), "kms": given.get("kms")}
            call = Call(flags, given.get("config"), given.get("as_json", False))
            outcome = function(call, **{parameter.name: given[parameter.name] for parameter in own})
            if outcome is not None:
                show(outcome, is_json=call.is_json)
                if outcome.exit_code:
                    raise typer.Exit(outcome.exit_code)

        keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        run.__signature__ = inspect.Signature([*keyword, *common])  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in [*own, *common]}
        del run.__wrapped__
        app.command(name, short_help=_summary(function))(run)
        return function

    return register


def new_app() -> typer.Typer:
    """Return the command line without commands."""
    app = typer.Typer(
        cls=RootGroup,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        epilog=_EPILOG,
    )

    @app.callback()
    def root(
        version: Annotated[
            bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
        ] = False,
        debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    ) -> None:
        """Encrypt data under keys that rotate on their own, and keep everything readable."""

    return app


def group(app: typer.Typer, name: str, help_text: str) -> typer.Typer:
    """Add a noun: a group of commands under ``name``."""
    noun = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help=help_text)
    app.add_typer(noun, name=name)
    return noun


def say(message: str) -> None:
    """Tell the person at the terminal something that is no part of the answer."""
    print(message, file=sys.stderr, flush=True)


def ask_for(what: str, answer: str) -> None:
    """Have something typed before the command goes on, so that nobody does it by a slip.

    Raises:
        InvalidInputError: something else was.
    """
    print(f"Type {what} ({answer}) to go on: ", end="", file=sys.stderr, flush=True)
    given = sys.stdin.readline()
    if not sys.stdin.isatty():
        say("")
    if not given:
        wrong_usage("nobody is there to answer; say --yes to go on without being asked")
    if given.strip() != answer:
        raise InvalidInputError(f"that is not {what}; nothing was changed")


def wrong_usage(message: str) -> NoReturn:
    """End the command: it was called wrongly."""
    raise typer.BadParameter(message)


def duration_option(name: str, text: str | None) -> Any:
    """Return a duration given as an option, or None."""
    try:
        return None if text is None else parse_duration(text)
    except ConfigurationError as exc:
        wrong_usage(f"{name}: {exc}")


def moment_option(name: str, text: str | None) -> datetime | None:
    """Return a time given as an option: ISO 8601, in UTC unless it says otherwise, or how long ago it was."""
    if text is None:
        return None
    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) - timedelta(seconds=_ago_s(name, text))
    return given if given.tzinfo is not None else given.replace(tzinfo=UTC)


def _ago_s(name: str, text: str) -> float:
    try:
        return parse_duration(text).total_seconds()
    except ConfigurationError:
        wrong_usage(f"{name}: a time reads 2030-01-31, 2030-01-31T12:00Z or, for how long ago it was, 90d")


class RootGroup(TyperGroup):
    """Runs the command line, and turns every failure into one line on stderr and an exit code."""

    def main(self, args: Any = None, *rest: Any, **how: Any) -> Any:
        """Run, and exit."""
        given = [str(arg) for arg in (sys.argv[1:] if args is None else args)]
        is_debug = "--debug" in given
        how["standalone_mode"] = False
        if sys.stdout is None:
            # What the command does would be done before its answer proved to have nowhere to go.
            say("error: stdout is closed, and nothing was done; to do without the answer, send it to /dev/null")
            sys.exit(WRONG_USAGE)
        with _messages(is_debug):
            try:
                code = super().main(args, *rest, **how)
                sys.stdout.flush()
            except KeyboardInterrupt:
                code = 130
            except BrokenPipeError:
                # Whoever read our output has gone; the interpreter must not try to flush to them again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                code = FAILED
            except Exception as exc:
                if is_debug:
                    logging.getLogger("keystead.cli").exception("the command failed")
                code = _report(exc, is_json="--json" in given)
        sys.exit(code if isinstance(code, int) else 0)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of a failure."""
    if isinstance(error, DecryptionError) and not isinstance(
        error, KeyDecryptionFailError | ProviderNotConfiguredError
    ):
        return NOT_VERIFIED
    if isinstance(error, InvalidSignatureError | InvalidProofError):
        return NOT_VERIFIED
    if isinstance(error, CouldNotVerifyError):
        return COULD_NOT_VERIFY
    return int(getattr(error, "exit_code", FAILED))


def _report(error: Exception, *, is_json: bool) -> int:
    code = exit_code_of(error)
    if isinstance(error, KMSError):
        name, message, retryable = error.code, str(error), error.retryable
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        name, message, retryable = "file", f"{where}{error.strerror or type(error).__name__}", False
    elif hasattr(error, "format_message"):
        name, message, retryable = "usage", _usage(error), False
    elif isinstance(error, typer.Abort):
        name, message, retryable = "aborted", "stopped; nothing was changed", False
    else:
        name, message = "unexpected", f"unexpected {type(error).__name__}; run again with --debug to see where"
        retryable = False
    if message:
        say("error: " + " ".join(message.split()))
    if is_json:
        # Nobody reads it where stdout is what failed.
        with contextlib.suppress(OSError):
            show(Outcome({"error": {"code": name, "message": message, "retryable": retryable}}), is_json=True)
    return code


def _usage(error: Any) -> str:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return ""
    message = message.replace("Value error, ", "").removeprefix("Invalid value: ").rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "keystead"
    return f"{message} (see `{path} --help`)"


@contextmanager
def _messages(is_debug: bool) -> Iterator[None]:
    """Print warnings and log records of Keystead as single lines on stderr while a command runs."""
    told: set[str] = set()

    def tell(message: Warning | str, *where: Any, **more: Any) -> None:
        if str(message) not in told:
            told.add(str(message))
            say(f"warning: {message}")

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter() if is_debug else _OneLine("warning: %(message)s"))
    log = logging.getLogger("keystead")
    log.addHandler(handler)
    propagate, log.propagate = log.propagate, False
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = tell
        try:
            yield
        finally:
            log.removeHandler(handler)
            log.propagate = propagate


class _OneLine(logging.Formatter):
    """Leaves out where a record's exception came from."""

    def format(self, record: logging.LogRecord) -> str:
        return f"warning: {record.getMessage()}"


def _summary(function: Callable[..., Any]) -> str:
    """Return the first sentence of a command's help, whole: left to itself a list of commands cuts it off."""
    return " ".join((inspect.getdoc(function) or "").split()).partition(". ")[0].removesuffix(".") + "."


def _default_of(key: str) -> bool | None:
    return False if key in ("as_json", "debug") else None


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from keystead import __version__

        print(f"keystead {__version__}")
        raise typer.Exit
