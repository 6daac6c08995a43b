# What a controller may do in Consul. With the prefix "headrace" of ConsulSettings; change both together.

# Commit the placement; hold and release the leader's lock.
key "headrace/placement" {
  policy = "write"
}
key "headrace/leader" {
  policy = "write"
}

# Sessions are bound to the agent's node; name your controllers' nodes here if you know them.
session_prefix "" {
  policy = "write"
}

# Stand for election by a check of its own; register itself and the shards; see everybody, with their health.
service "headrace-candidate" {
  policy = "write"
}
service "headrace-controller" {
  policy = "write"
}
service "headrace-shard" {
  policy = "write"
}
service_prefix "headrace-" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
