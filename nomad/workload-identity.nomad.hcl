# Consul with access control: the sidecar gets a token of its own by workload identity. Nobody hands
# a secret around, and the token is revoked when the allocation ends.
#
# Once a cluster (nomad setup consul makes the auth method `nomad-workloads`):
#
#   consul acl policy create -name breaker-sidecar -rules @policies/auto.hcl
#   consul acl role create -name breaker-sidecar -policy-name breaker-sidecar
#   consul acl binding-rule create -method nomad-workloads -bind-type role \
#     -bind-name breaker-sidecar -selector 'value.nomad_task == "breaker"'
#
#   nomad job run nomad/workload-identity.nomad.hcl

variable "sidecar_image" {
  type    = string
  default = "breaker-sidecar:0.1.0"
}

job "breaker-with-identity" {
  type = "service"

  group "app" {
    count = 1

    network {
      mode = "host"
      port "breaker" {}
    }

    task "breaker" {
      driver = "docker"

      # Both blocks: where the cluster's servers set consul.task_identity, the second is not needed.
      consul {}
      identity {
        name = "consul_default"
        aud  = ["consul.io"]
        ttl  = "1h"
      }

      config {
        image           = var.sidecar_image
        network_mode    = "host"
        args            = ["run", "-c", "${NOMAD_TASK_DIR}/breaker.yaml"]
        readonly_rootfs = true
        cap_drop        = ["all"]
      }

      # Nomad logs in for the task and sets CONSUL_HTTP_TOKEN, which the sidecar reads. The same
      # token is in secrets/consul_token, readable by root alone, which the sidecar's image is not.
      template {
        destination = "local/breaker.yaml"
        data        = <<-YAML
          store: consul
          breakers:
            default:
              topic: tasks-topic
              group: tasks-processor-group
              failure_threshold: 20
              open_duration: 30s
        YAML
      }

      kill_timeout = "10s"

      resources {
        cpu    = 100
        memory = 96
      }
    }
  }
}
