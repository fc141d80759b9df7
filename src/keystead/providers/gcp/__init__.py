"""Google Cloud KMS, one subject a file."""
