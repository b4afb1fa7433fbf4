"""The HTTP interface: decisions, reading, reports, probes, and the listeners that carry them."""
