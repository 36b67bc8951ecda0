"""Oracles stand in for people: images, prompts and metadata in; scores in 0..1 and reasons out."""

from trainer.oracles.base import Oracle, OracleError, Verdict
from trainer.oracles.registry import get_oracle

__all__ = ["Oracle", "OracleError", "Verdict", "get_oracle"]
