"""An application that keeps its secrets with hvac, the client of Vault for Python: ``python tour.py``."""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Callable
from typing import Any

import hvac
from hvac.exceptions import Forbidden, InvalidRequest, VaultError

PREFIX = os.environ.get("KEY_PREFIX", "tour")
DATA_KEY = f"{PREFIX}-data"
SIGNING_KEY = f"{PREFIX}-signing"
FOREIGN_KEY = "somebody-elses"


def main() -> None:
    """Go through what an application does with Transit, and stop at the first thing that is not as it should be."""
    client = hvac.Client(url=os.environ["VAULT_ADDR"])
    client.auth.approle.login(role_id=os.environ["VAULT_ROLE_ID"], secret_id=os.environ["VAULT_SECRET_ID"])
    expect(client.is_authenticated(), "the token of the login is good")
    done("log in")

    transit = client.secrets.transit
    transit.create_key(name=DATA_KEY)
    transit.create_key(name=SIGNING_KEY, key_type="ed25519")
    expect(transit.read_key(name=DATA_KEY)["data"]["type"] == "aes256-gcm96", "the key is an AES key")
    done("create keys")

    secret = encoded("4111 1111 1111 1111")
    ciphertext = transit.encrypt_data(name=DATA_KEY, plaintext=secret)["data"]["ciphertext"]
    expect(ciphertext.startswith("vault:v1:"), "the ciphertext names version 1 of the key")
    expect(decrypted(transit, ciphertext) == secret, "it decrypts")
    done("encrypt and decrypt")

    bind_to_a_row(transit, secret)
    encrypt_many(transit)
    make_a_data_key(transit)
    vouch_for_messages(transit)
    move_to_a_new_version(transit, secret, ciphertext)

    broken = ciphertext[:-8] + "AAAAAAA="
    refused(InvalidRequest, "a broken ciphertext", lambda: decrypted(transit, broken))
    refused(Forbidden, "another's key", lambda: transit.encrypt_data(name=FOREIGN_KEY, plaintext=secret))
    done("refusals")

    client.auth.token.revoke_self()
    refused(Forbidden, "a token that was revoked", lambda: transit.read_key(name=DATA_KEY))
    done("log out")


def bind_to_a_row(transit: Any, secret: str) -> None:
    """Encrypt so that the ciphertext is worth nothing in another row."""
    row, another = encoded("customers/7"), encoded("customers/8")
    bound = transit.encrypt_data(name=DATA_KEY, plaintext=secret, associated_data=row)["data"]["ciphertext"]
    expect(decrypted(transit, bound, associated_data=row) == secret, "what is bound to a row decrypts with the row")
    refused(InvalidRequest, "another row's", lambda: decrypted(transit, bound, associated_data=another))
    done("associated data")


def encrypt_many(transit: Any) -> None:
    """Encrypt and decrypt several values in one request each."""
    texts = [encoded(f"number {number}") for number in range(3)]
    answer = transit.encrypt_data(name=DATA_KEY, batch_input=[{"plaintext": text} for text in texts])
    sealed = [{"ciphertext": each["ciphertext"]} for each in answer["data"]["batch_results"]]
    opened = transit.decrypt_data(name=DATA_KEY, ciphertext="", batch_input=sealed)["data"]["batch_results"]
    expect([each["plaintext"] for each in opened] == texts, "a batch decrypts in its order")
    done("batch")


def make_a_data_key(transit: Any) -> None:
    """Have a key made for use here, and its wrapped form for keeping."""
    pair = transit.generate_data_key(name=DATA_KEY, key_type="plaintext")["data"]
    expect(len(base64.b64decode(pair["plaintext"])) == 32, "a data key has 32 bytes")
    expect(decrypted(transit, pair["ciphertext"]) == pair["plaintext"], "the wrapped data key is the data key")
    done("data key")


def vouch_for_messages(transit: Any) -> None:
    """Make an HMAC and a signature, and verify both."""
    message, other = encoded("pay 10 to Ada"), encoded("pay 99 to Ada")
    code = {"hmac": transit.generate_hmac(name=DATA_KEY, hash_input=message)["data"]["hmac"]}
    expect(valid(transit, DATA_KEY, message, code), "an HMAC is of its message")
    expect(not valid(transit, DATA_KEY, other, code), "an HMAC is of no other message")
    done("hmac")

    signature = {"signature": transit.sign_data(name=SIGNING_KEY, hash_input=message)["data"]["signature"]}
    expect(valid(transit, SIGNING_KEY, message, signature), "a signature is of its message")
    expect(not valid(transit, SIGNING_KEY, other, signature), "a signature is of no other message")
    done("sign and verify")


def move_to_a_new_version(transit: Any, secret: str, ciphertext: str) -> None:
    """Rotate the key, and bring a ciphertext to the new version without seeing what is in it."""
    transit.rotate_key(name=DATA_KEY)
    rewrapped = transit.rewrap_data(name=DATA_KEY, ciphertext=ciphertext)["data"]["ciphertext"]
    expect(rewrapped.startswith("vault:v2:"), "a rewrapped ciphertext names version 2 of the key")
    for each in (ciphertext, rewrapped):
        expect(decrypted(transit, each) == secret, "both decrypt")
    done("rotate and rewrap")


def decrypted(transit: Any, ciphertext: str, **more: str) -> str:
    """Return the plaintext of a ciphertext, in base64."""
    return str(transit.decrypt_data(name=DATA_KEY, ciphertext=ciphertext, **more)["data"]["plaintext"])


def valid(transit: Any, key: str, message: str, given: dict[str, str]) -> bool:
    """Return whether an HMAC or a signature is of a message."""
    return bool(transit.verify_signed_data(name=key, hash_input=message, **given)["data"]["valid"])


def encoded(text: str) -> str:
    """Return a text as Transit takes it."""
    return base64.b64encode(text.encode()).decode()


def expect(is_so: bool, what: str) -> None:
    """Stop unless it is so."""
    if not is_so:
        sys.exit(f"not so: {what}")


def refused(error: type[VaultError], what: str, call: Callable[[], object]) -> None:
    """Stop unless the call is refused with this error."""
    try:
        call()
    except error:
        return
    sys.exit(f"not refused: {what}")


def done(step: str) -> None:
    """Tell that a step went well."""
    print(f"ok: {step}")


if __name__ == "__main__":
    try:
        main()
    except VaultError as error:
        sys.exit(f"the server refused: {error}")
