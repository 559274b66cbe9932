"""Which clusters a run may go to, and in which order: the operator's rules."""
