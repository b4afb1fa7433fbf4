# One allocation: an application and the breaker sidecar that answers it over localhost.
#
# Order of start: `breaker` runs from before the application to after it; `breaker-ready` returns
# when the sidecar can answer, so the application's first call already finds it.
#
#   nomad job run -var app_image=registry.example/app:1 breaker-sidecar.nomad.hcl

variable "app_image" {
  type        = string
  description = "Image of the application that sends to Kafka."
}

variable "sidecar_image" {
  type        = string
  description = "Image built from the Dockerfile of this repository."
  default     = "breaker-sidecar:0.1.0"
}

job "app-with-breaker" {
  type = "service"

  group "app" {
    count = 3

    network {
      # The host's network: Consul's agent is then at 127.0.0.1:8500. Nomad picks a free port, so
      # that several allocations fit on one host; the sidecar reads it from NOMAD_PORT_breaker
      # and listens on it on loopback only.
      mode = "host"
      port "breaker" {}
    }

    task "breaker" {
      driver = "docker"

      lifecycle {
        hook    = "prestart"
        sidecar = true # stays, is restarted if it fails, and is stopped after the application
      }

      config {
        image        = var.sidecar_image
        network_mode = "host"
        args         = ["run", "-c", "/local/breaker.yaml"]
      }

      template {
        destination = "local/breaker.yaml"
        # A changed file is taken up without losing state or a request; a faulty one is refused.
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-YAML
          store: consul
          breakers:
            default:
              topic: orders
              group: billing
              failure_threshold: 20
              open_duration: 30s
        YAML
      }

      # The task's own Consul token, by workload identity: Nomad hands it over as
      # CONSUL_HTTP_TOKEN. It needs key_prefix "breaker" and "breaker-history" write, the report
      # prefix write, and session write. Without Consul ACLs drop both blocks.
      consul {}
      identity {
        name = "consul_default"
        aud  = ["consul.io"]
        ttl  = "1h"
      }

      # An ordered stop (reports deleted, locks handed over) takes at most five seconds.
      kill_signal  = "SIGTERM"
      kill_timeout = "10s"

      resources {
        cpu    = 100
        memory = 96 # at rest it uses about half of it; a long list of reports needs the rest
      }
    }

    task "breaker-ready" {
      driver = "docker"

      lifecycle {
        hook    = "prestart"
        sidecar = false # the application starts when this has ended with 0
      }

      config {
        image        = var.sidecar_image
        network_mode = "host"
        args         = ["wait", "--timeout", "60s"] # finds the port in NOMAD_PORT_breaker
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

      # Ask GET ${BREAKER_URL}/allowed before each send: 200 send, 503 wait for Retry-After.
      env {
        BREAKER_URL = "http://localhost:${NOMAD_PORT_breaker}"
      }

      resources {
        cpu    = 500
        memory = 256
      }
    }
  }
}
