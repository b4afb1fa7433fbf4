# One sidecar a host, shared by every application there: less memory, and nothing to change in the
# applications' jobs but where they ask. In return one restart is felt by the whole host; clients
# decide on their own for as long as it takes.
#
#   nomad job run nomad/one-per-host.nomad.hcl
#
# Nomad's docker driver mounts no folder of the host, such as that of the socket, unless each client
# says
#
#   plugin "docker" { config { volumes { enabled = true } } }
#
# Another threshold for the whole fleet, without an update and without losing state:
#
#   nomad var put -force nomad/jobs/breaker-host failure_threshold=40

variable "sidecar_image" {
  type    = string
  default = "breaker-sidecar:0.1.0"
}

variable "port" {
  type        = number
  description = "Of localhost; another one than 9100 has to be told to the applications."
  default     = 9100
}

variable "socket_dir" {
  type        = string
  description = "A folder on each host that the sidecar's user (65532) may write to."
  default     = "/run/breaker"
}

job "breaker-host" {
  type = "system"

  # One host after the other; a host without an answer ends the update.
  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
  }

  group "breaker" {
    network {
      mode = "host"
      # What runs on the host's network asks localhost:9100, where every client looks by itself.
      port "breaker" {
        static = var.port
      }
      port "diagnostics" {}
    }

    service {
      name     = "breaker-sidecar"
      provider = "nomad"
      port     = "diagnostics"
      tags     = ["metrics"]

      check {
        type     = "http"
        path     = "/readyz"
        interval = "10s"
        timeout  = "2s"
      }
    }

    task "breaker" {
      driver = "docker"

      config {
        image           = var.sidecar_image
        network_mode    = "host"
        args            = ["run", "-c", "${NOMAD_TASK_DIR}/breaker.yaml"]
        volumes         = ["${var.socket_dir}:${var.socket_dir}"]
        readonly_rootfs = true
        cap_drop        = ["all"]
      }

      env {
        BREAKER_SIDECAR__LISTEN__DIAGNOSTICS = "${NOMAD_ADDR_diagnostics}"
      }

      template {
        destination = "local/breaker.yaml"
        # A changed file is taken up without losing state or a request; a faulty one is refused
        # whole, logged, and shows in breaker_config_last_reload_successful.
        change_mode   = "signal"
        change_signal = "SIGHUP"
        # The threshold comes from a Nomad variable, not from Consul's KV: a task whose template
        # reads Consul doesn't start while Consul is away.
        data = <<-YAML
          store: consul
          listen:
            # For applications in a bridge network, who have another localhost: mount the folder
            # and ask unix:${var.socket_dir}/breaker.sock. Whoever may open the socket may give
            # orders, too, such as `force`: where that is too much, 0660 and a group, or no socket.
            socket: ${var.socket_dir}/breaker.sock
            socket_mode: 0666
          breakers:
            default:
              topic: tasks-topic
              group: tasks-processor-group
              failure_threshold: {{ if nomadVarExists "nomad/jobs/breaker-host" }}{{ with nomadVar "nomad/jobs/breaker-host" }}{{ .failure_threshold }}{{ end }}{{ else }}20{{ end }}
              open_duration: 30s
        YAML
      }

      kill_timeout = "10s"

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
