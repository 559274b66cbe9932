"""Which waiting run comes next: priority, fair shares, age, quotas and reservations."""
