"""What `breaker-sidecar doctor` looks at: each check says what is, what is wrong, and the mend.

Nothing here changes what a fleet goes by: no key is written, nobody's watch is woken.
"""
