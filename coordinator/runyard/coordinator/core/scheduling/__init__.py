"""Which node a run goes to: filters say why not, scores compare what is left, the index finds it fast."""
