"""Real servers as processes of ours on loopback: what the tests and the demo start them by."""
