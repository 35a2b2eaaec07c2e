"""The tables of the database, as they are in this version."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text, false

metadata = MetaData()

requests = Table(
    "requests",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at", Float, nullable=False),  # seconds since 1970
    Column("day", String(10), nullable=False),  # UTC
    Column("session_id", String(64), nullable=False),
    Column("client", String(64), nullable=False),  # which key, never the key
    Column("organization", String(64), nullable=False),
    Column("route", String(64), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("decided_by", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("error_code", String(64), nullable=False),
    Column("failed", Boolean, nullable=False),  # an error that is not the client's own
    Column("stream", Boolean, nullable=False),
    Column("local", Boolean, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("usage_estimated", Boolean, nullable=False),
    Column("cost_usd", Float, nullable=False),  # as far as it is known
    Column("cost_unknown", Boolean, nullable=False),  # whether that is not all
    Column("cost_basis", String(64), nullable=False),
    Column("gpu_seconds", Float, nullable=False),
    Column("baseline_usd", Float, nullable=True),
    Column("ttft_ms", Float, nullable=True),
    Column("total_ms", Float, nullable=False),
    Column("cancel_ms", Float, nullable=True),
    Column("confidence", Float, nullable=True),  # of the decision, where that is known
    Column("local_only", Boolean, nullable=False, server_default=false()),
    Column("charged_usd", Float, nullable=True),  # to the budgets of its key, where it has any
    Index("requests_day", "day"),
    Index("requests_at", "at"),
)

egress = Table(
    "egress",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("request", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Column("day", String(10), nullable=False),
    Column("client", String(64), nullable=False),
    Column("organization", String(64), nullable=False),
    Column("backend", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes_sent", BigInteger, nullable=False),
    Column("bytes_received", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=True),
    Column("output_tokens", BigInteger, nullable=True),
    Column("cost_usd", Float, nullable=True),
    Index("egress_day", "day"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("started", Float, nullable=False),
    Column("seen", Float, nullable=False),
    Index("runs_seen", "seen"),
)

threads = Table(
    "threads",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("organization", String(64), nullable=False),
    Column("client", String(64), nullable=False),  # which key, never the key
    Column("title", String(200), nullable=False),
    Column("created_at", Float, nullable=False),  # seconds since 1970
    Column("updated_at", Float, nullable=False),
    Index("threads_owner", "organization", "client", "updated_at"),
)

thread_messages = Table(
    "thread_messages",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("thread", String(32), nullable=False),
    Column("position", BigInteger, nullable=False),  # messages of a thread are in this order
    Column("role", String(16), nullable=False),
    Column("content", Text, nullable=False),
    Column("reasoning", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float, nullable=True),
    Column("asked_for", String(256), nullable=False),  # the model that was named
    Column("request_id", String(128), nullable=False),
    Column("session_id", String(64), nullable=False),
    Column("details", JSON, nullable=False),  # route, model, who decided, tokens, cost, times: as the API shows them
    Column("error", JSON, nullable=True),  # OpenAI's error object
    Column("owner", String(64), nullable=True),  # the process that streams it
    Column("lease_until", Float, nullable=True),  # how long that process vouches for it
    Index("thread_messages_thread", "thread", "position"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("at", Float, nullable=False),
    Column("day", String(10), nullable=False),  # UTC
    Column("client", String(64), nullable=False),
    Column("organization", String(64), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("session_id", String(64), nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("decided", String(16), nullable=False),  # the label that the request had
    Column("label", String(16), nullable=True),  # the one that it should have had, as far as the verdict tells
    Column("messages", JSON, nullable=False),  # the conversation that was decided
    Column("local_only", Boolean, nullable=False, server_default=false()),
    Index("feedback_at", "at"),
)

responses = Table(
    "responses",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("client", String(64), primary_key=True),  # which key, never the key
    Column("at", Float, nullable=False),  # seconds since 1970
    Column("previous", String(128), nullable=True),  # the id of the turn before
    Column("input", Text, nullable=False),  # JSON: the input items of this turn
    Column("response", Text, nullable=False),  # JSON: the answer
    Index("responses_at", "at"),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("revision", Integer, nullable=False),  # grows with each change of the row
    Column("name", String(128), nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the secret, never the secret
    Column("shown", String(32), nullable=False),  # how the secret begins
    Column("old_digest", String(64), nullable=True),  # of the secret before, which is good until old_until
    Column("old_until", Float, nullable=True),
    Column("organization", String(64), nullable=False),  # empty: what the client says
    Column("user", String(128), nullable=False),
    Column("routes", JSON, nullable=False),
    Column("models", JSON, nullable=False),  # patterns
    Column("requests_per_minute", Integer, nullable=True),
    Column("tokens_per_minute", Integer, nullable=True),
    Column("concurrency", Integer, nullable=True),
    Column("daily_usd", Float, nullable=True),
    Column("monthly_usd", Float, nullable=True),
    Column("at_limit", String(16), nullable=False),
    Column("created_at", Float, nullable=False),  # seconds since 1970
    Column("expires_at", Float, nullable=True),
    Column("revoked_at", Float, nullable=True),
    Column("local_only", Boolean, nullable=False, server_default=false()),
    Column("quality", Integer, nullable=True),  # 0 to 10
)

judgements = Table(
    "judgements",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("at", Float, nullable=False),  # seconds since 1970
    Column("day", String(10), nullable=False),  # UTC
    Column("session_id", String(64), nullable=False),
    Column("route", String(64), nullable=False),
    Column("local", String(320), nullable=False),  # backend/model, as the next two
    Column("cloud", String(320), nullable=False),
    Column("judge", String(320), nullable=False),
    Column("winner", String(16), nullable=False),  # local, cloud, tie, none; empty: under way, or broken off
    Column("contradicted", Boolean, nullable=False),  # the judge preferred another answer once their order was changed
    Column("usd", Float, nullable=False),  # the most it can cost; what it has cost, once that is known
    Index("judgements_day", "day"),
    Index("judgements_session", "session_id"),
)
