# The consumers of a flow: three instances that report to Consul how they are doing. They need no
# sidecar; the sidecars beside the producers read what they report.
#
#   nomad job run -var consumer_checksum=sha256:… nomad/kafka-consumer.nomad.hcl
#
# The failure switch, for exercises: the consumers' tasks are restarted with INJECT_FAILURE set, the
# failures they report open the breaker, and every producer is answered 503.
#
#   nomad var put -force nomad/jobs/kafka-consumer inject_failure=true
#   nomad var put -force nomad/jobs/kafka-consumer inject_failure=false

variable "consumer" {
  type        = string
  description = "Where the consumer's program is to be had."
  default     = "http://my-artifactory/consumer"
}

variable "consumer_checksum" {
  type        = string
  description = "Of that file, as in sha256:…"
}

variable "consul_address" {
  type    = string
  default = "127.0.0.1:8500"
}

variable "report_interval" {
  type        = string
  description = "Another than 5s has to be told to the sidecars too, as their report_interval."
  default     = "5s"
}

job "kafka-consumer" {
  type = "service"

  group "consumers" {
    count = 3

    restart {
      attempts = 3
      interval = "5m"
      delay    = "15s"
      mode     = "fail"
    }

    task "app" {
      driver = "exec"

      config {
        command = "${NOMAD_TASK_DIR}/bin/consumer"
        args    = ["-config", "${NOMAD_TASK_DIR}/consumer.yaml"]
      }

      artifact {
        source      = var.consumer
        destination = "local/bin/consumer"
        mode        = "file"
        options {
          checksum = var.consumer_checksum
        }
      }

      template {
        destination = "local/consumer.yaml"
        # The signal is for a consumer that re-reads its file at SIGHUP. One that doesn't know the
        # signal is ended by it, and started again by the block `restart`.
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-YAML
          service_name: "kafka-consumer"
          kafka:
            brokers: ["10.0.0.1:9092", "10.0.0.2:9092"]
            topic: "tasks-topic"
            group_id: "tasks-processor-group"
          consul:
            address: "${var.consul_address}"
          metrics:
            report_interval: "${var.report_interval}"
            consul_key_prefix: "service-metrics/kafka-consumer"
        YAML
      }

      # The failure switch. An `env` block can only be changed by a new version of the job; a
      # variable of Nomad restarts the tasks in place, and their own identity may read it.
      template {
        destination = "local/switch.env"
        env         = true
        change_mode = "restart"
        data        = <<-ENV
          INJECT_FAILURE={{ if nomadVarExists "nomad/jobs/kafka-consumer" }}{{ with nomadVar "nomad/jobs/kafka-consumer" }}{{ .inject_failure }}{{ end }}{{ else }}false{{ end }}
        ENV
      }

      # Long enough for the consumer to leave its group and to delete its key in Consul.
      kill_timeout = "10s"

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }
}
