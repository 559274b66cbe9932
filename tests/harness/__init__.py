"""A whole Runyard deployment on this machine, made of real processes in one temporary folder.

The demo, the end-to-end tests and the benchmarks run on it. It listens on the loopback interface only, and
leaves no process behind.
"""
