"""Which node a run goes to: filters that say why not, scores that compare what is left, the index of nodes."""
