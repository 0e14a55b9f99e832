"""The queue: items to be judged. Who holds one stands in `storage.leases`, which comes next in `storage.selection`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from storage.enums import ItemKind, ItemStatus
from storage.errors import Invalid
from storage.leases import (
    Lease,
    flag,
    get_lease,
    hold,
    lease_next,
    lock_item,
    own_assignment,
    renew,
    skip,
    texts_of,
)
from storage.models import Completion, Item, ItemCompletion, Prompt, User
from storage.prompts import Added, insert_once, text_hash
from storage.queue import QueueCounts, mark_stale, prompts_to_generate, queue_counts

__all__ = [
    "Lease",
    "QueueCounts",
    "add_item",
    "flag",
    "get_lease",
    "hold",
    "lease_next",
    "lock_item",
    "mark_stale",
    "own_assignment",
    "prompts_to_generate",
    "queue_counts",
    "renew",
    "skip",
    "texts_of",
]

# How many completions an item of a kind has, at least and at most.
_SIZES: dict[ItemKind, tuple[int, int | None]] = {
    ItemKind.PAIR: (2, None),
    ItemKind.SINGLE: (1, 1),
    ItemKind.RANKING: (3, 8),
}


def add_item(
    session: Session,
    prompt: Prompt,
    completions: Sequence[Completion],
    kind: ItemKind = ItemKind.PAIR,
    *,
    owner: User | None = None,
) -> Added[Item]:
    """Put completions of one prompt up for judgement; the same ones a second time are a no-op.

    A pair takes two or more distinct completions, a ranking 3 to 8, a single exactly one; raises `Invalid` otherwise.
    With `owner` it is for that person alone and stays outside the queue.
    """
    ids = [completion.id for completion in completions]
    if len(set(ids)) < len(ids) or any(completion.prompt_id != prompt.id for completion in completions):
        raise Invalid("an item takes distinct completions of its own prompt")
    least, most = _SIZES.get(kind, (1, None))
    if len(ids) < least or (most is not None and len(ids) > most):
        raise Invalid(f"an item of kind '{kind}' cannot have {len(ids)} completions")
    whose = f":{owner.id}" if owner else ""
    fingerprint = text_hash(f"{kind}{whose}:{','.join(map(str, sorted(ids)))}")
    values: dict[str, Any] = {"project_id": prompt.project_id, "kind": kind}
    if owner is not None:
        values |= {"owner_id": owner.id, "wanted": 1, "status": ItemStatus.OWN}
    added = insert_once(
        session,
        Item,
        {"prompt_id": prompt.id, "fingerprint": fingerprint},
        values,
    )
    if added.created:
        session.add_all(
            ItemCompletion(item_id=added.row.id, position=position, completion_id=completion_id)
            for position, completion_id in enumerate(ids)
        )
        session.flush()
    return added
