"""The one door for library users, and the only room where providers, stores and lifecycle are put together."""
