# What a router may do in Consul: read the placement, see who leads, register itself, see the others.

key "headrace/placement" {
  policy = "read"
}
key "headrace/leader" {
  policy = "read"
}

service "headrace-router" {
  policy = "write"
}
service_prefix "headrace-" {
  policy = "read"
}
node_prefix "" {
  policy = "read"
}
