# A bridge network: application and sidecar share a network namespace of their own. Localhost is
# theirs alone, so the sidecar keeps its usual port; the host's localhost, and with it Consul's
# agent, can't be reached. So Consul is asked over its unix socket.
#
# Each host needs the CNI plugins (Nomad's own requirement for bridge networks), and its Consul agent
#
#   addresses    { http = "127.0.0.1 unix:///run/consul/http.sock" }
#   unix_sockets { mode = "0660" group = "65532" }   # the sidecar's image runs as this user
#
# Nomad's docker driver mounts no folder of the host unless each client says
#
#   plugin "docker" { config { volumes { enabled = true } } }
#
#   nomad job run -var app_image=registry.example/app:1 nomad/bridge.nomad.hcl

variable "app_image" {
  type        = string
  description = "Image of the application that sends to Kafka; it listens on port 8080."
}

variable "sidecar_image" {
  type    = string
  default = "breaker-sidecar:0.1.0"
}

variable "consul_socket_dir" {
  type        = string
  description = "The folder with the Consul agent's socket, on each host."
  default     = "/run/consul"
}

job "app-on-bridge" {
  type = "service"

  update {
    max_parallel     = 1
    health_check     = "checks"
    min_healthy_time = "5s"
  }

  group "app" {
    count = 2

    network {
      mode = "bridge"
      port "http" {
        to = 8080
      }
      # Only this one of the sidecar's is reachable from outside, by a port that Nomad picks.
      port "diagnostics" {
        to = 9101
      }
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

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image           = var.sidecar_image
        args            = ["run", "-c", "${NOMAD_TASK_DIR}/breaker.yaml"]
        volumes         = ["${var.consul_socket_dir}:${var.consul_socket_dir}:ro"]
        readonly_rootfs = true
        cap_drop        = ["all"]
      }

      template {
        destination = "local/breaker.yaml"
        data        = <<-YAML
          consul:
            address: unix://${var.consul_socket_dir}/http.sock
          listen:
            # Decisions stay on localhost:9100. This listener has no more than /livez, /readyz,
            # /metrics and /version.
            diagnostics: 0.0.0.0:9101
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

    task "breaker-ready" {
      driver = "docker"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      config {
        image           = var.sidecar_image
        args            = ["wait", "--timeout", "60s"]
        readonly_rootfs = true
        cap_drop        = ["all"]
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }

    task "app" {
      driver = "docker"

      config {
        image = var.app_image
        ports = ["http"]
      }

      env {
        BREAKER_URL = "http://localhost:9100"
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }
}
