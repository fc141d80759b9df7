"""SDKs that are missing, and SDKs that are broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from keystead.errors import MissingDependencyError
from keystead.providers.sdk import Sdk

ABSENT = Sdk("AWS KMS", "boto3", "no_such_sdk", "aws")


def test_what_is_missing_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ImportError) as caught:
        ABSENT.require()
    assert str(caught.value) == "AWS KMS support requires boto3. Install with: pip install keystead[aws]"
    with pytest.raises(MissingDependencyError):
        ABSENT.load()


def test_a_module_below_one_that_is_missing_is_missing_too() -> None:
    with pytest.raises(MissingDependencyError):
        Sdk("AWS KMS", "boto3", "no_such_sdk.kms.client", "aws").require()


def test_asking_for_an_sdk_does_not_load_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quiet_sdk.py").write_text("raise SystemExit('loaded')\n")
    monkeypatch.syspath_prepend(tmp_path)
    Sdk("Some KMS", "quiet-sdk", "quiet_sdk", "some").require()
    assert "quiet_sdk" not in sys.modules


def test_an_sdk_that_lacks_a_part_of_its_own_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_sdk.py").write_text("import part_of_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="part_of_it") as caught:
        Sdk("Some KMS", "broken-sdk", "broken_sdk", "some").load()
    assert not isinstance(caught.value, MissingDependencyError)
