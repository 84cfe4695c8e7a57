"""What the admin API answers about webhooks and their deliveries, as schemas."""

from __future__ import annotations

from uuid import UUID

from msgspec import Struct

from gateway.access.admin_tokens import Role
from gateway.admin.api.answers import Moment, Secret, fields_of
from gateway.alerts.deliveries import Delivery, DeliveryState
from gateway.alerts.messages import Event, Format
from gateway.alerts.webhooks import Webhook


class WebhookAnswer(Struct, frozen=True, kw_only=True):
    """A webhook. Viewers see of its address no more than the host: the rest may be a secret, as it is with Slack."""

    id: UUID
    url: str
    format: Format
    kinds: tuple[str, ...] | None
    enabled: bool
    disabled_reason: str | None
    created_at: Moment


class NewWebhookAnswer(WebhookAnswer, frozen=True, kw_only=True):
    """A new webhook with the secret its messages are signed with."""

    secret: Secret


class DeliveryAnswer(Struct, frozen=True, kw_only=True):
    """A message to a webhook; `message_id` is its `webhook-id`. `next_try_at` is null unless it is pending."""

    id: UUID
    message_id: str
    webhook_id: UUID
    alert_id: UUID | None
    event: Event
    state: DeliveryState
    tries: int
    next_try_at: Moment | None
    last_status: int | None
    last_error: str | None
    last_tried_at: Moment | None
    delivered_at: Moment | None
    created_at: Moment


def of_webhook(webhook: Webhook, role: Role) -> WebhookAnswer:
    url = webhook.url if role == "admin" else f"{webhook.origin}/…"
    return WebhookAnswer(**(fields_of(webhook) | {"url": url}))


def of_new_webhook(webhook: Webhook, secret: str) -> NewWebhookAnswer:
    return NewWebhookAnswer(**fields_of(webhook), secret=secret)


def of_delivery(delivery: Delivery) -> DeliveryAnswer:
    next_try = delivery.next_try_at if delivery.state == "pending" else None
    return DeliveryAnswer(**(fields_of(delivery) | {"next_try_at": next_try}), message_id=delivery.message_id)
