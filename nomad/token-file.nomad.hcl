# Consul with access control, and a token that is rotated from outside: by an operator, or by Vault
# (then the template reads a secret of Vault's Consul engine, and renews it by itself).
#
# What the token needs to allow: policies/auto.hcl.
#
#   nomad var put -force nomad/jobs/breaker-with-token consul_token=…
#   nomad job run nomad/token-file.nomad.hcl

variable "sidecar_image" {
  type    = string
  default = "breaker-sidecar:0.1.0"
}

job "breaker-with-token" {
  type = "service"

  group "app" {
    count = 1

    network {
      mode = "host"
      port "breaker" {}
    }

    task "breaker" {
      driver = "docker"

      config {
        image           = var.sidecar_image
        network_mode    = "host"
        args            = ["run", "-c", "${NOMAD_TASK_DIR}/breaker.yaml"]
        readonly_rootfs = true
        cap_drop        = ["all"]
      }

      env {
        CONSUL_HTTP_TOKEN_FILE = "${NOMAD_SECRETS_DIR}/breaker-token"
      }

      # In the secrets folder, which is in memory and not shown by `nomad alloc fs`. The sidecar
      # reads the file again by itself: a new token needs neither restart nor signal.
      template {
        destination = "secrets/breaker-token"
        change_mode = "noop"
        uid         = 65532 # the user of the sidecar's image
        gid         = 65532
        perms       = "0400"
        data        = "{{ with nomadVar \"nomad/jobs/breaker-with-token\" }}{{ .consul_token }}{{ end }}"
      }

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
