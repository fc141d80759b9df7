"""Compute ``azure-wrap-v1.json``: RSA and ECDSA with every random value chosen. Imports nothing of ``src/keystead``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from struct import pack

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from scripts.gen_vectors_kms import Case, known_bytes

ContextEncoder = Callable[[list[list[str]]], bytes]

P = int(
    "c092c25d8f7cb76bdad0d8a8aa783e95a7f1e5546ef6a6fcd263171d41857e05cf0d3af3c44b6ee080e768a08d8a127d"
    "08a43ff929461827b6506b45d673ff80dff8c09567e94c22af1ad8c8853bf175f10f9ffb04e650d3688d12ee686bfd06"
    "08828c2bcec4a3c32d571d18f2c586fe08e46b4567acd8ae3e819037df12183f",
    16,
)
Q = int(
    "bd93863db3421c2ebf1df75df41056002d287c88eb76a15b487bafa86a5f6cd29d94b127ac3e056c86d1bf85b064fa06"
    "75e794f20d8cc4d4c43357292e17fd49d8ee9f87f8f4ce99f932871317f9e501135f3f98c756e9e2694e6dbc1e09ef17"
    "4c41e3356dea010aa2c2093222a540158b845a11addd0ba2dcc4940ac58921ed",
    16,
)
"""Two primes that anybody may know: the RSA key of these vectors wraps and, as another key, signs."""
N, E = P * Q, 65537
D = pow(E, -1, (P - 1) * (Q - 1))
SIZE = 256

VAULT = "https://vectors.vault.azure.net/keys/"
KEK = VAULT + "kek/0123456789abcdef0123456789abcdef"
SIGNER = VAULT + "signer/fedcba9876543210fedcba9876543210"

WRAP_CONTEXT = [
    ["keystead.purpose", "wrap"],
    ["keystead.version", "1"],
    ["keystead.store", "00112233445566778899aabbccddeeff"],
]

CURVES: dict[str, tuple[int, ec.EllipticCurve, HashAlgorithm, int, int]] = {
    "ES256": (
        0x01,
        ec.SECP256R1(),
        SHA256(),
        32,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "ES384": (
        0x02,
        ec.SECP384R1(),
        SHA384(),
        48,
        int("f" * 48 + "c7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16),
    ),
    "ES512": (
        0x03,
        ec.SECP521R1(),
        SHA512(),
        66,
        int("1" + "f" * 64 + "fa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409", 16),
    ),
}


def azure_wrap_file(encode_context: ContextEncoder) -> Case:
    """Return ``azure-wrap-v1.json``."""
    plaintext = known_bytes("azure wrap key")
    cases: list[tuple[str, str, list[list[str]], bytes]] = [
        ("without a signature, empty", "none", [], b""),
        ("the longest for RSA 2048", "none", [["table", "users"]], bytes(range(158))),
        *[(f"a WRAP key, signed with {name}", name, WRAP_CONTEXT, plaintext) for name in (*CURVES, "PS256")],
    ]
    rsa = [_rsa_case(encode_context, case) for case in cases]
    aes = [_aes_case(encode_context, WRAP_CONTEXT, plaintext), _aes_case(encode_context, [], b"")]
    signed, sealed = bytes.fromhex(rsa[2]["ciphertext"]), bytes.fromhex(aes[0]["ciphertext"])
    return {
        "spec": "docs/spec/azure-wrap-v1.md",
        "rsa_key": {"n": f"{N:x}", "e": E, "p": f"{P:x}", "q": f"{Q:x}"},
        "capacities": {"2048": 158, "3072": 286, "4096": 414},
        "rsa": rsa,
        "aes": aes,
        "invalid": _invalid(signed, sealed),
    }


def _rsa_case(encode_context: ContextEncoder, case: tuple[str, str, list[list[str]], bytes]) -> Case:
    comment, algorithm, pairs, plaintext = case
    context_hash = _context_hash(encode_context, pairs)
    seed = known_bytes(f"azure oaep {comment}")
    wrapped = pow(int.from_bytes(_oaep(context_hash + plaintext, seed), "big"), E, N).to_bytes(SIZE, "big")
    body = b"\xab\x01\x01" + pack(">H", SIZE) + wrapped
    found: Case = {
        "comment": comment,
        "kek": KEK,
        "context": pairs,
        "context_hash": context_hash.hex(),
        "plaintext": plaintext.hex(),
        "seed": seed.hex(),
        "wrapped": wrapped.hex(),
        "signature_algorithm": algorithm,
    }
    if algorithm == "none":
        return {**found, "ciphertext": (body + b"\x00").hex()}
    number = 0x11 if algorithm == "PS256" else CURVES[algorithm][0]
    body += bytes([number]) + pack(">H", len(SIGNER)) + SIGNER.encode()
    message = b"keystead azure wrap v1\x00" + pack(">H", len(KEK)) + KEK.encode() + context_hash + body
    if algorithm == "PS256":
        signature = pow(int.from_bytes(_pss(message, known_bytes("azure pss salt")), "big"), D, N).to_bytes(SIZE, "big")
        public: Case = {}
    else:
        signature, public = _ecdsa(algorithm, message)
    return {
        **found,
        "signer": SIGNER,
        **public,
        "message": message.hex(),
        "signature": signature.hex(),
        "ciphertext": (body + pack(">H", len(signature)) + signature).hex(),
    }


def _ecdsa(algorithm: str, message: bytes) -> tuple[bytes, Case]:
    _, curve, digest, size, order = CURVES[algorithm]
    private = int.from_bytes(known_bytes(f"azure {algorithm}", size), "big") % (order - 1) + 1
    key = ec.derive_private_key(private, curve)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest, deterministic_signing=True)))
    public = key.public_key().public_numbers()
    raw = r.to_bytes(size, "big") + min(s, order - s).to_bytes(size, "big")
    return raw, {"signer_x": f"{public.x:x}", "signer_y": f"{public.y:x}"}


def _aes_case(encode_context: ContextEncoder, pairs: list[list[str]], plaintext: bytes) -> Case:
    key, nonce = known_bytes("azure aes key"), known_bytes(f"azure nonce {len(pairs)}", 12)
    aad = _context_hash(encode_context, pairs)
    sealed = AESGCM(key).encrypt(nonce, b"\x01" + plaintext, aad)
    return {
        "key": key.hex(),
        "context": pairs,
        "context_hash": aad.hex(),
        "plaintext": plaintext.hex(),
        "nonce": nonce.hex(),
        "ciphertext": (b"\xab\x01\x02" + nonce + sealed[-16:] + sealed[:-16]).hex(),
    }


def _invalid(signed: bytes, sealed: bytes) -> list[Case]:
    unsigned = signed[: 5 + SIZE]
    signer = pack(">H", len(SIGNER)) + SIGNER.encode()
    r, s = signed[-64:-32], int.from_bytes(signed[-32:], "big")
    high = (CURVES["ES256"][4] - s).to_bytes(32, "big")
    cases = {
        "empty": b"",
        "another magic": b"\xac" + signed[1:],
        "another version": signed[:1] + b"\x02" + signed[2:],
        "an unknown form": signed[:2] + b"\x03" + signed[3:],
        "wrapped bytes of a length no key has": b"\xab\x01\x01" + pack(">H", 255) + signed[5:260] + b"\x00",
        "bytes after the mark that there is no signature": unsigned + b"\x00\x00",
        "an unknown signature algorithm": unsigned + b"\x04" + signer + signed[-66:],
        "an empty id of the signing key": unsigned + b"\x01\x00\x00" + signed[-66:],
        "a signing key's id that is not ASCII": unsigned + b"\x01\x00\x02\xc3\xa9" + signed[-66:],
        "an ECDSA signature of another curve": unsigned + b"\x02" + signer + signed[-66:],
        "an RSA signature of a length no key has": unsigned + b"\x11" + signer + signed[-66:],
        "a value of s above half the order": signed[:-64] + r + high,
        "bytes after the signature": signed + b"\x00",
        "an AES ciphertext without its first byte": sealed[:31],
    }
    return [{"comment": comment, "ciphertext": blob.hex()} for comment, blob in cases.items()]


def _context_hash(encode_context: ContextEncoder, pairs: list[list[str]]) -> bytes:
    return hashlib.sha256(b"keystead azure context v1\x00" + encode_context(pairs)).digest()


def _mgf1(seed: bytes, size: int) -> bytes:
    blocks = (hashlib.sha256(seed + pack(">I", number)).digest() for number in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def _oaep(message: bytes, seed: bytes) -> bytes:
    """Encode by RFC 8017 section 7.1.1 with an empty label."""
    padding = bytes(SIZE - len(message) - 66)
    block = hashlib.sha256().digest() + padding + b"\x01" + message
    masked = _xor(block, _mgf1(seed, len(block)))
    return b"\x00" + _xor(seed, _mgf1(masked, 32)) + masked


def _pss(message: bytes, salt: bytes) -> bytes:
    """Encode by RFC 8017 section 9.1.1 for a modulus of 2048 bits."""
    digest = hashlib.sha256(bytes(8) + hashlib.sha256(message).digest() + salt).digest()
    block = bytes(SIZE - 66) + b"\x01" + salt
    masked = _xor(block, _mgf1(digest, len(block)))
    return bytes([masked[0] & 0x7F]) + masked[1:] + digest + b"\xbc"


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
