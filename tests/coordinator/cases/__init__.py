"""Tables of placement cases, each described by a sentence."""
