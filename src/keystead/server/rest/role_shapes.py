"""What is sent and told of roles."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime
from typing import Annotated, Any, Final, TypeVar

from pydantic import BeforeValidator, Field, StrictBool, StrictInt, StrictStr

from keystead.access.role_rules import (
    LEEWAY_S,
    LONGEST_S,
    MAX_NAMED,
    MOST_USES,
    AppRoleRules,
    AuditMode,
    JwtRules,
    TokenRules,
    rules_of,
)
from keystead.ports import RoleRecord, SecretIdRecord
from keystead.server.rest.scopes import Scopes
from keystead.server.rest.shapes import SHORT_ID, Given, Subject, Told, whole

R = TypeVar("R", bound=TokenRules)
NAME: Final = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
_Seconds = Annotated[int, Field(ge=1, le=LONGEST_S), BeforeValidator(whole)]
_Uses = Annotated[int, Field(ge=1, le=MOST_USES), BeforeValidator(whole)]
_Value = StrictStr | StrictBool | StrictInt


class _Role(Given):
    name: str = Field(pattern=NAME, description="Its name among roles of its kind and tenant.", examples=["orders"])
    scopes: Scopes = Field(description="What its tokens may do.")
    tenant: Subject | None = Field(
        default=None,
        description="Whose role it is; a caller of a tenant names no other.",
    )
    token_ttl_seconds: _Seconds = Field(description="How long a token is good.", examples=[3600])
    token_max_ttl_seconds: _Seconds | None = Field(
        default=None, description="How far renewals may reach, from a token's making; else none is renewed."
    )
    token_uses: _Uses | None = Field(default=None, description="How often a token can be shown; else any number.")
    audit: AuditMode = Field(
        default=AuditMode.COUNTED, description="Whether each operation on a key is an audit entry, or many are counted."
    )


class NewAppRole(_Role):
    """An AppRole to make."""

    secret_id_ttl_seconds: _Seconds = Field(description="How long a secret id is good.", examples=[7_776_000])
    secret_id_uses: _Uses = Field(description="For how many logins a secret id is good.", examples=[1000])

    def rules(self) -> AppRoleRules:
        """Return its rules."""
        return AppRoleRules(
            **_of_tokens(self), secret_id_ttl_s=self.secret_id_ttl_seconds, secret_id_uses=self.secret_id_uses
        )


class NewJwtRole(_Role):
    """A role that JWTs show, to make."""

    audiences: list[StrictStr] = Field(
        min_length=1, max_length=MAX_NAMED, description="One of which a JWT names as `aud`.", examples=[["keystead"]]
    )
    issuer: StrictStr | None = Field(
        default=None,
        description="What a JWT names as `iss`; its keys are read there.",
        examples=["https://idp.example"],
    )
    jwks_uri: StrictStr | None = Field(default=None, description="Where the keys are, instead of asking its discovery.")
    public_keys: list[StrictStr] = Field(
        default=[], max_length=MAX_NAMED, description="Public keys in PEM, in place of keys that are read."
    )
    bound_subject: StrictStr | None = Field(default=None, description="What `sub` has to be.")
    bound_claims: dict[str, _Value | list[_Value]] = Field(
        default={},
        description="What claims have to be: a value, or one of a list. A name with `/` in front is a JSON pointer.",
        examples=[{"environment": ["production"]}],
    )
    user_claim: StrictStr = Field(default="sub", description="The claim that names who logs in.")
    leeway_seconds: Annotated[int, BeforeValidator(whole)] = Field(
        default=LEEWAY_S, ge=0, le=300, description="By how much the issuer's clock may be off."
    )

    def rules(self) -> JwtRules:
        """Return its rules."""
        return JwtRules(
            **_of_tokens(self),
            audiences=tuple(self.audiences),
            issuer=self.issuer,
            jwks_uri=self.jwks_uri,
            public_keys=tuple(self.public_keys),
            bound_subject=self.bound_subject,
            bound_claims={
                name: tuple(values) if isinstance(values, list) else (values,)
                for name, values in self.bound_claims.items()
            },
            user_claim=self.user_claim,
            leeway_s=self.leeway_seconds,
        )


class _ToldRole(Told):
    name: str
    tenant: str = Field(description="Empty for the default one.")
    scopes: list[str]
    token_ttl_seconds: int
    token_max_ttl_seconds: int | None
    token_uses: int | None
    audit: AuditMode
    created_at: datetime


class AppRole(_ToldRole):
    """An AppRole."""

    role_id: str = Field(description="What programs name at the login, beside a secret id.")
    secret_id_ttl_seconds: int
    secret_id_uses: int

    @classmethod
    def of(cls, row: RoleRecord) -> AppRole:
        """Return what is told of a role."""
        return cls(role_id=row.id, **_told(row, AppRoleRules))


class JwtRole(_ToldRole):
    """A role that JWTs show."""

    audiences: list[str]
    issuer: str | None
    jwks_uri: str | None
    public_keys: list[str]
    bound_subject: str | None
    bound_claims: dict[str, list[str | bool | int]]
    user_claim: str
    leeway_seconds: int

    @classmethod
    def of(cls, row: RoleRecord) -> JwtRole:
        """Return what is told of a role."""
        return cls(**_told(row, JwtRules))


class DeletedRole(Told):
    """What went with a role."""

    revoked_tokens: int = Field(description="Tokens that were got by it, and were good until now.")


class SecretId(Told):
    """A secret id of an AppRole, without its secret."""

    id: str = Field(pattern=SHORT_ID, examples=["0123456789abcdef"])
    created_at: datetime
    expires_at: datetime
    uses: int = Field(description="For how many logins it is good.")
    used: int = Field(description="For how many it was used.")


class ShownSecretId(SecretId):
    """A secret id, as it is shown this once."""

    secret_id: str = Field(description="What a program sends at the login; it cannot be had again.")

    @classmethod
    def of(cls, row: SecretIdRecord, text: str) -> ShownSecretId:
        """Return what is told of a new one."""
        return cls(**SecretId.model_validate(row).model_dump(), secret_id=text)


def _of_tokens(given: _Role) -> dict[str, Any]:
    return {
        "token_ttl_s": given.token_ttl_seconds,
        "token_max_ttl_s": given.token_max_ttl_seconds,
        "token_uses": given.token_uses,
        "audit": given.audit,
    }


def _told(row: RoleRecord, kind: type[R]) -> dict[str, Any]:
    """Return the row's members and the rules', seconds by the names that the administration has for them."""
    rules = rules_of(row, kind)
    told = {each.name: getattr(rules, each.name) for each in fields(rules)}
    spelled = {name.removesuffix("_s") + "_seconds" if name.endswith("_s") else name: told[name] for name in told}
    return spelled | {
        "name": row.name,
        "tenant": row.tenant,
        "scopes": row.scopes.split(" "),
        "created_at": datetime.fromisoformat(row.created_at),
    }
