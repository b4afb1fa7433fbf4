"""What reads Kafka and writes to it; nothing else in the daemon touches its client."""
