"""Commands of ``manage.py``: rotation, re-encryption, status."""
