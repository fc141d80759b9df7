"""The Django app: add ``"keystead.integrations.django"`` to INSTALLED_APPS."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig, apps
from django.core import checks

from keystead.integrations.django.attribute import encrypted_fields
from keystead.integrations.django.binding import declared_fields, is_bound


class KeysteadConfig(AppConfig):
    """Encrypted fields, their checks and commands."""

    name = "keystead.integrations.django"
    label = "keystead"
    verbose_name = "Keystead"

    def ready(self) -> None:
        """Register the checks. Keys are not loaded here: a migration needs none."""
        checks.register(check_bound, "keystead")
        checks.register(check_admin, "keystead")


def check_bound(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """Warn where encrypted fields have no keys, and where two have one id."""
    found: list[checks.CheckMessage] = []
    ids: dict[str, Any] = {}
    for field in declared_fields():
        if ids.setdefault(field.id or f"{field.model._meta.db_table}.{field.column}", field) is not field:
            found.append(
                checks.Error(
                    f"two encrypted fields have the id of {field}, so that each could stand for the other",
                    hint="give one of them another id=",
                    obj=field,
                    id="keystead.E006",
                )
            )
    if ids and not is_bound():
        found.append(
            checks.Warning(
                "there are encrypted fields, and the application has no keys for them",
                hint="set KEYSTEAD = {'config': 'keystead.yaml'}, or call keystead.integrations.django.bind(km)",
                id="keystead.W001",
            )
        )
    return found


def check_admin(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """Warn where the admin offers staff to sort by an encrypted field: a header that leads to an error."""
    if not apps.is_installed("django.contrib.admin"):
        return []
    from django.contrib.admin.sites import all_sites

    found: list[checks.CheckMessage] = []
    for model_admin in (each for site in all_sites for each in site._registry.values()):
        shown: Any = model_admin.list_display
        sortable = {*shown} if model_admin.sortable_by is None else {*shown} & {*model_admin.sortable_by}
        names = sorted(sortable & {field.name for field in encrypted_fields(model_admin.model)})
        if names:
            rest = tuple(each for each in shown if each not in names and isinstance(each, str))
            found.append(
                checks.Warning(
                    f"{type(model_admin).__name__} offers to sort by {', '.join(names)}, whose values are encrypted",
                    hint=f"say by what may be sorted: sortable_by = {rest!r}",
                    obj=model_admin.model,
                    id="keystead.W002",
                )
            )
    return found
