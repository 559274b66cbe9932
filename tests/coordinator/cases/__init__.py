"""Where runs go: tables of cases, each a sentence."""
