"""Webhooks: what happens that others may be told of, the outbox, and how messages leave. Its tables are the API's."""
