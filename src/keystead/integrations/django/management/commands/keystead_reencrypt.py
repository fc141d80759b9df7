"""``manage.py keystead_reencrypt``: rows of live tables, brought to the keys of now."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from keystead import fields
from keystead.blocking import plan, reencrypt
from keystead.fields import ReencryptProgress
from keystead.integrations.django.binding import current
from keystead.integrations.django.field import EncryptedField
from keystead.integrations.django.management.fields import add_labels, chosen, database_of


class Command(BaseCommand):
    """See ``keystead.fields.reencrypt``."""

    help = (
        "Bring every row of encrypted fields to the active data key and the live index keys, while the application "
        "goes on using it. After a crash the same command goes on where it stopped; several at once share the work."
    )

    def add_arguments(self, parser: Any) -> None:
        """Take the options of ``keystead reencrypt``."""
        add_labels(parser)
        parser.add_argument("--batch-rows", type=int, default=fields.BATCH_ROWS, help="Rows read and written at once.")
        parser.add_argument("--workers", type=int, default=1, help="Threads.")
        parser.add_argument("--rate", type=float, metavar="ROWS", help="At most so many rows a second.")
        parser.add_argument("--again", action="store_true", help="Begin anew instead of going on where a job stopped.")
        parser.add_argument("--dry-run", action="store_true", help="Read and decrypt everything, and write nothing.")
        parser.add_argument("--plan", action="store_true", help="Count the rows and estimate the time; write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it for one field after the other."""
        left = [field for field in chosen(options["fields"]) if not self._one(field, options)]
        if left:
            raise CommandError(f"rows had to be left as they are, of {', '.join(map(str, left))}")

    def _one(self, field: EncryptedField, options: dict[str, Any]) -> bool:
        km, url = current().km, database_of(field, options["database"])
        plaintext = None if field.window is None else field.window.column
        if options["plan"]:
            found = plan(km, url, field.spec, plaintext_column=plaintext)
            self.stdout.write(f"{field}: {found.rows} rows, about {found.seconds:.0f} s")
            for each in found.versions:
                self.stdout.write(f"  {each.rows} under {each.keyring or 'an unknown keyring'} version {each.version}")
            self.stdout.write(f"  {found.plaintext} in clear")
            return True

        def told(progress: ReencryptProgress) -> None:
            if options["verbosity"] > 1:
                self.stderr.write(f"{field}: {progress.read} of {progress.total} rows")

        report = reencrypt(
            km,
            url,
            field.spec,
            batch_rows=options["batch_rows"],
            workers=options["workers"],
            rows_per_s=options["rate"],
            dry_run=options["dry_run"],
            plaintext_column=plaintext,
            resume=not options["again"],
            on_progress=told,
        )
        counts = f"{report.rewritten} rewritten, {report.skipped} as they were, {report.failed} failed"
        self.stdout.write(f"{field}: {counts}")
        for failure in report.failures:
            self.stderr.write(f"left as it is: row {failure.key}: {failure.reason}")
        return report.is_complete
