"""A witness of logs, and how one is asked."""
