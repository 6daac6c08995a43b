"""What a shard holds and how it is held, and the pure core of placing it."""
