# Rights of a sidecar that only follows (role: follower): it reads, and writes nothing.
#
#   consul acl policy create -name breaker-follower -rules @policies/follower.hcl
#
# Written for state_prefix `breaker`; for another replace it in both rules. Where the agents set
# acl.enable_key_list_policy, say "list" for "read".

# Every state, override and lock: one blocking query brings them all.
key_prefix "breaker/" {
  policy = "read"
}

# Only to show histories (`breaker-sidecar history`, GET /v1/breakers/NAME/history).
key_prefix "breaker-history/" {
  policy = "read"
}

# Only where applications report through this sidecar (`reports:` not `off`):
#
# key_prefix "service-metrics/kafka-consumer/" {
#   policy = "write"
# }
#
# Only with register.name, which is to be written here:
#
# service "breaker-sidecar" {
#   policy = "write"
# }
