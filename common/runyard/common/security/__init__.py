"""Identities, certificates, join tokens and signatures, as both sides read them."""
