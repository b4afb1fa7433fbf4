"""The durable spool: records that wait on this node's disk until Kafka has them."""
