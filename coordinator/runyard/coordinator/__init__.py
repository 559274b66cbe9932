"""The coordinator: accepts launches, places runs on nodes, and owns the durable state of every run.

Each layer imports only the ones below it; tests/test_boundaries.py checks it.

__main__, command   the process
server, services    assembly of the process: database, runtime, gRPC servers
security            assembly of authentication, enrolment and revocation
config              the settings
grpc                the services, and the gate in front of them
audit               the audit log
ca                  the built-in certificate authority and the enrolment of nodes
auth                authentication and authorization of callers
routing_config      the routing file
runtime             execution of decisions: persist, send, answer
store               the database
core                all decisions, without clock, network or disk
"""
