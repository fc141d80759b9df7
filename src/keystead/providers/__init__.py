"""Providers: one file per KMS, a registry that finds them by URI scheme, and the guard around all of them.

No module here imports an SDK before its first call, and no SDK exception leaves it.
"""
