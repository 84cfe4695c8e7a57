"""What a page says on top after something was done: the word in its address, and the sentence for it."""

from __future__ import annotations

from gateway.pages.display import Text
from gateway.pages.language import N_

SENTENCES = {
    "team-created": N_("The team was created. Issue it a key next."),
    "team-updated": N_("The team was changed."),
    "team-suspended": N_("The team is suspended: every key of it is refused."),
    "team-resumed": N_("The keys of the team work again."),
    "quota-set": N_("The quota was set; it applies to the next call."),
    "quota-removed": N_("The quota was removed."),
    "key-updated": N_("The key was changed."),
    "key-revoked": N_("The key is revoked; within seconds no process accepts it."),
    "upstream-added": N_("The upstream key was added and is used from now on."),
    "upstream-updated": N_("The upstream key was changed."),
    "upstream-draining": N_("The upstream key takes no new paid calls."),
    "upstream-disabled": N_("The upstream key is not used any more."),
    "upstream-enabled": N_("The upstream key is used again."),
    "upstream-removed": N_("The upstream key was removed."),
    "hold-resolved": N_("The hold was resolved."),
    "webhook-disabled": N_("The webhook is disabled; what it still waited for was given up."),
    "webhook-enabled": N_("The webhook is sent to again, from the next alert on."),
    "webhook-updated": N_("The webhook was changed."),
    "webhook-tested": N_("A test message is on its way; see the deliveries."),
    "webhook-removed": N_("The webhook was removed."),
    "redelivered": N_("The message is sent once more."),
    "token-revoked": N_("The admin token is revoked, its sessions are over."),
    "session-ended": N_("The session is over."),
}


def notice(done: str | None, text: Text) -> str | None:
    """The sentence for what was done; None for nothing, or for a word nobody of us wrote."""
    sentence = SENTENCES.get(done or "")
    return None if sentence is None else text(sentence)
