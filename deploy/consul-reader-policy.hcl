# What a router may do in Consul: read the placement, register itself, see the others.

key "headrace/placement" {
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
