"""The built-in certificate authority (CA), and the enrolment of nodes.

authority            one signing key and its certificate: pure
authority_directory  the same on disk, as `runyard ca` manages it; `issued` has its records
enrolment            certificates of nodes: the first for a join token, later ones for the current certificate
tokens               creation and validity of join tokens: pure
signing_requests     parsing of certificate requests
"""
