"""Pages, and what is done from them: what each takes, and what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from keystead.access.callers import Scope
from keystead.access.transit_scopes import TransitOperation
from keystead.server.console.visits import Visit


@dataclass(frozen=True, slots=True)
class Shown:
    """A page as it is shown: a template, and what it is filled with."""

    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class File:
    """A file that the visitor keeps."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """Something that was done: where the visitor finds it, and what is told there once."""

    then: str
    told: str


@dataclass(frozen=True, slots=True)
class Input:
    """A field of a form.

    Attributes:
        kind: ``text``, ``number``, ``checkbox``, ``select`` or ``password``.
        value: what it has at first; of a ``checkbox`` that is ticked then, any text.
        options: of a ``select``: values, and how they are called.
    """

    name: str
    label: str
    kind: str = "text"
    value: str = ""
    hint: str = ""
    options: Sequence[tuple[str, str]] = ()
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """What is going to happen, before it does.

    Attributes:
        effects: a sentence each.
        typed: what the visitor types again, where it cannot be undone.
        instead: what may be done before it, as it is called, and its address.
    """

    title: str
    effects: Sequence[str]
    button: str
    back: str
    inputs: Sequence[Input] = ()
    typed: str | None = None
    instead: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        scope: what it takes; None where everybody who has signed in may see it.
        is_of_store: what it is about belongs to no tenant, and so visitors of a tenant are refused.
        title: as the navigation has it; None where it is not there.
        group: the entry of the navigation that it is below, with others; None where it is one by itself.
        transit: what a scope of the engine must allow as well, on the key that ``Visit.transit_key`` names.
        is_whole: False of a file, and of a part that a page which is open asks for.
    """

    path: str
    scope: Scope | None
    show: Callable[[Visit], Awaitable[Shown | File]]
    is_of_store: bool = True
    title: str | None = None
    group: str | None = None
    transit: TransitOperation | None = None
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that is done from a page: ``preview`` shows what it will do, ``do`` does it when the form is sent.

    Attributes:
        takes_two: a second person has to approve it, where the store asks for that.
    """

    path: str
    scope: Scope | None
    preview: Callable[[Visit], Awaitable[Preview]]
    do: Callable[[Visit], Awaitable[Done | Shown | File]]
    is_of_store: bool = True
    transit: TransitOperation | None = None
    takes_two: bool = False
