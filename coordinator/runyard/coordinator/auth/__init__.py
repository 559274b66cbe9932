"""Who may speak to this coordinator, and what about; see docs/security.md.

At every call
    gate                 lets calls in: who calls, may that role, is it too often
    callers              who calls, from the certificate of the connection
    access_table         which roles may call which method
    admission            whether a caller may speak (any more)
    revocations          which certificates are refused, in memory
    expiring             which expire soon
    rates, throttle      how often somebody may do something: pure, and by this machine's clock

At the door
    server_credentials   what this coordinator shows, by the newest files
    handshakes           why a handshake failed, from what gRPC writes: pure
    handshake_log        reads that from standard error

Certificates
    authority            signs: pure
    authority_directory  the built-in authority on disk; `issued` is its list
    opening, enrolment   gives nodes certificates: for a token, then for the one before
    tokens               join tokens: pure
    signing_requests     reads what nodes ask with
    expulsion            takes certificates back

Notes
    audit, audit_file    who did what, and what came of it

`setup` puts it together.
"""
