"""Recorded exchanges with a server, sent again to another one in their order, and the answers compared."""
