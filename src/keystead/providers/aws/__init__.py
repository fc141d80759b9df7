"""AWS KMS: what it needs of boto3, one subject a file."""
