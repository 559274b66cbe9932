"""The built-in certificate authority: its keys, join tokens and enrolment of nodes."""
