"""Explanations of placement decisions for people. Nothing here changes state."""
