"""Client keys of devices, and the secrets that are encrypted to them. Spec: docs/spec/client-keys-v1.md."""
