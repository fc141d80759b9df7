"""The reader of what fapilog-tamper has written: its format 1."""
