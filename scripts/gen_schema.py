"""Write ``docs/reference/schema.graphql`` from the service, as it is outside development."""

from __future__ import annotations

from pathlib import Path

from keystead.server.graphql.door import GraphQLDoor

TARGET = Path(__file__).resolve().parent.parent / "docs" / "reference" / "schema.graphql"


def main() -> None:
    """Write the file."""
    TARGET.write_text(GraphQLDoor(is_development=False).sdl + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
