"""Cycles go on: whoever trains looks every second at those under way, from the thread of the schedule."""

from __future__ import annotations

import logging

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from storage.cycle import Installation, advance, fail, ready_cycles
from storage.engine import explain, read_only

log = logging.getLogger(__name__)


def advance_cycles(sessions: sessionmaker[Session], place: Installation) -> list[int]:
    """Advance every cycle that waits for nothing, each in a transaction of its own; returns those that moved.

    An error that nobody foresaw ends the cycle with one line, its traceback is in the worker's log; a store that is
    away is tried again at the next look.
    """
    with read_only(sessions) as session:
        waiting = ready_cycles(session)
    moved = []
    for run_id in waiting:
        try:
            with sessions.begin() as session:
                if advance(session, run_id, place):
                    moved.append(run_id)
        except DBAPIError:
            raise
        except Exception as error:  # whatever it is, the others go on
            known = explain(error)
            if known is None:
                log.exception("cycle %s", run_id)
            reason = known or f"{type(error).__name__}: {error}; the worker's log has the traceback"
            with sessions.begin() as session:
                fail(session, run_id, reason)
    return moved
