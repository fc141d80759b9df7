"""Encrypted attributes of Pydantic models and dataclasses, marked where they are declared.

::

    @dataclass
    class Person:
        name: str
        email: Annotated[str, keystead.Field("people", "email")]

    row = seal(km, person, record=42)  # {"name": "Ada", "email": "ks1...."}
    person = unseal(km, Person, row, record=42)

Pydantic is not needed for dataclasses, and nothing here imports it before Pydantic itself has been. Where values are
searched for, ``km.field(f).index_values(value)`` gives what the index columns hold.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, Self, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as hints_of

from keystead.crypto.envelope import from_text, parse_header, to_text
from keystead.errors import InvalidCiphertextError, InvalidInputError
from keystead.fields import Field, FieldCipher

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic_core import CoreSchema

T = TypeVar("T")
_SIMPLE: Final = (str, bytes, bytearray, memoryview, array, range, int, float, NoneType)
"""Values that hold no object, though some are sequences, and may be long."""
_PATTERN: Final = r"^ks1\.[A-Za-z0-9_-]+$"


class HasFields(Protocol):
    """A key manager, async or blocking."""

    def field(self, field: Field) -> FieldCipher:
        """Return what encrypts and decrypts the values of ``field``."""


class Ciphertext(str):
    """The ``ks1.`` text of an envelope: a ``str`` that cannot be anything else, in a Pydantic model too.

    Pydantic's ``ValidationError`` shows what it refused; ``hide_input_in_errors=True`` in the model's configuration
    keeps a plaintext that was put there by mistake out of it.

    Raises:
        InvalidCiphertextError: not the text form of an envelope.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Return ``text``, once it has been read as an envelope."""
        parse_header(from_text(text))
        return super().__new__(cls, text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Tell Pydantic to read a text and check it."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls._checked, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Describe it as a text that begins with ``ks1.``."""
        described = "A value encrypted by Keystead, in its text form."
        return {"type": "string", "title": "Ciphertext", "description": described, "pattern": _PATTERN}

    @classmethod
    def _checked(cls, text: str) -> Self:
        try:
            return cls(text)
        except InvalidCiphertextError as exc:
            raise ValueError(str(exc)) from None  # what Pydantic collects, with the member's name


def seal(
    km: HasFields, obj: object, *, record: object, tenant: str | None = None, subject: object = None
) -> dict[str, Any]:
    """Return the members of a Pydantic model or a dataclass by name, the marked ones as ``ks1.`` text.

    The others are returned as they are: what is not marked is not encrypted. None stays None unless its field says
    ``encrypt_null``. Computed fields and what a dataclass's constructor does not take are left out.

    Args:
        obj: whose marked members are encrypted; pydantic's ``SecretStr`` and ``SecretBytes`` by what they hold.
        record, tenant, subject: whose values they are; ``tenant`` and ``subject`` for the fields that have one.

    Raises:
        InvalidInputError: another class of object, one with nothing marked, a mark where it would not be seen, a
            nested model, in a list or dict as well, or a value of another type than its field's.
        KeyringNotLoadedError, KMSError: as ``FieldCipher.encrypt``.
    """
    kind = type(obj)
    fields = marked(kind)
    members = {name: getattr(obj, name) for name in _names(kind)}
    if not dataclasses.is_dataclass(kind):
        members |= getattr(obj, "model_extra", None) or {}
    for name, value in members.items():
        if _holds_model(value):
            raise _nested(kind, name)
    for name, field in fields.items():
        value = _revealed(members[name])
        sealed = km.field(field).encrypt(
            value,
            record=record,
            tenant=_tenant_of(field, tenant, kind),
            subject=None if field.subject is None else subject,
        )
        members[name] = None if sealed is None else to_text(sealed)
    return members


def unseal(km: HasFields, kind: type[T], data: Mapping[str, object], *, record: object, tenant: str | None = None) -> T:
    """Return the object whose members ``seal`` gave: a model through its validation, a dataclass by its constructor.

    Members are looked up by name, never by alias. A marked member that is missing is left to its default.

    Raises:
        DecryptionError: another record, tenant or key, altered bytes, or a plaintext where a ciphertext belongs.
        InvalidInputError: as ``seal``; or the model refuses the values, which the message does not show.
        DataKeyNotLoadedError, KMSError: as ``FieldCipher.decrypt``.
        TypeError: the dataclass has no such member, or needs one that is missing.
    """
    members = dict(data)
    for name, field in marked(kind).items():
        if name in members:
            text: Any = members[name]
            members[name] = km.field(field).decrypt(text, record=record, tenant=_tenant_of(field, tenant, kind))
    return _built(kind, members)


def marked(kind: type) -> Mapping[str, Field]:
    """Return the fields that mark members of a Pydantic model or a dataclass, by the member's name.

    Raises:
        InvalidInputError: another class, one with nothing marked, a nested model, or a mark where it would not be
            seen, such as inside a list or on a member of a TypedDict or NamedTuple.
    """
    return _read_marks(kind)


@lru_cache(maxsize=1024)
def _read_marks(kind: type) -> Mapping[str, Field]:
    found: dict[str, Field] = {}
    for name, hint in _hints(kind).items():
        marks, inner = _whole(hint)
        for part in _parts(inner):
            if isinstance(part, Field):
                raise InvalidInputError(
                    f"{kind.__name__}.{name}: the mark of field {part.id} stands inside another type, and would not be "
                    "seen; mark the whole: Annotated[the type, keystead.Field(...)], of type list or dict if it is one"
                )
            if _is_model(get_origin(part) or part):
                raise _nested(kind, name)
        if len(marks) > 1:
            raise InvalidInputError(f"{kind.__name__}.{name} is marked with more than one field")
        if marks:
            found[name] = marks[0]
    if not found:
        raise InvalidInputError(
            f"{kind.__name__} has no encrypted member; mark one: Annotated[str, keystead.Field('table', 'column')]"
        )
    return MappingProxyType(found)


def _is_pydantic(kind: type) -> bool:
    return hasattr(kind, "__pydantic_fields__")


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and (_is_pydantic(kind) or dataclasses.is_dataclass(kind))


def _names(kind: type) -> list[str]:
    """Return the names of the members that make an object again."""
    if dataclasses.is_dataclass(kind):
        return [member.name for member in dataclasses.fields(kind) if member.init]
    if _is_pydantic(kind):
        return list(kind.__pydantic_fields__)  # type: ignore[attr-defined]  # a class of Pydantic's
    raise InvalidInputError(f"seal and unseal take a Pydantic model or a dataclass, not {kind.__name__}")


def _hints(kind: type) -> dict[str, Any]:
    """Return the type of each member, ``Annotated`` kept and names resolved."""
    names = _names(kind)
    if dataclasses.is_dataclass(kind):
        resolved = hints_of(kind, include_extras=True)
        return {name: resolved[name] for name in names}
    model: Any = kind
    if not model.__pydantic_complete__:
        model.model_rebuild()
    fields = model.__pydantic_fields__
    return {name: Annotated[fields[name].annotation, None, *fields[name].metadata] for name in names}


def _whole(hint: Any) -> tuple[list[Field], Any]:
    """Return the marks of a member as a whole, and the type they mark. ``| None`` may stand outside them."""
    hint = _named(hint)
    if get_origin(hint) is Annotated:
        inner, *metadata = get_args(hint)
        marks, inner = _whole(inner)
        return [mark for mark in metadata if isinstance(mark, Field)] + marks, inner
    if get_origin(hint) in {Union, UnionType}:
        arms = [arm for arm in get_args(hint) if arm is not NoneType]
        if len(arms) == 1:
            return _whole(arms[0])
    return [], hint


def _parts(hint: Any) -> Iterator[Any]:
    """Yield a type and every type, and mark, inside it; one that contains itself, once.

    Inside of a TypedDict or NamedTuple are its members; of another class, the marks of its attributes alone.

    Raises:
        InvalidInputError: a TypedDict or NamedTuple whose annotations name what is not found.
    """
    waiting, seen = [hint], list[Any]()
    while waiting:
        part = _named(waiting.pop())
        if not any(part is each for each in seen):
            seen.append(part)
            yield part
            waiting += get_args(part)
            if isinstance(part, TypeVar):
                waiting += filter(None, (part.__bound__, *part.__constraints__))
            kind = get_origin(part) or part
            if _is_record(kind):
                waiting += _member_hints(kind)
            elif isinstance(kind, type) and not _is_model(kind):
                waiting += _marks_of(kind)


def _is_record(kind: object) -> bool:
    """Return whether a class is a TypedDict, of any module, or a NamedTuple."""
    is_dict = isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__required_keys__")
    return is_dict or (isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"))


def _member_hints(kind: Any) -> list[Any]:
    try:
        return list(hints_of(kind, include_extras=True).values())
    except NameError as exc:
        raise InvalidInputError(
            f"{kind.__name__} names a type that is not found, {exc.name!r}, and a mark in it would not be seen; define "
            "both where a module does, not inside a function"
        ) from None


@lru_cache(maxsize=1024)
def _marks_of(kind: type) -> tuple[Field, ...]:
    """Return the marks of the attributes of any class; of one whose annotations name what is not found, none."""
    try:
        hints = hints_of(kind, include_extras=True).values()
    except (NameError, TypeError, AttributeError):
        return ()
    return tuple(mark for hint in hints for mark in _whole(hint)[0])


@lru_cache(maxsize=1024)
def _has_marks(kind: type) -> bool:
    return any(isinstance(part, Field) for part in _parts(kind))


def _holds_model(value: object) -> bool:
    """Return whether a value is a model, or an object with marks, or a collection with one inside, however deep."""
    waiting, seen = [value], set[int]()
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, _SIMPLE):
            continue
        seen.add(id(each))
        kind: Any = type(each)
        if not isinstance(each, type) and (_is_model(kind) or _has_marks(kind)):
            return True
        if isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, Sequence | Set | deque):
            waiting += each
    return False


def _named(hint: Any) -> Any:
    """Return what an alias made by a ``type`` statement, or a ``NewType``, stands for."""
    while type(hint).__name__ in {"TypeAliasType", "NewType"}:
        hint = hint.__value__ if hasattr(hint, "__value__") else hint.__supertype__
    return hint


def _nested(kind: type, name: str) -> InvalidInputError:
    return InvalidInputError(
        f"{kind.__name__}.{name} holds another model: seal it on its own, with its own record, or mark the member as "
        "a field of type dict and give it as one"
    )


def _tenant_of(field: Field, tenant: str | None, kind: type) -> str | None:
    """Return the tenant for one field: none where others of the object have one and this one does not."""
    has_tenants = any(other.tenant is not None for other in marked(kind).values())
    return tenant if field.tenant is not None or not has_tenants else None


def _revealed(value: Any) -> object:
    reveal = getattr(value, "get_secret_value", None)
    return value if reveal is None else reveal()


def _built(kind: type[T], members: Mapping[str, Any]) -> T:
    """Return the object of its members; a refusal by Pydantic never shows the values, which were secret till now."""
    if not _is_pydantic(kind):
        return kind(**members)
    from pydantic import ValidationError

    model: Any = kind
    try:
        built: T = kind(**members) if dataclasses.is_dataclass(kind) else _validated(model, members)
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_context=False, include_input=False)
        # The member alone: further down a path may go through keys of what was decrypted.
        reasons = ", ".join(f"{'.'.join(map(str, each['loc'][:1]))}: {each['type']}" for each in found)
        raise InvalidInputError(f"{kind.__name__} refuses what was decrypted ({reasons})") from None
    return built


def _validated(model: Any, members: Mapping[str, Any]) -> Any:
    """Return a model of its members; one of a root alone is read from the root itself."""
    if not model.__pydantic_root_model__:
        return model.model_validate(members, by_alias=False, by_name=True)
    return model.model_validate(members["root"]) if "root" in members else model()
