"""What a token's return codes mean here. Only the name of a code is kept of the binding's exceptions.

Sources: PKCS #11 v2.40 and v3.0, section 5.1 (return values); codes that the binding has no class for come as text.
"""

from __future__ import annotations

import re
from typing import Final

from keystead.errors import (
    ConfigurationError,
    InvalidInputError,
    KeyRotationError,
    KeyStateError,
    KMSError,
    ProviderAuthError,
    ProviderConnectionError,
    RotationNotSupportedError,
)

NOT_INITIALIZED: Final = "CryptokiNotInitialized"
ALREADY_INITIALIZED: Final = "CryptokiAlreadyInitialized"
NOT_LOADED: Final = "ModuleNotLoaded"

STALE: Final = frozenset(
    {
        "KeyFunctionNotPermitted",
        "KeyHandleInvalid",
        "ObjectHandleInvalid",
        "OperationActive",
        "OperationNotInitialized",
        "SessionClosed",
        "SessionHandleInvalid",
        "UnwrappingKeyHandleInvalid",
        "UserNotLoggedIn",
        "WrappingKeyHandleInvalid",
    }
)
"""Nothing was done, since what we know of session or key has passed: look again, and do it once more."""

UNCLEAR: Final = frozenset(
    {"DeviceError", "DeviceMemory", "FunctionCancelled", "FunctionFailed", "GeneralError", "HostMemory"}
)
"""Anything may be meant; some tokens say so of a ciphertext that does not fit."""

BAD_CIPHERTEXT: Final = frozenset(
    {
        "AeadDecryptFailed",
        "DataInvalid",
        "DataLenRange",
        "EncryptedDataInvalid",
        "EncryptedDataLenRange",
        "SignatureInvalid",
        "WrappedKeyInvalid",
        "WrappedKeyLenRange",
    }
)
"""Said while decrypting: the ciphertext is not one of this key."""

PIN_REFUSED: Final = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange"})

_REFUSED: Final = frozenset(
    {
        "FunctionNotSupported",
        "KeySizeRange",
        "KeyTypeInconsistent",
        "MechanismInvalid",
        "MechanismParamInvalid",
        "UnwrappingKeySizeRange",
        "UnwrappingKeyTypeInconsistent",
        "WrappingKeySizeRange",
        "WrappingKeyTypeInconsistent",
    }
)
_WRITE_PROTECTED: Final = frozenset({"SessionReadOnly", "SessionReadOnlyExists", "TokenWriteProtected"})
_CODE: Final = re.compile(r"Unmapped error code (0x[0-9a-f]+)L?\Z")
_UNMAPPED: Final = {"0x1b": "ActionProhibited", "0x42": "AeadDecryptFailed", "0x68": "KeyFunctionNotPermitted"}


_GONE: Final = frozenset({"DeviceRemoved", "SlotIDInvalid", "TokenNotPresent", "TokenNotRecognised", NOT_INITIALIZED})


def name_of(exc: Exception) -> str:
    """Return the name of an exception of the binding: that of its class, or of the code that it has no class for."""
    name = type(exc).__name__
    if name != "PKCS11Error":
        return name
    text = str(exc)
    if (code := _CODE.match(text)) is not None:
        return _UNMAPPED.get(code[1], f"return code {code[1]}")
    if "already initialized" in text:
        return ALREADY_INITIALIZED
    if "not initialized" in text:
        return NOT_INITIALIZED
    return NOT_LOADED if "while loading" in text else name


def of_operation(operation: str, name: str) -> KMSError:
    """Return the error for a code that an operation ended with, after everything that could help was tried."""
    if name == "UserNotLoggedIn":
        return ProviderAuthError(
            f"the token wants another login for {operation}; keys that ask for the PIN at every use "
            "(CKA_ALWAYS_AUTHENTICATE) do not work here"
        )
    if name == "ActionProhibited":
        return ProviderAuthError(f"the token prohibits {operation} with this key")
    if name == "KeyFunctionNotPermitted":
        return KeyStateError(f"the key's attributes do not permit {operation}")
    if operation == "rotate_key" and name in _WRITE_PROTECTED:
        return RotationNotSupportedError(
            "the token cannot be written to; make the next version with its own tool: an object of the same label "
            "whose CKA_ID is a greater number"
        )
    if operation == "rotate_key" and name not in STALE | UNCLEAR | _GONE:
        return KeyRotationError(
            f"the token refused to make a new version ({name}); its own tool may make it: an object of the same label "
            "whose CKA_ID is a greater number"
        )
    if name in _REFUSED:
        return InvalidInputError(f"the token refused {operation} with this key and mechanism ({name})")
    if name in {"DataInvalid", "DataLenRange"}:
        return InvalidInputError(f"the token takes no data of this length for {operation} ({name})")
    return ProviderConnectionError(f"the token failed {operation} ({name})")


def ends_session(name: str) -> bool:
    """Whether the session is not to be used again after this code."""
    return name in STALE | UNCLEAR | _GONE or name.startswith("return code")


def of_login(name: str) -> KMSError:
    """Return the error for a code that a login ended with."""
    if name in PIN_REFUSED:
        return ProviderAuthError(
            f"the token refused the PIN ({name}). It is not tried again, since a few wrong ones lock the token: "
            "correct the PIN"
        )
    if name == "PinLocked":
        return locked()
    if name in {"PinExpired", "UserPinNotInitialized"}:
        return ProviderAuthError(f"the token wants its user PIN to be set first ({name}); its own tool does that")
    if name in {"AnotherUserAlreadyLoggedIn", "SessionReadWriteSOExists", "UserTooManyTypes"}:
        return ProviderAuthError(
            f"somebody else is logged in to the token in this process ({name}); Keystead needs it as the normal user"
        )
    return ProviderConnectionError(f"the token could not be logged in to ({name})")


def locked() -> ProviderAuthError:
    """Return the error for a token whose PIN is locked."""
    return ProviderAuthError(
        "the token has locked its user PIN after too many wrong ones; the security officer unlocks it with the "
        "token's own tool"
    )


def of_loading(name: str, path: str, *, exists: bool) -> KMSError:
    """Return the error for a module that could not be made ready."""
    if name == ALREADY_INITIALIZED:
        return ConfigurationError(
            f"something else in this process uses the PKCS#11 module {path}. Two users of one module crash the "
            "process: leave it to Keystead, or name another path or p11-kit-proxy for the other one"
        )
    if name == NOT_LOADED:
        cure = "it is no PKCS#11 library of this machine's kind" if exists else "there is no such file"
        return ConfigurationError(
            f"the PKCS#11 module {path} could not be loaded: {cure}; install the token's software (for SoftHSM2 on "
            "Debian: apt-get install softhsm2), or correct module-path"
        )
    return ProviderConnectionError(
        f"the PKCS#11 module {path} could not be initialized ({name}); look at its own configuration, for SoftHSM2 the "
        "file that SOFTHSM2_CONF names"
    )
