"""The durable publish: accepts records, sends them, spools what Kafka doesn't take, replays it."""
