"""Writing and reading Parquet files whose columns are under keyrings."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

from keystead import blocking
from keystead.errors import ConfigurationError, InvalidInputError
from keystead.parquet.client import KmsClient, identifier_of, require_blocking
from keystead.parquet.columns import Rules, leaves_of
from keystead.runtime.files import replace_file

FilePath: TypeAlias = str | os.PathLike[str]

CACHE: Final = timedelta(minutes=10)
_KEY_BITS: Final = 256


class ParquetKeys:
    """Which columns of files are under which keyring, and reading and writing them so. Keyrings are made at first use.

    Args:
        km: an initialised ``keystead.blocking.KeyManager``.
        footer: the keyring of the footer, which tells the schema and statistics, and of every column that is named
            neither in ``columns`` nor in ``plain``. ``kms:<id>`` in its place, or in that of any other, is a key of the
            KMS itself, which is called for each file.
        columns: keyrings, and the names or patterns of the columns that are under each; see ``Rules``.
        plain: names or patterns of columns that are not encrypted.
        plaintext_footer: leave the schema to whoever has no keys; the footer is signed.
        in_file: keep the wrapped keys in the file itself, where nothing rotates them. Otherwise they are in a small
            file beside it, which ``rotate_master_keys`` replaces.
        cache: how long pyarrow remembers keys that it had unwrapped, whatever becomes of their keyring.

    Raises:
        InvalidInputError: a manager that may not block.
    """

    def __init__(
        self,
        km: blocking.KeyManager,
        *,
        footer: str = "parquet",
        columns: Mapping[str, str | Iterable[str]] | None = None,
        plain: str | Iterable[str] = (),
        plaintext_footer: bool = False,
        in_file: bool = False,
        cache: timedelta = CACHE,
    ) -> None:
        require_blocking(km)
        self._footer = footer
        self._rules = Rules(footer, columns or {}, plain)
        self._has_plaintext_footer = plaintext_footer
        self._is_in_file = in_file
        self._cache = cache
        self._factory = pe.CryptoFactory(lambda _: KmsClient(km))
        self._connection = pe.KmsConnectionConfig()

    def encryption(self, schema: pa.Schema) -> pe.EncryptionConfiguration:
        """Return pyarrow's configuration for files of a schema.

        Raises:
            ConfigurationError: a rule that names no column, a column that two name, or nothing to encrypt.
        """
        found = self._rules.keyrings(leaves_of(schema))
        return pe.EncryptionConfiguration(
            footer_key=identifier_of(self._footer),
            column_keys={identifier_of(name): columns for name, columns in found.items()},
            plaintext_footer=self._has_plaintext_footer,
            internal_key_material=self._is_in_file,
            cache_lifetime=self._cache,
            data_key_length_bits=_KEY_BITS,
        )

    def write_table(self, table: pa.Table, path: FilePath, **options: Any) -> None:
        """Write a file; ``options`` are those of ``pyarrow.parquet.write_table``. Errors as ``encryption``."""
        pq.write_table(table, path, encryption_properties=self._sealing(table.schema, path), **options)

    def writer(self, sink: Any, schema: pa.Schema, *, path: FilePath, **options: Any) -> pq.ParquetWriter:
        """Return a writer of a file, for what is no table in memory. Errors as ``encryption``.

        Args:
            sink: a path or an open file, as ``pyarrow.parquet.ParquetWriter`` takes it; so are ``options``.
            path: where the file is to be, beside which its keys are written unless they are in it.
        """
        return pq.ParquetWriter(sink, schema, encryption_properties=self._sealing(schema, path), **options)

    def open(self, path: FilePath) -> pq.ParquetFile:
        """Open a file, to read parts of it; a block ends with it.

        Raises:
            KMSError: a keyring of it that is not there, or may not be used.
        """
        properties = self._factory.file_decryption_properties(
            self._connection, self._decryption(), parquet_file_path=os.fspath(path)
        )
        return pq.ParquetFile(path, decryption_properties=properties)

    def read_table(self, path: FilePath, **options: Any) -> pa.Table:
        """Read a file; ``options`` are those of ``pyarrow.parquet.ParquetFile.read``. Errors as ``open``."""
        with self.open(path) as file:
            return file.read(**options)

    def dataset(self, source: FilePath | Sequence[FilePath], **options: Any) -> ds.Dataset:
        """Return a dataset that pyarrow, polars and DuckDB read; ``options`` are those of ``pyarrow.dataset.dataset``.

        Of files whose keys are in themselves: pyarrow tells no paths to what opens the files of a dataset.
        """
        return ds.dataset(source, format=self._format(), **options)

    def write_dataset(self, data: Any, folder: FilePath, **options: Any) -> None:
        """Write a dataset; ``options`` are those of ``pyarrow.dataset.write_dataset``.

        Args:
            data: a table, a reader of record batches, a dataset, or a scanner of one.

        Raises:
            ConfigurationError: as ``encryption``; or keys that are not to be kept in the files.
        """
        if not self._is_in_file:
            raise ConfigurationError("files of a dataset keep their keys in themselves: make ParquetKeys(in_file=True)")
        schema = data.projected_schema if isinstance(data, ds.Scanner) else data.schema
        encryption = ds.ParquetEncryptionConfig(self._factory, self._connection, self.encryption(schema))
        form = self._format()
        written = form.make_write_options(encryption_config=encryption)
        ds.write_dataset(data, os.fspath(folder), format=form, file_options=written, **options)

    def rotate_master_keys(self, path: FilePath) -> int:
        """Wrap the keys of a file, or of each below a folder, under the active versions of their keyrings.

        The files stay as they are; what is replaced are the small ones beside them. Return how many files that was.

        Raises:
            InvalidInputError: no file is there, or one has no keys beside it. Nothing was changed.
            KMSError: as ``open``.
        """
        files = sorted(Path(path).rglob("*.parquet")) if Path(path).is_dir() else [Path(path)]
        bare = [file for file in files if not material_of(file).exists()]
        if not files:
            raise InvalidInputError(f"there is no Parquet file below {path}")
        if bare:
            raise InvalidInputError(
                f"{bare[0]} has no keys beside it: it is not there, not encrypted, or keeps them in itself, and is "
                "rotated by writing it anew"
            )
        for file in files:
            replace_file(material_of(file), self.rotated_material(file))
        return len(files)

    def rotated_material(self, file: Path) -> bytes:
        """Return what is to be the small file beside ``file``: its keys, wrapped under the active versions.

        pyarrow removes that file before it names the new one, and a crash in between leaves nothing that opens the
        data: so it is let do so to a copy.
        """
        with tempfile.TemporaryDirectory(prefix="keystead-") as folder:
            copy = Path(folder, file.name)
            shutil.copyfile(material_of(file), material_of(copy))
            self._factory.rotate_master_keys(self._connection, os.fspath(copy))
            return material_of(copy).read_bytes()

    def _sealing(self, schema: pa.Schema, path: FilePath) -> Any:
        configuration = self.encryption(schema)
        return self._factory.file_encryption_properties(
            self._connection, configuration, parquet_file_path=os.fspath(path)
        )

    def _format(self) -> ds.ParquetFileFormat:
        config = ds.ParquetDecryptionConfig(self._factory, self._connection, self._decryption())
        options = ds.ParquetFragmentScanOptions(decryption_config=config)
        return ds.ParquetFileFormat(default_fragment_scan_options=options)

    def _decryption(self) -> pe.DecryptionConfiguration:
        return pe.DecryptionConfiguration(cache_lifetime=self._cache)


def material_of(file: Path) -> Path:
    """Return where pyarrow keeps the wrapped keys of a file."""
    return file.with_name(f"_KEY_MATERIAL_FOR_{file.name}.json")
