"""Who may do what: callers, their scopes, and the tokens that show who calls. Knows no HTTP."""
