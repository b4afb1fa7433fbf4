"""What the daemon says of itself: metrics, log lines, and the one list of their names."""
