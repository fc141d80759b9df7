from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from keystead.crypto import root_key
from keystead.crypto.root_key import RootKeyGenerator, argon2id_root_key
from keystead.errors import (
    ConfigurationError,
    InvalidIterationsError,
    InvalidKeyLengthError,
    InvalidSaltError,
    InvalidSeedError,
)
from keystead.model import SecretBytes
from tests.crypto.vectors import cases

SEED = "a test seed of more than sixteen bytes"
SALT = "a test salt of more than sixteen bytes"


def generator(**changes: Any) -> RootKeyGenerator:
    return RootKeyGenerator(**{"seed": SEED, "salt": SALT, "iterations": 10_000, **changes})


@pytest.mark.filterwarnings("ignore:(seed|salt) is:UserWarning")
@pytest.mark.parametrize("case", cases("root-key.json", "pbkdf2_hmac_sha256"))
def test_the_root_key_is_the_vector_files(case: dict[str, Any]) -> None:
    made = RootKeyGenerator(
        case["seed"], case["salt"], case["iterations"], case["key_length"], allow_known_defaults=True
    ).generate_root_key()

    assert made.hex() == case["root_key"]


@pytest.mark.parametrize("case", cases("root-key.json", "argon2id"))
def test_the_argon2id_root_key_is_the_vector_files(case: dict[str, Any]) -> None:
    made = argon2id_root_key(
        case["passphrase"],
        bytes.fromhex(case["salt"]),
        memory_kib=case["memory_kib"],
        iterations=case["iterations"],
        lanes=case["lanes"],
    )

    assert made.hex() == case["root_key"]
    assert isinstance(made, SecretBytes)


def test_a_root_key_does_not_show_itself() -> None:
    made = generator().generate_root_key()

    assert isinstance(made, SecretBytes)
    assert made.hex() not in repr(made)


def test_text_and_its_utf8_bytes_give_the_same_key() -> None:
    as_bytes = generator(seed=SEED.encode(), salt=bytearray(SALT.encode()))

    assert as_bytes.generate_root_key() == generator().generate_root_key()


def test_the_default_is_600_000_iterations_and_256_bits() -> None:
    made = RootKeyGenerator(SEED, SALT)

    assert (made.iterations, made.key_length, made.get_key_strength()) == (600_000, 32, "AES-256")


@pytest.mark.parametrize("seed", ["", b"", None, 5, "\ud800"])
def test_a_missing_seed_is_refused(seed: Any) -> None:
    with pytest.raises(InvalidSeedError, match="seed is missing"):
        generator(seed=seed).validate_config()


@pytest.mark.parametrize("salt", ["", b"", None])
def test_a_missing_salt_is_refused(salt: Any) -> None:
    with pytest.raises(InvalidSaltError, match="salt is missing"):
        generator(salt=salt).validate_config()


@pytest.mark.parametrize("iterations", [9_999, 0, -1, "10000", 10_000.0])
def test_too_few_iterations_are_refused(iterations: Any) -> None:
    with pytest.raises(InvalidIterationsError, match="10000"):
        generator(iterations=iterations).validate_config()


@pytest.mark.parametrize("key_length", [0, 8, 15, 20, 33, -1, 64])
def test_another_key_length_is_refused(key_length: int) -> None:
    with pytest.raises(InvalidKeyLengthError, match="16, 24 or 32"):
        generator(key_length=key_length).validate_config()


def test_what_is_wrong_is_told_in_the_documented_order() -> None:
    wrong: dict[str, Any] = {"seed": "", "salt": "", "iterations": 1, "key_length": 1}
    order = []
    for cure in (
        {"seed": SEED},
        {"salt": SALT},
        {"iterations": 10_000},
        {"key_length": 32},
    ):
        with pytest.raises(ConfigurationError) as caught:
            generator(**wrong).validate_config()
        order.append(type(caught.value))
        wrong.update(cure)

    generator(**wrong).validate_config()
    assert order == [InvalidSeedError, InvalidSaltError, InvalidIterationsError, InvalidKeyLengthError]


def test_generating_validates_first() -> None:
    with pytest.raises(InvalidSeedError):
        generator(seed="").generate_root_key()


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"seed": "default-seed-value"}, InvalidSeedError), ({"salt": b"default-salt-value"}, InvalidSaltError)],
)
def test_the_references_published_defaults_are_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="published default"):
        generator(**changes).validate_config()


def test_the_published_defaults_are_accepted_with_a_warning_when_asked_for() -> None:
    both = generator(seed="default-seed-value", salt="default-salt-value", allow_known_defaults=True, production=True)

    with pytest.warns(UserWarning, match="rotate at once") as seen:
        both.validate_config()
    assert len(seen) == 2
    assert seen[0].filename == __file__


@pytest.mark.parametrize("changes", [{"seed": "fifteen bytes.."}, {"salt": "fifteen bytes.."}])
def test_a_short_seed_or_salt_is_warned_of(changes: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="under 16 bytes"):
        generator(**changes).validate_config()


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"seed": "fifteen bytes.."}, InvalidSeedError), ({"salt": "fifteen bytes.."}, InvalidSaltError)],
)
def test_a_short_seed_or_salt_is_refused_in_production(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="production"):
        generator(**changes, production=True).validate_config()


def test_sixteen_bytes_are_enough() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator(seed=b"x" * 16, salt=b"y" * 16, production=True).validate_config()


@pytest.mark.parametrize(
    ("key_length", "strength"),
    [(16, "AES-128"), (24, "AES-192"), (32, "AES-256"), (0, "Unknown"), (64, "Unknown"), (-1, "Unknown")],
)
def test_the_strength_is_told_by_the_key_length(key_length: int, strength: str) -> None:
    assert generator(key_length=key_length).get_key_strength() == strength


def test_the_estimate_grows_with_the_iterations() -> None:
    estimates = [generator(iterations=n).estimate_generation_time() for n in (1, 100_000, 10_000_000)]

    assert estimates == sorted(estimates)
    assert estimates[0] == 1
    assert 20 * estimates[1] < estimates[2]


def test_the_estimate_is_made_of_this_machines_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_key, "_seconds_per_iteration", lambda: 2e-7)

    assert generator(iterations=600_000).estimate_generation_time() == 120


def test_no_work_takes_no_time() -> None:
    assert generator(iterations=0).estimate_generation_time() == 0


def test_seed_and_salt_are_not_shown() -> None:
    assert repr(generator()) == "RootKeyGenerator(iterations=10000, key_length=32)"


def test_a_generator_cannot_be_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(generator())


ARGON: dict[str, Any] = {"memory_kib": 19_456, "iterations": 2, "lanes": 1, "length": 32}


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: argon2id_root_key("", bytes(16), **ARGON), InvalidSeedError),
        (lambda: argon2id_root_key("a", bytes(15), **ARGON), InvalidSaltError),
        (lambda: argon2id_root_key("a", bytes(16), **{**ARGON, "iterations": 1}), InvalidIterationsError),
        (lambda: argon2id_root_key("a", bytes(16), **{**ARGON, "length": 20}), InvalidKeyLengthError),
        (lambda: argon2id_root_key("a", bytes(16), **{**ARGON, "memory_kib": 19_455}), ConfigurationError),
        (lambda: argon2id_root_key("a", bytes(16), **{**ARGON, "lanes": 0}), ConfigurationError),
        (lambda: argon2id_root_key("a", bytes(16), **{**ARGON, "lanes": 65}), ConfigurationError),
    ],
)
def test_argon2id_below_its_floors_is_refused(call: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_another_passphrase_gives_another_key() -> None:
    assert argon2id_root_key("a", bytes(16), **ARGON) != argon2id_root_key("b", bytes(16), **ARGON)
