"""Who may do what: callers and their identities, the rules, and the authority that gives identities."""
