"""One vault, or one managed HSM, of the fake Azure: keys, versions, states, and what each answers.

Status codes, codes and inner codes are the service's: https://learn.microsoft.com/azure/key-vault/general/rest-error-codes
and answers of the live service that were published.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.azure_crypto import ALL_OPS, Material, RefusedError, b64url, make_material
from tests.fakes.azure_http import Request, Response

OPERATIONS = {
    "encrypt": "encrypt",
    "decrypt": "decrypt",
    "wrapkey": "wrapKey",
    "unwrapkey": "unwrapKey",
    "sign": "sign",
    "verify": "verify",
}
PRIVATE = frozenset({"decrypt", "unwrapKey", "sign"})
"""What a disabled key does not do; with the public half, everybody else can do the rest anyway."""
PROTECTING = frozenset({"encrypt", "wrapKey", "sign"})
"""What a key does not do outside nbf and exp."""
COMPUTED_AS = {"wrapKey": "encrypt", "unwrapKey": "decrypt"}
PAGE_SIZE = 25
DEFAULT_POLICY: dict[str, Any] = {
    "lifetimeActions": [{"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": "Notify"}}],
    "attributes": {},
}
"""What a vault answers for a key whose rotation policy nobody has set."""


class ApiError(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str, message: str, inner: str | None = None) -> None:
        self.status = status
        self.body: dict[str, Any] = {"error": {"code": code, "message": message}}
        if inner is not None:
            self.body["error"]["innererror"] = {"code": inner}
        super().__init__(message)

    def response(self) -> Response:
        """Return it as it is sent."""
        return Response(self.status, self.body)


@dataclass
class Version:
    """One version of a key."""

    id: str
    material: Material
    key_ops: tuple[str, ...]
    created: int
    enabled: bool = True
    nbf: int | None = None
    exp: int | None = None


@dataclass
class Key:
    """A key with all of its versions, oldest first."""

    name: str
    kty: str
    size: int | None
    curve: str | None
    versions: list[Version] = field(default_factory=list)
    deleted: bool = False
    policy: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_POLICY))


class VaultState:
    """The keys of one vault (``vault``) or managed HSM (``hsm``), and the answers to requests that are signed in.

    Attributes:
        denied: operations that nobody may do (``get``, ``unwrapKey``, ``rotate``...), or ``*``.
        is_firewalled: whether every caller is outside the network.
    """

    def __init__(self, flavour: str, *, now: Callable[[], float] = time.time) -> None:
        self.flavour = flavour
        self.denied: set[str] = set()
        self.is_firewalled = False
        self._now = now
        self._keys: dict[str, Key] = {}
        self._lock = threading.RLock()

    def create_key(
        self,
        name: str,
        kty: str = "RSA",
        *,
        size: int | None = None,
        curve: str | None = None,
        key_ops: Collection[str] | None = None,
        nbf: int | None = None,
        exp: int | None = None,
    ) -> Version:
        """Make a key, or another version of it."""
        if self.flavour == "hsm" and not kty.endswith("-HSM"):
            raise ApiError(400, "BadParameter", f"Key type {kty} is not supported by a managed HSM.")
        if self.flavour == "vault" and kty.startswith("oct"):
            raise ApiError(400, "BadParameter", f"Key type {kty} is not supported by this vault.")
        if not re.fullmatch(r"[0-9A-Za-z-]{1,127}", name):
            raise ApiError(400, "BadParameter", "The key name is invalid.")
        try:
            material = make_material(kty, size, curve)
        except RefusedError as refused:
            raise ApiError(400, "BadParameter", str(refused)) from None
        ops = tuple(ALL_OPS[material.family] if key_ops is None else key_ops)
        version = Version(os.urandom(16).hex(), material, ops, int(self._now()), nbf=nbf, exp=exp)
        with self._lock:
            key = self._keys.setdefault(name.lower(), Key(name, kty, size, curve))
            if key.deleted:
                raise ApiError(409, "Conflict", "Key is deleted but recoverable.", "ObjectIsDeletedButRecoverable")
            key.versions.append(version)
        return version

    def key(self, name: str) -> Key:
        """Return a key by its name, deleted or not."""
        return self._keys[name.lower()]

    def set_enabled(self, name: str, is_enabled: bool, *, version: str | None = None) -> None:
        """Enable or disable one version, or all."""
        for each in self.key(name).versions:
            if version in {None, each.id}:
                each.enabled = is_enabled

    def delete(self, name: str) -> None:
        """Delete a key softly."""
        self.key(name).deleted = True

    def purge(self, name: str) -> None:
        """Delete a key for good."""
        self._keys.pop(name.lower(), None)

    def set_policy(self, name: str, policy: dict[str, Any]) -> None:
        """Set a key's rotation policy."""
        self.key(name).policy = policy

    def answer(self, request: Request) -> Response:
        """Answer a request of somebody who is signed in."""
        try:
            if self.is_firewalled:
                message = "Client address is not authorized and caller is not a trusted service."
                raise ApiError(403, "Forbidden", message, "ForbiddenByFirewall")
            if "api-version" not in request.query:
                raise ApiError(400, "BadParameter", "api-version must be specified")
            answer = self._route(request)
        except ApiError as error:
            return error.response()
        return Response(204) if answer is None else Response(200, answer)

    def _route(self, request: Request) -> object:
        parts = [part for part in request.path.split("/") if part]
        method, body = request.method, request.json()
        match [method, *parts]:
            case ["POST", "rng"] if self.flavour == "hsm":
                self._allow("getRandomBytes")
                return {"value": b64url(os.urandom(int(body["count"])))}
            case ["POST", "keys", name, "create"]:
                self._allow("create")
                return self._create(request, name, body)
            case ["POST", "keys", name, "rotate"]:
                self._allow("rotate")
                return self._rotate(request, name)
            case ["GET" | "PUT", "keys", name, "rotationpolicy"]:
                self._allow("getRotationPolicy" if method == "GET" else "setRotationPolicy")
                return self._policy(request, name, body if method == "PUT" else None)
            case ["GET", "keys", name, "versions"]:
                self._allow("list")
                return self._list_versions(request, name)
            case ["GET", "keys", name, *version] if len(version) <= 1:
                self._allow("get")
                return self._bundle(request, self._live(name), self._version(name, *version))
            case ["PATCH", "keys", name, *version] if len(version) <= 1:
                self._allow("update")
                return self._update(request, name, self._version(name, *version), body)
            case ["DELETE", "keys", name]:
                self._allow("delete")
                self._live(name).deleted = True
                return self._deleted(request, name)
            case ["GET", "deletedkeys", name]:
                self._allow("get" if self.flavour == "vault" else "getDeleted")
                return self._deleted(request, name)
            case ["DELETE", "deletedkeys", name]:
                self._allow("purge")
                self.purge(name)
                return None
            case ["POST", "deletedkeys", name, "recover"]:
                self._allow("recover")
                self.key(name).deleted = False
                return self._bundle(request, self._live(name), self._version(name))
            case ["POST", "keys", name, *version, operation] if operation in OPERATIONS and len(version) <= 1:
                self._allow(OPERATIONS[operation])
                return self._operate(request, name, self._version(name, *version), OPERATIONS[operation])
        raise ApiError(404, "NotFound", "Resource not found.")

    def _list_versions(self, request: Request, name: str) -> dict[str, Any]:
        """Return a page of a key's versions; an empty one where there is no such key."""
        key = self._keys.get(name.lower())
        versions = [] if key is None or key.deleted else key.versions
        start = int(request.query.get("$skiptoken", 0))
        items = [self._bundle(request, self._live(name), each) for each in versions[start : start + PAGE_SIZE]]
        listed = [{"kid": item["key"]["kid"], "attributes": item["attributes"]} for item in items]
        rest = f"api-version={request.query['api-version']}&$skiptoken={start + PAGE_SIZE}"
        more = start + PAGE_SIZE < len(versions)
        return {"value": listed, "nextLink": f"https://{request.host}{request.path}?{rest}" if more else None}

    def _allow(self, operation: str) -> None:
        if self.denied & {operation, "*"}:
            message = "Caller is not authorized to perform action on resource.\r\nCaller: appid=x;oid=y"
            raise ApiError(403, "Forbidden", message, "ForbiddenByRbac")

    def _live(self, name: str) -> Key:
        with self._lock:
            key = self._keys.get(name.lower())
        if key is None or key.deleted:
            raise _not_found(name)
        return key

    def _version(self, name: str, version: str = "") -> Version:
        key = self._live(name)
        if not version:
            return key.versions[-1]
        if not re.fullmatch(r"[0-9a-fA-F]{32}", version):
            raise ApiError(400, "BadParameter", "The key version is invalid.")
        for each in key.versions:
            if each.id == version.lower():
                return each
        raise _not_found(f"{name}/{version}")

    def _operate(self, request: Request, name: str, version: Version, operation: str) -> dict[str, Any]:
        if not version.enabled and operation in PRIVATE:
            raise ApiError(403, "Forbidden", f"Operation {operation} is not allowed on a disabled key.", "KeyDisabled")
        if operation in PROTECTING:
            self._require_in_time(version, operation)
        if operation not in version.key_ops:
            message = f"Operation {operation} is not permitted on this key."
            raise ApiError(403, "Forbidden", message, "KeyOperationForbidden")
        compute = getattr(version.material, COMPUTED_AS.get(operation, operation), None)
        if compute is None:
            raise ApiError(400, "BadParameter", "Key and algorithm are incompatible.")
        try:
            answer: dict[str, Any] = compute(request.json())
        except RefusedError as refused:
            raise ApiError(400, "BadParameter", str(refused)) from None
        kid = f"https://{request.host}/keys/{self._live(name).name}/{version.id}"
        return answer if operation == "verify" else {"kid": kid, **answer}

    def _require_in_time(self, version: Version, operation: str) -> None:
        now = self._now()
        if version.nbf is not None and now < version.nbf:
            message = f"Operation {operation} is not allowed on a key that is not yet valid."
            raise ApiError(403, "Forbidden", message, "KeyNotYetValid")
        if version.exp is not None and now >= version.exp:
            raise ApiError(403, "Forbidden", f"Operation {operation} is not allowed on an expired key.", "KeyExpired")

    def _create(self, request: Request, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        attributes = body.get("attributes") or {}
        version = self.create_key(
            name,
            str(body.get("kty")),
            size=body.get("key_size"),
            curve=body.get("crv"),
            key_ops=body.get("key_ops"),
            nbf=attributes.get("nbf"),
            exp=attributes.get("exp"),
        )
        version.enabled = attributes.get("enabled", True)
        return self._bundle(request, self._live(name), version)

    def _rotate(self, request: Request, name: str) -> dict[str, Any]:
        key = self._live(name)
        last = key.versions[-1]
        version = self.create_key(key.name, key.kty, size=key.size, curve=key.curve, key_ops=last.key_ops)
        return self._bundle(request, key, version)

    def _policy(self, request: Request, name: str, given: dict[str, Any] | None) -> dict[str, Any]:
        key = self._live(name)
        if given is not None:
            key.policy = given
        return {"id": f"https://{request.host}/keys/{key.name}/rotationpolicy", **key.policy}

    def _update(self, request: Request, name: str, version: Version, body: Mapping[str, Any]) -> dict[str, Any]:
        attributes = body.get("attributes") or {}
        version.enabled = attributes.get("enabled", version.enabled)
        version.nbf, version.exp = attributes.get("nbf", version.nbf), attributes.get("exp", version.exp)
        version.key_ops = tuple(body.get("key_ops") or version.key_ops)
        return self._bundle(request, self._live(name), version)

    def _deleted(self, request: Request, name: str) -> dict[str, Any]:
        with self._lock:
            key = self._keys.get(name.lower())
        if key is None or not key.deleted:
            raise _not_found(name)
        now = int(self._now())
        recovery = f"https://{request.host}/deletedkeys/{key.name}"
        dates = {"deletedDate": now, "scheduledPurgeDate": now + 90 * 86400, "recoveryId": recovery}
        return {**self._bundle(request, key, key.versions[-1]), **dates}

    def _bundle(self, request: Request, key: Key, version: Version) -> dict[str, Any]:
        kid = f"https://{request.host}/keys/{key.name}/{version.id}"
        attributes = {
            "enabled": version.enabled,
            "created": version.created,
            "updated": version.created,
            "recoveryLevel": "Recoverable+Purgeable",
            "recoverableDays": 90,
            "exportable": False,
        }
        times = {"nbf": version.nbf, "exp": version.exp}
        jwk = {"kid": kid, "kty": key.kty, "key_ops": list(version.key_ops), **version.material.jwk()}
        return {"key": jwk, "attributes": {**attributes, **{n: v for n, v in times.items() if v is not None}}}


def _not_found(what: str) -> ApiError:
    message = f"A key with (name/id) {what} was not found in this key vault. If you recently deleted this key you may "
    return ApiError(404, "KeyNotFound", message + "be able to recover it using the correct recovery command.")
