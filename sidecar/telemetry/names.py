"""Every metric and every log event there is: one list, which code, tests and documentation share.

A name is a plain string wherever one is asked for; what else is to be known of it hangs on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

Kind = Literal["counter", "gauge", "histogram"]
By = Literal["sidecar", "evaluator", "publisher"]
"""Who exports a series: every sidecar, or a breaker's evaluator alone (so that sums over the fleet
count each thing once), or those where `publish` is configured."""


class Metric(str):
    """A metric's full name, with what its exposition needs.

    Attributes:
        labels: each label with the values it is known to take; none where they are open.
        buckets: upper bounds in seconds, of a histogram only.
    """

    __slots__ = ("buckets", "by", "help", "kind", "labels")
    kind: Kind
    help: str
    labels: Mapping[str, tuple[str, ...]]
    by: By
    buckets: tuple[float, ...]

    def __new__(
        cls,
        name: str,
        kind: Kind,
        help_: str,
        labels: Mapping[str, tuple[str, ...]] | None = None,
        *,
        by: By = "sidecar",
        buckets: tuple[float, ...] = (),
    ) -> Self:
        """A name that knows its kind, meaning and labels."""
        self = super().__new__(cls, name)
        self.kind, self.help, self.by, self.buckets = kind, help_, by, buckets
        self.labels = labels or {}
        return self


class Event(str):
    """A log event's name, with what it says."""

    __slots__ = ("says",)
    says: str

    def __new__(cls, name: str, says: str) -> Self:
        """A name that knows its meaning."""
        self = super().__new__(cls, name)
        self.says = says
        return self


_BREAKER: Mapping[str, tuple[str, ...]] = {"breaker": ()}
_TOPIC: Mapping[str, tuple[str, ...]] = {"topic": ()}
_STATES = ("CLOSED", "OPEN", "HALF_OPEN")
# A request takes milliseconds and a blocking query up to a minute.
_REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
# Ten reporters take well under a millisecond, ten thousand a tenth of a second.
_EVALUATION_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

# Flash with a capacitor takes tens of microseconds, a plain disk tens of milliseconds.
_SYNC_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 1.0)

# --- what is in force here -------------------------------------------------------------------
BUILD_INFO = Metric(
    "breaker_build_info",
    "gauge",
    "Always 1; the labels say what runs.",
    {"version": (), "python": ()},
)
STATE = Metric(
    "breaker_state",
    "gauge",
    "1 for the state in force here, 0 for the others.",
    {"breaker": (), "state": _STATES},
)
ADMIT_RATIO = Metric(
    "breaker_admit_ratio", "gauge", "Share of the calls admitted now, from 0 to 1.", _BREAKER
)
DECISIONS = Metric(
    "breaker_decisions_total",
    "counter",
    "Decisions given to callers; peeks are not counted.",
    {"breaker": (), "decision": ("admit", "reject")},
)
SHADOW_REJECTIONS = Metric(
    "breaker_shadow_rejections_total",
    "counter",
    "Calls that were admitted only because the breaker is in shadow mode.",
    _BREAKER,
)
LOCAL_GATE = Metric(
    "breaker_local_gate",
    "gauge",
    "1 while this sidecar holds back its own callers alone, for its own producers' deliveries; no "
    "series where `delivery.local` is off.",
    _BREAKER,
)
LOCAL_CLOSURES = Metric(
    "breaker_local_gate_closures_total",
    "counter",
    "How often this sidecar's own gate has shut, relapses included.",
    _BREAKER,
)
STALE = Metric(
    "breaker_stale",
    "gauge",
    "1 while the decision rests on a state that may have changed unseen.",
    _BREAKER,
)
LAST_SYNC = Metric(
    "breaker_last_sync_timestamp_seconds",
    "gauge",
    "When the store last completed a read, in seconds since the epoch; 0 before the first.",
)
OVERRIDE = Metric(
    "breaker_override",
    "gauge",
    "1 for the override in force; no series while there is none.",
    {"breaker": (), "mode": ("open", "closed", "shadow")},
)
CONFIG_MISMATCH = Metric(
    "breaker_config_mismatch",
    "gauge",
    "1 while the state was written under another configuration of this breaker than the one here.",
    _BREAKER,
)
LAST_RELOAD = Metric(
    "breaker_config_last_reload_successful",
    "gauge",
    "0 when the last configuration that was read has been refused, else 1.",
)

# --- what the evaluator knows ----------------------------------------------------------------
EVALUATOR = Metric(
    "breaker_evaluator", "gauge", "1 while this sidecar is the breaker's evaluator.", _BREAKER
)
VERDICT = Metric(
    "breaker_verdict",
    "gauge",
    "1 for what the signal says now, 0 for the other verdicts.",
    {"breaker": (), "signal": (), "verdict": ("healthy", "unhealthy", "unknown")},
    by="evaluator",
)
REPORTERS = Metric(
    "breaker_reporters",
    "gauge",
    "Instances whose report has changed lately (fresh) or not (stale).",
    {"breaker": (), "freshness": ("fresh", "stale")},
    by="evaluator",
)
LAG_MESSAGES = Metric(
    "breaker_lag_messages",
    "gauge",
    "Messages that the consumer group is behind, over all partitions; no series while unknown.",
    _BREAKER,
    by="evaluator",
)
LAG_SECONDS = Metric(
    "breaker_lag_seconds",
    "gauge",
    "Age of the oldest message that the group hasn't handled; no series while unknown.",
    _BREAKER,
    by="evaluator",
)
TRANSITIONS = Metric(
    "breaker_transitions_total",
    "counter",
    "Transitions that this sidecar has written.",
    {"breaker": (), "from": _STATES, "to": _STATES, "reason": ()},
    by="evaluator",
)
EVALUATIONS = Metric(
    "breaker_evaluations_total",
    "counter",
    "Evaluations by what came of them: nothing to write, written, refused by the store "
    "(lost lock or changed record), or failed for want of an answer.",
    {"breaker": (), "result": ("unchanged", "written", "refused", "failed")},
    by="evaluator",
)
EVALUATION_DURATION = Metric(
    "breaker_evaluation_duration_seconds",
    "histogram",
    "Duration of one evaluation, its write included.",
    by="evaluator",
    buckets=_EVALUATION_BUCKETS,
)
FOREIGN_WRITES = Metric(
    "breaker_foreign_writes_total",
    "counter",
    "State records written by something other than a sidecar.",
    _BREAKER,
    by="evaluator",
)

# --- the store -------------------------------------------------------------------------------
CAS_CONFLICTS = Metric(
    "breaker_cas_conflicts_total",
    "counter",
    "Writes that the store refused because the key had changed or the lock was lost.",
)
BAD_RECORDS = Metric(
    "breaker_bad_records_total",
    "counter",
    "Values in the store that could not be used, by what they should have been.",
    {"kind": ("report", "state", "history", "override", "normal")},
)
CONSUL_REQUESTS = Metric(
    "breaker_consul_requests_total",
    "counter",
    "Requests to Consul by operation and outcome.",
    {
        "op": (),
        "outcome": ("ok", "refused", "throttled", "unreachable", "denied", "rejected", "lost"),
    },
)
CONSUL_DURATION = Metric(
    "breaker_consul_request_duration_seconds",
    "histogram",
    "Duration of requests to Consul; blocking queries wait by design.",
    {"op": ()},
    buckets=_REQUEST_BUCKETS,
)

# --- the spool -------------------------------------------------------------------------------
SPOOL_APPENDED = Metric(
    "breaker_spool_appended_records_total",
    "counter",
    "Records that were synced to the spool.",
    {"topic": ()},
    by="publisher",
)
SPOOL_DROPPED = Metric(
    "breaker_spool_dropped_records_total",
    "counter",
    "Records that left the spool undelivered: to make room, for their age, or lost to damage.",
    {"topic": (), "reason": ("full", "expired", "damaged")},
    by="publisher",
)
SPOOL_SYNC_DURATION = Metric(
    "breaker_spool_sync_duration_seconds",
    "histogram",
    "Duration of one group commit's sync to disk, whatever the number of records in it.",
    by="publisher",
    buckets=_SYNC_BUCKETS,
)

# --- Kafka -----------------------------------------------------------------------------------
KAFKA_REQUESTS = Metric(
    "breaker_kafka_requests_total",
    "counter",
    "Requests to Kafka's brokers by operation and outcome.",
    {"op": (), "outcome": ("ok", "failed", "timeout")},
)
KAFKA_DURATION = Metric(
    "breaker_kafka_request_duration_seconds",
    "histogram",
    "Duration of requests to Kafka's brokers, connecting included.",
    {"op": ()},
    buckets=_REQUEST_BUCKETS,
)
KAFKA_JUNK = Metric(
    "breaker_kafka_junk_total",
    "counter",
    "Parts of Kafka's answers that made no sense and were left out.",
)

PROBE_DURATION = Metric(
    "breaker_probe_duration_seconds",
    "histogram",
    "From sending a canary through a broker until it was read back.",
    {"broker": ()},
    by="evaluator",
    buckets=_REQUEST_BUCKETS,
)
PROBE_FAILURES = Metric(
    "breaker_probe_failures_total",
    "counter",
    "Canaries that did not come back in time, by broker.",
    {"broker": ()},
    by="evaluator",
)

# --- publishing ------------------------------------------------------------------------------
PUBLISH_RECORDS = Metric(
    "breaker_publish_records_total",
    "counter",
    "Records handed over, by what became of them; the topic is its entry in the configuration.",
    {"topic": (), "outcome": ("delivered", "spooled", "dropped", "refused")},
    by="publisher",
)
PUBLISH_FAILURES = Metric(
    "breaker_publish_failures_total",
    "counter",
    "Batches that Kafka didn't confirm, and failed probes.",
    _TOPIC,
    by="publisher",
)
PUBLISH_DEAD = Metric(
    "breaker_publish_dead_letters_total",
    "counter",
    "Records that Kafka will never take, refused at once or set aside from the spool.",
    {
        "topic": (),
        "reason": (
            "record-too-large",
            "unknown-kafka-topic",
            "unknown-partition",
            "refused-by-kafka",
        ),
    },
    by="publisher",
)
PUBLISH_COPIES = Metric(
    "breaker_publish_copies_total",
    "counter",
    "Copies of records that go to two clusters, by cluster and whether it has confirmed them.",
    {"topic": (), "cluster": ("first", "second"), "outcome": ("confirmed", "missed")},
    by="publisher",
)
PUBLISH_OUTSTANDING = Metric(
    "breaker_publish_outstanding_records",
    "gauge",
    "Records taken in and not answered yet.",
    _TOPIC,
    by="publisher",
)
PUBLISH_DIRECT = Metric(
    "breaker_publish_direct",
    "gauge",
    "1 while records go straight to Kafka, 0 while they don't because it fails.",
    _TOPIC,
    by="publisher",
)
SPOOL_RECORDS = Metric(
    "breaker_spool_records",
    "gauge",
    "Records in the spool that wait for Kafka.",
    _TOPIC,
    by="publisher",
)
SPOOL_BYTES = Metric(
    "breaker_spool_bytes",
    "gauge",
    "Bytes of the records that wait.",
    _TOPIC,
    by="publisher",
)
SPOOL_OLDEST = Metric(
    "breaker_spool_oldest_age_seconds",
    "gauge",
    "Age of the oldest record that waits.",
    _TOPIC,
    by="publisher",
)
SPOOL_PAUSED = Metric(
    "breaker_spool_paused",
    "gauge",
    "1 while a topic's replay is made to stand still.",
    _TOPIC,
    by="publisher",
)
SPOOL_REPLAYED = Metric(
    "breaker_spool_replayed_records_total",
    "counter",
    "Records brought from the spool to Kafka.",
    _TOPIC,
    by="publisher",
)
SPOOL_REPLAY_RATE = Metric(
    "breaker_spool_replay_records_per_second",
    "gauge",
    "How fast the backlog is replayed now, all topics together.",
    by="publisher",
)
SPOOL_END = Metric(
    "breaker_spool_replay_left_seconds",
    "gauge",
    "Estimated time until the backlog is replayed; +Inf while it doesn't shrink.",
    by="publisher",
)
SPOOL_ORPHANS = Metric(
    "breaker_spool_orphans",
    "gauge",
    "Spools of others beside this one that hold records and could not be adopted.",
    by="publisher",
)
SPOOL_WRITABLE = Metric(
    "breaker_spool_writable",
    "gauge",
    "1 while the spool takes records; 0 after a failed sync, until a restart.",
    by="publisher",
)
SPOOL_LETTERS = Metric(
    "breaker_spool_dead_letter_bytes",
    "gauge",
    "Size of the file of dead letters, which all sidecars of a folder share.",
    by="publisher",
)

# --- this process ----------------------------------------------------------------------------
LOG_LINES_DROPPED = Metric(
    "breaker_log_lines_dropped_total",
    "counter",
    "Log lines given up because nobody was reading the log.",
)

METRICS: tuple[Metric, ...] = tuple(m for m in globals().copy().values() if isinstance(m, Metric))

# --- the daemon's life -----------------------------------------------------------------------
STARTING = Event("starting", "The daemon starts: version, instance, store, breakers.")
START_FAILED = Event("start_failed", "The daemon can't start, and why.")
STARTED = Event("started", "Everything runs.")
STOPPING = Event("stopping", "A stop was asked for, and by what.")
STOPPED = Event("stopped", "Everything has ended in order, and how long it took.")
STOP_OVERRAN = Event("stop_overran", "A part did not stop within its time and was abandoned.")
STATE_FILE_FAILED = Event(
    "state_file_failed", "The state file can't be written; said once until it can."
)
TASK_FAILED = Event("task_failed", "A background task ended with a defect; it is started again.")
CONFIG_WARNING = Event("config_warning", "A setting is legal and unwise.")
CONFIG_RELOADED = Event("config_reloaded", "Another configuration is in effect.")
CONFIG_REFUSED = Event("config_refused", "A configuration was refused whole; the old one stays.")
REQUEST_FAILED = Event("request_failed", "A request met a defect and was answered with 500.")

# --- the breaker -----------------------------------------------------------------------------
TRANSITION = Event("transition", "A breaker changed its state, with reason and evidence.")
STEP = Event("ratio_step", "A breaker admits another share, without a transition.")
DECISION = Event("decision", "What is in force here differs from before without a transition.")
CREATED = Event("state_created", "No state record was there, and one was written.")
FOREIGN_WRITE = Event("foreign_write", "Something other than a sidecar wrote the state.")
BAD_STATE = Event("bad_state", "The state record can't be read; it changes nothing.")
BAD_HISTORY = Event("bad_history", "The history can't be read and is begun anew.")
BAD_REPORT = Event("bad_report", "A report can't be used; said once a key.")
NEWER_SCHEMA = Event("newer_schema", "The record's schema is newer than this code: only followed.")
MISMATCH = Event("config_mismatch", "The state was written under another configuration.")
MISMATCH_OVER = Event("config_mismatch_over", "State and configuration agree again.")
STATE_MISSING = Event("state_missing", "The state key is gone; what was in force stays.")
REFRESHED = Event(
    "state_refreshed", "An override or the mode began or ended, and the record says so now."
)
OVERRIDE_HOLDS = Event(
    "override", "A breaker is forced, by whom and why; said again every ten minutes."
)
OVERRIDE_OVER = Event("override_over", "A breaker is not forced any more.")
BAD_OVERRIDE = Event("bad_override", "An override can't be used and changes nothing; said once.")
OVERRIDE_KEPT = Event(
    "override_kept", "An override is over here, but its key can't be deleted yet; said once."
)
FORGOTTEN = Event("forgotten", "A breaker was closed and its keys were deleted.")
NORMAL_UNSAVED = Event(
    "normal_unsaved", "What auto has learned can't be read or stored, and why; said once."
)
REPORTER_DROPPED = Event("reporter_dropped", "A key silent for report_gc was deleted.")

# --- the lock --------------------------------------------------------------------------------
ELECTED = Event("elected", "This sidecar is a breaker's evaluator now.")
STOOD_DOWN = Event("stood_down", "This sidecar is no longer the evaluator, and why.")
LOCK_BROKEN = Event("lock_broken", "Somebody overwrote the lock key without holding it.")
WRITE_REFUSED = Event("write_refused", "The store refused a write: the lock or the record moved.")
FAST_TAKEOVER_OFF = Event(
    "fast_takeover_off", "No check can be had at the local agent, and why; said once."
)
EVALUATION_FAILED = Event("evaluation_failed", "A breaker could not be evaluated now.")

# --- the store -------------------------------------------------------------------------------
STORE_LOST = Event("store_lost", "The store has stopped answering; said once when it begins.")
STORE_BACK = Event("store_back", "The store answers again; said once when it ends.")
STORE_DENIED = Event("store_denied", "The token lacks a right, and which.")
STORE_REWOUND = Event("store_rewound", "The store's index went back (a restored snapshot).")
REPORTS_EMPTY = Event("reports_empty", "All reports vanished at once: a token may lack its right.")
REPORT_UNWRITTEN = Event("report_unwritten", "A local report could not be written yet.")

# --- the catalog -----------------------------------------------------------------------------
SERVICE_REGISTERED = Event(
    "service_registered", "The local agent has the service now: for the first time, or again."
)
SERVICE_UNREGISTERED = Event(
    "service_unregistered", "The service can't be registered, and why; said once until it can."
)

# --- the spool -------------------------------------------------------------------------------
SPOOL_CLOSED = Event(
    "spool_closed",
    "A sync failed: the spool takes nothing more until a restart, and goes on being delivered.",
)
SPOOL_DAMAGED = Event(
    "spool_damaged", "Bytes of a segment are no record; they were copied to the quarantine."
)
SPOOL_LEDGER_LOST = Event(
    "spool_ledger_lost", "Progress could not be read; what was delivered is delivered again."
)
SPOOL_UNTIDY = Event(
    "spool_untidy", "The spool can't write its progress or give room back yet, and why."
)
SPOOL_ADOPTED = Event("spool_adopted", "The records of a spool whose daemon is gone are ours now.")
SPOOL_ORPHANED = Event("spool_orphaned", "A spool beside ours can't be taken over, and why.")

# --- Kafka -----------------------------------------------------------------------------------
KAFKA_LOST = Event("kafka_lost", "Kafka gives no answer about lag; said once when it begins.")
KAFKA_BACK = Event("kafka_back", "Kafka answers about lag again; said once when it ends.")
LAG_UNKNOWN = Event("lag_unknown", "One breaker's lag can't be read, and why; said once.")
PROBE_FAILED = Event(
    "probe_failed", "A canary failed through a broker, and why; said once until one comes back."
)
PROBE_BACK = Event("probe_back", "Canaries come back through a broker again.")
PROBE_UNKNOWN = Event("probe_unknown", "No canary can be sent, and why; said once a reason.")
PROBE_TOPIC_MADE = Event(
    "probe_topic_made", "The topic for canaries, or a partition of it, was made for brokers."
)
PROBE_TOPIC_FAILED = Event(
    "probe_topic_failed", "The topic for canaries can't be made or extended; said once until it is."
)

# --- publishing ------------------------------------------------------------------------------
PUBLISH_BROKEN = Event("publish_broken", "Kafka doesn't take a topic's records; said once.")
PUBLISH_MENDED = Event("publish_mended", "Kafka takes a topic's records again.")
PUBLISH_DROPPED = Event("publish_dropped", "Records were given up: how many, and why the last.")
PUBLISH_REFUSED = Event("publish_refused", "Records were refused: how many, and why the last.")
PUBLISH_PARTITIONS = Event(
    "publish_partitions", "Records of a topic are placed by this number of partitions from now on."
)
TOPIC_GONE = Event(
    "topic_gone",
    "Kafka has had no such topic for long enough: what waits for it is set aside from now on.",
)
SPOOL_UNUSABLE = Event("spool_unusable", "The spool can't be opened, and why.")
REPLAY_WAITS = Event("replay_waits", "A partition's replay failed, and is tried again later.")
REPLAY_STOPPED = Event(
    "replay_stopped", "A partition's backlog can't be read now, or its dead letters not be kept."
)
REPLAY_UNNOTED = Event("replay_unnoted", "Progress can't be written; a restart replays it again.")
DEAD_LETTER = Event("dead_letter", "Kafka will never take a record of the spool; it is set aside.")

# --- the log itself --------------------------------------------------------------------------
LIBRARY = Event("library", "A library's own log record; what it repeats is said once a minute.")
LOG_DROPPED = Event("log_lines_dropped", "Lines were given up because nobody read the log.")
METRIC_MISUSED = Event("metric_misused", "A defect here: a metric was counted with wrong labels.")

EVENTS: tuple[Event, ...] = tuple(e for e in globals().copy().values() if isinstance(e, Event))
