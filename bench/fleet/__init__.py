"""What a fleet asks of Consul: `make bench-fleet`, and the tables in docs/scale.md."""
