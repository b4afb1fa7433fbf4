# Many allocations on one host, on the host's network: every sidecar gets ports of its own.
#
#   nomad job run -var app_image=registry.example/app:1 nomad/host-network.nomad.hcl

variable "app_image" {
  type        = string
  description = "Image of the application that sends to Kafka."
}

variable "sidecar_image" {
  type    = string
  default = "breaker-sidecar:0.1.0"
}

job "app-on-host-network" {
  type = "service"

  update {
    max_parallel     = 2
    health_check     = "checks"
    min_healthy_time = "5s"
  }

  group "app" {
    count = 12

    network {
      mode = "host"
      port "breaker" {}     # decisions, on loopback: for the application of this allocation
      port "diagnostics" {} # metrics and readiness, on the host's address: for Prometheus, checks
    }

    # Prometheus finds every sidecar by nomad_sd_configs; a sidecar that can't answer is no healthy
    # allocation, so that an update stops there. An open breaker is no failure.
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
        network_mode    = "host"
        args            = ["run", "-c", "${NOMAD_TASK_DIR}/breaker.yaml"]
        readonly_rootfs = true
        cap_drop        = ["all"]
      }

      # The environment beats the file, and knows what Nomad chose.
      env {
        BREAKER_SIDECAR__LISTEN__DIAGNOSTICS = "${NOMAD_ADDR_diagnostics}"
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

    task "breaker-ready" {
      driver = "docker"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      config {
        image           = var.sidecar_image
        network_mode    = "host"
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
        image        = var.app_image
        network_mode = "host"
      }

      env {
        BREAKER_URL = "http://localhost:${NOMAD_PORT_breaker}"
      }

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
