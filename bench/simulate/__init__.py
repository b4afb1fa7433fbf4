"""A flow with its breaker in a closed loop, on the pure core and in virtual time."""
