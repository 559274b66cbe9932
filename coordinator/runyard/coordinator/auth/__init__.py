"""Authentication and authorization of callers. See docs/security.md for the roles and the threat model.

access_table           roles that may call each method
authentication         the caller of a connection, and if its certificate is still valid
callers                the identity in the certificate of a connection
expiring_certificates  certificates of callers that expire soon
rates, throttle        rate limits: the token buckets, and the same by the clock of this machine
revocations, revoker   revoked certificates in memory, and the commands that revoke them
server_credentials     the certificate that the coordinator presents

The interceptor that applies all this to each call is `grpc.gate`.
"""
