"""Tokens of programs, webhooks, and the outbox of what is to be sent to them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from webapp.lib import bounds


class Scope(models.TextChoices):
    """What a token may do, as far as its owner may: each is apart, and `admin` has the others in it."""

    READ = "read", _("Read: project, prompts, groups, images, labels, versions, rounds, exports")
    LABEL = "label", _("Label: take groups and decide on them")
    ADMIN = "admin", _("Admin: prompts, reasons, people, rounds, versions, imports, webhooks")


class ApiToken(models.Model):
    """A program's key to one project. Only its hash is kept."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="api_tokens")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80)
    scopes = models.JSONField(default=list)
    token_hash = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=12, help_text="The token's first characters, to know it by.")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


class Webhook(models.Model):
    """An address that is told what happens, each message signed with `secret`."""

    project = models.ForeignKey("campaigns.Project", on_delete=models.CASCADE, related_name="webhooks")
    url = models.URLField(max_length=500)
    secret = models.CharField(max_length=64)
    events = models.JSONField(default=list)
    every = models.PositiveIntegerField(
        default=100, validators=bounds.EVERY.validators, help_text="Labelled groups between two milestones."
    )
    announced = models.PositiveIntegerField(default=0, help_text="Labelled groups at the last milestone.")
    active = models.BooleanField(default=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.url


class DeliveryState(models.TextChoices):
    """Pending ones are tried again until they arrive or have been tried too often."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Delivery(models.Model):
    """One message of the outbox, written in the transaction of what it tells; `key` makes it one."""

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=30)
    key = models.CharField(max_length=80)
    payload = models.JSONField()
    state = models.CharField(max_length=10, choices=DeliveryState, default=DeliveryState.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True, help_text="HTTP status of the last try.")
    error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    delivered_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        constraints = [models.UniqueConstraint(fields=["webhook", "key"], name="one_delivery_a_key")]
        indexes = [models.Index(fields=["state", "next_at"])]
