# Hosts without Docker and without Python: the self-contained tarball that `make bundle` makes, put
# wherever your artifacts are. It needs glibc and nothing else.
#
#   nomad job run -var bundle=https://artifacts.example/breaker-sidecar-0.1.0-linux-amd64.tar.gz \
#     -var bundle_checksum=sha256:… -var app=/usr/local/bin/app nomad/without-docker.nomad.hcl

variable "bundle" {
  type        = string
  description = "Where the tarball is to be had."
}

variable "bundle_checksum" {
  type        = string
  description = "As in the file beside it: sha256:…"
}

variable "app" {
  type        = string
  description = "The application's program, on each host."
}

job "app-without-docker" {
  type = "service"

  group "app" {
    count = 1

    network {
      mode = "host"
      port "breaker" {}
    }

    task "breaker" {
      driver = "exec"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      # Unpacks to local/breaker-sidecar.
      artifact {
        source = var.bundle
        options {
          checksum = var.bundle_checksum
        }
      }

      config {
        command = "${NOMAD_TASK_DIR}/breaker-sidecar/bin/breaker-sidecar"
        args    = ["run", "-c", "${NOMAD_TASK_DIR}/breaker.yaml"]
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

    # Prestart tasks start together and share no folder before they run, so this one fetches the
    # program too.
    task "breaker-ready" {
      driver = "exec"

      lifecycle {
        hook    = "prestart"
        sidecar = false
      }

      artifact {
        source = var.bundle
        options {
          checksum = var.bundle_checksum
        }
      }

      config {
        command = "${NOMAD_TASK_DIR}/breaker-sidecar/bin/breaker-sidecar"
        args    = ["wait", "--timeout", "60s"]
      }

      resources {
        cpu    = 50
        memory = 64
      }
    }

    task "app" {
      driver = "exec"

      config {
        command = var.app
      }

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
