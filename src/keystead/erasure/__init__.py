"""Subjects whose keys can be destroyed for good: the erasure log, erasing, and its receipt. Spec: erasure-v1.md."""
