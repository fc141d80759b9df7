"""``manage.py keystead_rotate``: another data key for what is written from now on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keystead.integrations.django.binding import current, declared_fields


class Command(BaseCommand):
    """See ``KeyringHandle.rotate`` and ``KeyManager.rotate_index_key``."""

    help = (
        "Give the keyrings of encrypted fields another data key. Rows that are there stay readable, and are brought "
        "after it by keystead_reencrypt."
    )

    def add_arguments(self, parser: Any) -> None:
        """Take names of keyrings."""
        parser.add_argument("keyrings", nargs="*", metavar="KEYRING", help="All that the fields name, without.")
        parser.add_argument("--index", action="store_true", help="Rotate keyrings of index keys instead.")
        parser.add_argument("--promote", choices=("auto", "now"), default="auto", help="When the new version writes.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Rotate each."""
        km, specs = current().km, [field.spec for field in declared_fields()]
        if options["index"]:
            known = {spec.index_keyring for spec in specs if spec.indexes}
        else:
            known = {spec.keyring for spec in specs if not (spec.has_keyring_per_tenant or spec.has_subjects)}
        names = options["keyrings"] or sorted(known)
        if not names:
            raise CommandError("no encrypted field names such a keyring; name the keyrings of tenants one by one")
        for name in names:
            if options["index"]:
                made = km.rotate_index_key(name)
            else:
                made = km.keyring(name, create=False).rotate(promote=options["promote"])
            self.stdout.write(f"{name}: version {made.version} is {made.state}")
