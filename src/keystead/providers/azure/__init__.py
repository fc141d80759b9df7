"""Azure Key Vault and Managed HSM, one subject a file."""
