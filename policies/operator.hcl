# Rights of a person, for orders straight to Consul: `breaker-sidecar force|release|forget --consul`.
#
#   consul acl policy create -name breaker-operator -rules @policies/operator.hcl
#
# Written for state_prefix `breaker` and the breaker `default`; another breaker's keys are
# `breaker/NAME/override` and so on.

# force and release.
key "breaker/override" {
  policy = "write"
}

# Only for forget: it looks who evaluates, closes the breaker and deletes its keys.
key "breaker/state" {
  policy = "write"
}
key "breaker/leader" {
  policy = "write"
}
key "breaker-history/default" {
  policy = "write"
}
key "breaker-normal/default" { # only where failure_threshold is auto
  policy = "write"
}
