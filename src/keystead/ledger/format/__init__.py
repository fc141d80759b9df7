"""What the lines of a log are, and the session keys that seal them. Spec: docs/spec/log-v1.md."""
