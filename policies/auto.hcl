# Rights of a sidecar that may become the evaluator (role: auto), and no more than it needs.
#
#   consul acl policy create -name breaker-sidecar -rules @policies/auto.hcl
#
# Written for the defaults: state_prefix `breaker`, the breaker `default`, reports below
# `service-metrics/kafka-consumer`. For another state_prefix replace `breaker` at the beginning of
# each key; a breaker of another name has keys of its own: see "More breakers" below.
# Where the agents set acl.enable_key_list_policy, say "list" for the "read" of the first rule.

# Every state, override and lock: one blocking query brings them all.
key_prefix "breaker/" {
  policy = "read"
}

# The breaker `default`.
key "breaker/state" {
  policy = "write"
}
key "breaker/leader" { # the lock
  policy = "write"
}
key "breaker/override" { # filled in and, once it is over, deleted; also orders through this sidecar
  policy = "write"
}
key "breaker-history/default" { # written with the state, in one transaction
  policy = "write"
}

key "breaker-normal/default" { # what failure_threshold: auto has learned; only with that
  policy = "write"
}

# Reports: read to judge; written for those who report through this sidecar; deleted when an
# instance stops, and when it has been silent for report_gc. "read" is enough with `reports: off`
# and `report_gc: 0`.
key_prefix "service-metrics/kafka-consumer/" {
  policy = "write"
}

# The session that holds the locks. It is made at the sidecar's own agent: where the node's name is
# known, `session "NODE"` is enough.
session_prefix "" {
  policy = "write"
}

# Only with consul.fast_takeover: the check that this session is bound to. Without this rule the
# sidecar says so once and goes on without.
service "breaker-sidecar-evaluator" {
  policy = "write"
}

# Only with register.name: the service under which this sidecar, or the one it stands beside, is
# found. Write that name here.
service "breaker-sidecar" {
  policy = "write"
}

# More breakers: for each, as here for `orders`,
#
# key_prefix "breaker/orders/" {
#   policy = "write"
# }
# key "breaker-history/orders" {
#   policy = "write"
# }
# key "breaker-normal/orders" {
#   policy = "write"
# }
# key_prefix "service-metrics/orders/" { # its consul_key_prefix
#   policy = "write"
# }
