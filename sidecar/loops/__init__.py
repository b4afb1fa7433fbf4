"""What moves: watching the state, standing for election, evaluating, writing reports."""
