"""The pure core: rules and transitions as functions of (record, evidence, now, policy)."""
