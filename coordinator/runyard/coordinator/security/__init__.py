"""Who may do what, and how often: callers, rules, the authority over identities, the record."""
