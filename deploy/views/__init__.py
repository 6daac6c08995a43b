"""A cluster for people: tables of its shards, models, releases, operations and plans."""
