"""Make the people of ``keystead demo``: invented by Faker from a fixed seed, so that nobody's data is in them.

The repository carries the result. To make it again: ``pip install --group data`` and run this script.
"""

from __future__ import annotations

import csv
import gzip
import io
from datetime import date
from pathlib import Path

from faker import Faker

SEED = 20_300_101
COUNT = 10_000
TARGET = Path(__file__).resolve().parent.parent / "src" / "keystead" / "cli" / "data" / "people.csv.gz"
COLUMNS = ("id", "name", "email", "phone", "street", "city", "country", "birth_date", "national_id", "note")


def people(count: int) -> list[dict[str, str]]:
    """Return ``count`` invented people; the same ones every time."""
    fake = Faker("en_US")
    fake.seed_instance(SEED)
    rows = []
    for number in range(1, count + 1):
        name = fake.name()
        user = "".join(c for c in name.lower() if c.isalpha())
        rows.append(
            {
                "id": str(number),
                "name": name,
                "email": f"{user}{number}@{fake.safe_domain_name()}",
                "phone": fake.numerify("+1-555-01##"),
                "street": fake.street_address(),
                "city": fake.city(),
                "country": fake.country_code(),
                "birth_date": fake.date_between_dates(date(1935, 1, 1), date(2009, 12, 31)).isoformat(),
                "national_id": fake.invalid_ssn(),
                "note": fake.sentence(nb_words=6) if number % 3 == 0 else "",
            }
        )
    return rows


def main() -> None:
    """Write the file; its bytes depend on nothing but Faker's release and this script."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(people(COUNT))
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(gzip.compress(text.getvalue().encode("utf-8"), mtime=0))
    print(f"{COUNT} people, {len(text.getvalue()):,} bytes, {TARGET.stat().st_size:,} compressed")


if __name__ == "__main__":
    main()
