"""Who may do what: callers, their scopes, and what shows who calls: tokens of our own, and those of an issuer.

Knows nothing of the requests that callers send.
"""
