"""The stores: Consul and memory behind one port, and the formats of what they hold."""
