"""One file of a dataset: told apart, read a row group at a time, and written anew under other keys."""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from keystead.errors import InvalidInputError
from keystead.parquet.keys import ParquetKeys

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

GROUP_BYTES: Final = 256 * 1024 * 1024
"""A larger row group, as it is encoded, is written as several."""
GROUP_ROWS: Final = 1024 * 1024
_ENCRYPTED_END: Final = b"PARE"
_PLAIN_END: Final = b"PAR1"
_SIGNATURE_BYTES: Final = 28
"""A nonce and a tag, which a footer that is signed and readable has behind it (Parquet modular encryption, 5.5)."""
_CHUNK: Final = 1024 * 1024


def is_encrypted(path: Path) -> bool:
    """Return whether a file is under keys: its footer, or some of its columns.

    pyarrow reads a plain file with keys at hand as if it had been encrypted, and what is asked of the metadata of an
    encrypted column without them ends the process. So the end of the file is looked at before either.

    Raises:
        InvalidInputError: it is no Parquet file.
    """
    with path.open("rb") as file:
        end = file.seek(0, io.SEEK_END)
        file.seek(max(0, end - 8))
        tail = file.read(8)
    if tail[4:] == _ENCRYPTED_END:
        return True
    if tail[4:] != _PLAIN_END:
        raise InvalidInputError(f"{path.name} is no Parquet file, or not a whole one")
    try:
        opened = pq.ParquetFile(path)
    except (OSError, pa.ArrowException):
        raise InvalidInputError(f"{path.name} is no Parquet file, or not a whole one") from None
    with opened:
        behind = int.from_bytes(tail[:4], "little") - opened.metadata.serialized_size
        if behind != _SIGNATURE_BYTES or not opened.num_row_groups:
            return bool(behind == _SIGNATURE_BYTES)
        try:
            opened.read_row_group(0, use_threads=False)
        except (OSError, pa.ArrowException):
            return True
    return False


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def groups(file: pq.ParquetFile, numbers: Iterable[int] | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of a file, or some of them, one at a time, larger ones in parts."""
    for number in range(file.num_row_groups) if numbers is None else numbers:
        group = file.metadata.row_group(number)
        parts = max(1, math.ceil(group.total_byte_size / GROUP_BYTES), math.ceil(group.num_rows / GROUP_ROWS))
        if parts == 1:
            yield file.read_row_group(number)
            continue
        rows = math.ceil(group.num_rows / parts)
        for batch in file.iter_batches(rows, row_groups=[number]):
            yield pa.Table.from_batches([batch], file.schema_arrow)


def write_anew(file: pq.ParquetFile, keys: ParquetKeys, path: Path) -> tuple[int, str]:
    """Write the rows of an open file to a new one under ``keys``, and return how many there are, and its SHA-256.

    The new file is on disk when this returns. Row groups, codecs, the schema with its metadata, sorting and page
    indexes are as they were; Bloom filters are not written.

    Raises:
        ConfigurationError: rules that do not fit the columns.
        OSError: as of the disk. What was written is left for whoever made the folder.
    """
    rows, sha256 = _write(file, groups(file), keys, path)
    _require_rows(file, rows)
    return rows, sha256


def sample_anew(file: pq.ParquetFile, keys: ParquetKeys, path: Path | None, limit: int) -> int:
    """Do a part of a file, of at most ``limit`` encoded bytes or one row group; without a path it is only read."""
    numbers: list[int] = []
    size = 0
    for number in range(file.num_row_groups):
        size += file.metadata.row_group(number).total_byte_size
        if numbers and size > limit:
            break
        numbers.append(number)
    if path is None:
        return sum(int(group.num_rows) for group in groups(file, numbers))
    rows, _ = _write(file, groups(file, numbers), keys, path)
    return rows


def read_all(file: pq.ParquetFile) -> int:
    """Decrypt everything of an open file, and return how many rows it has."""
    rows = sum(int(group.num_rows) for group in groups(file))
    _require_rows(file, rows)
    return rows


def _write(file: pq.ParquetFile, tables: Iterable[pa.Table], keys: ParquetKeys, path: Path) -> tuple[int, str]:
    rows = 0
    with path.open("xb") as opened:
        sink = _Hashed(opened)
        with keys.writer(sink, file.schema_arrow, path=path, **_options_of(file)) as writer:
            for group in tables:
                writer.write_table(group, row_group_size=max(1, group.num_rows))
                rows += group.num_rows
        opened.flush()
        os.fsync(opened.fileno())
    return rows, sink.digest.hexdigest()


def _require_rows(file: pq.ParquetFile, rows: int) -> None:
    if rows != file.metadata.num_rows:
        raise InvalidInputError(f"the footer tells of {file.metadata.num_rows} rows, and there are {rows}")


def _options_of(file: pq.ParquetFile) -> dict[str, Any]:
    """Return how a file was written, as far as it tells."""
    if not file.num_row_groups:
        return {}
    group = file.metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    codecs = {each.path_in_schema: each.compression for each in columns}
    options: dict[str, Any] = {
        "compression": {path: "NONE" if codec == "UNCOMPRESSED" else codec for path, codec in codecs.items()},
        "write_page_index": any(each.has_offset_index for each in columns),
    }
    if group.sorting_columns:
        options["sorting_columns"] = group.sorting_columns
    return options


class _Hashed(io.RawIOBase):
    """Passes on what is written, and hashes it."""

    def __init__(self, file: BinaryIO) -> None:
        self.digest = hashlib.sha256()
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()
