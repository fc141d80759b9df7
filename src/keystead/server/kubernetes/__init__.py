"""Kubernetes: the API server's secrets are encrypted by Keystead, over the KMS plugin interface version 2."""
