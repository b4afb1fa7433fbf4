"""`make demo`: the outage and its cure, on real Kafka and Consul, in one terminal."""
