# The sidecar in a job you already have: three parts to copy, marked 1, 2 and 3. The rest stands for
# your own job.
#
#   nomad job run -var app_image=registry.example/app:1 nomad/breaker-sidecar.nomad.hcl

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

  # One allocation at a time. Old and new versions of the sidecar may run side by side: they share
  # one state in Consul, and an update moves nothing but, at times, the lock.
  update {
    max_parallel     = 1
    health_check     = "task_states"
    min_healthy_time = "5s"
  }

  group "app" {
    count = 3

    network {
      # The host's network: Consul's agent is at 127.0.0.1:8500, and what listens on localhost can
      # be reached by the application. In a bridge network: bridge.nomad.hcl.
      mode = "host"

      # 1. A port of the sidecar's own, so that several allocations fit on one host. Sidecar and
      # clients read it from NOMAD_PORT_breaker; the sidecar listens on it on loopback only.
      port "breaker" {}
    }

    # 2. The sidecar: starts before the application, is restarted if it fails, and is stopped after
    # the application, so that nobody ever asks in vain.
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

      # Part of the job, so that a change of it is a new version of the job. For settings that
      # change without an update see one-per-host.nomad.hcl.
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

      # An ordered stop, with locks handed over and reports deleted, takes five seconds at most.
      kill_timeout = "10s"

      resources {
        cpu    = 100
        memory = 96 # at rest it uses about half of it; a long list of reports needs the rest
      }
    }

    # 3. Nomad starts the application as soon as the sidecar's process runs, which is before it can
    # answer. A prestart task that ends when it can is what the application really waits for.
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

      # GET ${BREAKER_URL}/allowed before each send: 200 is yes, 503 no. The clients of this
      # repository need no variable: they read NOMAD_PORT_breaker themselves.
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
