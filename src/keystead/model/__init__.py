"""The values that travel between rooms: frozen, slotted, without I/O."""

from keystead.model.acts import Act, Action
from keystead.model.algorithms import SignatureAlgorithm
from keystead.model.keys import (
    AUDIT_KEYRING,
    ERASURES_KEYRING,
    SUBJECT_PREFIX,
    WRAP_KEYRING,
    DataKeyInfo,
    DataKeyState,
    KeyRecord,
    KeyringPurpose,
    KeyringRecord,
    RotationPolicy,
    StoreState,
    ages_by_policy,
    is_of_subject,
    utc_of,
    utc_text,
)
from keystead.model.kms import (
    DataKeyPair,
    EncryptedData,
    KeyDescription,
    KeyPurpose,
    KeyReference,
    KeyState,
    WrapState,
)
from keystead.model.principal import Principal
from keystead.model.secret import SecretBytes, SecretText
from keystead.model.signing import PublicKey, Signature
from keystead.model.status import EncryptedField, KeyStatistics, KMSStatus
from keystead.model.transit import TRANSIT_PREFIX, TRANSIT_WRAPPING_KEYRING, TransitType, is_of_transit

__all__ = [
    "AUDIT_KEYRING",
    "ERASURES_KEYRING",
    "SUBJECT_PREFIX",
    "TRANSIT_PREFIX",
    "TRANSIT_WRAPPING_KEYRING",
    "WRAP_KEYRING",
    "Act",
    "Action",
    "DataKeyInfo",
    "DataKeyPair",
    "DataKeyState",
    "EncryptedData",
    "EncryptedField",
    "KMSStatus",
    "KeyDescription",
    "KeyPurpose",
    "KeyRecord",
    "KeyReference",
    "KeyState",
    "KeyStatistics",
    "KeyringPurpose",
    "KeyringRecord",
    "Principal",
    "PublicKey",
    "RotationPolicy",
    "SecretBytes",
    "SecretText",
    "Signature",
    "SignatureAlgorithm",
    "StoreState",
    "TransitType",
    "WrapState",
    "ages_by_policy",
    "is_of_subject",
    "is_of_transit",
    "utc_of",
    "utc_text",
]
