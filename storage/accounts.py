"""Users, their sessions and one-time links. Passwords arrive hashed; tokens are stored as SHA-256 only."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from storage.enums import LinkPurpose, Role
from storage.errors import Conflict, Invalid, NotFound
from storage.models import Identity, OneTimeLink, User, UserSession, utc_now

MAX_NAME = 120
MAX_AGENT, MAX_ADDRESS = 300, 64
# People look for a browser they do not know: a minute is exact enough, and saves a write per request.
SEEN_NOTED_EVERY = timedelta(minutes=1)


def clean_name(name: str, what: str = "name") -> str:
    """`name` without surrounding space; raises `Invalid` when empty, too long or with control characters."""
    cleaned = name.strip()
    if not cleaned:
        raise Invalid(f"the {what} is empty; give one")
    if len(cleaned) > MAX_NAME:
        raise Invalid(f"the {what} has {len(cleaned)} characters; at most {MAX_NAME} are allowed")
    if not cleaned.isprintable():
        raise Invalid(f"the {what} holds a control character; use letters, digits and signs")
    return cleaned


def create_user(session: Session, name: str, role: Role, password_hash: str | None = None) -> User:
    """Add a person; raises `Conflict` when the name is taken. Without a password only a one-time link signs in."""
    user = User(name=clean_name(name, "user name"), role=Role(role), password_hash=password_hash)
    taken = Conflict(f"the user name '{user.name}' is taken; choose another")
    if find_user(session, user.name) is not None:
        raise taken
    try:
        with session.begin_nested():
            session.add(user)
    except IntegrityError as error:
        raise taken from error
    return user


def find_user(session: Session, name: str) -> User | None:
    """The user of that name, or None."""
    if not name.isprintable():  # PostgreSQL takes no NUL, not even in a question
        return None
    return session.scalar(_BY_NAME, {"name": name.strip()})


_BY_NAME = select(User).where(User.name == bindparam("name"))


def get_user(session: Session, name: str) -> User:
    """The user of that name; raises `NotFound`."""
    user = find_user(session, name)
    if user is None:
        raise NotFound(f"there is no user '{name}'; see: feedback-app user list")
    return user


def list_users(session: Session) -> list[User]:
    """Every user by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def set_password_hash(session: Session, user: User, password_hash: str) -> None:
    """Replace the password. The caller decides whether other sessions end (`close_sessions_of`)."""
    user.password_hash = password_hash
    session.flush()


def disable_user(session: Session, user: User, *, now: datetime | None = None) -> None:
    """Bar a person: sessions end at once, links stop working; what they wrote stays."""
    user.disabled_at = user.disabled_at or now or utc_now()
    session.flush()
    close_sessions_of(session, user)


def enable_user(session: Session, user: User) -> None:
    """Let a disabled person in again; raises `Conflict` for one who was erased."""
    if user.erased_at is not None:
        raise Conflict(f"{user.name} was erased; add a new account instead")
    user.disabled_at = None
    session.flush()


def issue_link(
    session: Session, user: User, purpose: LinkPurpose, lifetime: timedelta, *, now: datetime | None = None
) -> str:
    """A new one-time token; it is returned once and cannot be read again. Older links of that purpose stop working."""
    moment = now or utc_now()
    session.execute(
        update(OneTimeLink)
        .where(OneTimeLink.user_id == user.id, OneTimeLink.purpose == purpose, OneTimeLink.used_at.is_(None))
        .values(used_at=moment)
    )
    token = secrets.token_urlsafe(32)
    session.add(
        OneTimeLink(
            user_id=user.id, token_hash=_digest(token), purpose=purpose, created_at=moment, expires_at=moment + lifetime
        )
    )
    session.flush()
    return token


def redeem_link(session: Session, token: str, *, now: datetime | None = None) -> User:
    """Use up a token and return its user; raises `Invalid` when unknown, used, expired, or the user is disabled.

    Of two that redeem at the same moment one wins: the row is claimed by a single conditional UPDATE.
    """
    moment = now or utc_now()
    link = session.execute(
        update(OneTimeLink)
        .where(
            OneTimeLink.token_hash == _digest(token),
            OneTimeLink.used_at.is_(None),
            OneTimeLink.expires_at > moment,
        )
        .values(used_at=moment)
        .returning(OneTimeLink.user_id)
        .execution_options(synchronize_session=False)
    ).scalar_one_or_none()
    user = session.get(User, link) if link is not None else None
    if user is None or user.disabled_at is not None:
        raise Invalid(f"{_why_not(session, token, user)}; ask an operator for a new one")
    return user


def _why_not(session: Session, token: str, user: User | None) -> str:
    # Whoever holds the token may know: it tells nothing to those who only guess.
    if user is not None:
        return "the account of this link is disabled"
    link = session.execute(select(OneTimeLink.used_at).where(OneTimeLink.token_hash == _digest(token))).one_or_none()
    if link is None:
        return "this link is not complete, or was never made here"
    return "this link was used before, or a newer one took its place" if link.used_at else "this link has expired"


def find_link(session: Session, token: str, *, now: datetime | None = None) -> OneTimeLink | None:
    """The still usable link behind a token, without using it up; None otherwise."""
    return session.scalar(
        select(OneTimeLink).where(
            OneTimeLink.token_hash == _digest(token),
            OneTimeLink.used_at.is_(None),
            OneTimeLink.expires_at > (now or utc_now()),
        )
    )


def open_session(
    session: Session,
    user: User,
    lifetime: timedelta,
    *,
    user_agent: str = "",
    address: str = "",
    now: datetime | None = None,
) -> str:
    """Sign a browser in: returns the token for its cookie. The user's expired sessions are swept away.

    `user_agent` and `address` are what the browser says of itself: kept for the person's own list of sessions.
    """
    moment = now or utc_now()
    session.execute(delete(UserSession).where(UserSession.user_id == user.id, UserSession.expires_at <= moment))
    token = secrets.token_urlsafe(32)
    session.add(
        UserSession(
            user_id=user.id,
            token_hash=_digest(token),
            user_agent="".join(letter for letter in user_agent if letter.isprintable())[:MAX_AGENT],
            address=address[:MAX_ADDRESS],
            created_at=moment,
            last_seen_at=moment,
            expires_at=moment + lifetime,
        )
    )
    session.flush()
    return token


def session_user(session: Session, token: str, *, now: datetime | None = None) -> User | None:
    """The user behind a cookie; None when unknown, expired or disabled."""
    found = find_session(session.connection(), token, now=now)
    return session.get(User, found.user_id) if found else None


class Found(NamedTuple):
    """The session behind a cookie, and whose it is."""

    id: int
    last_seen_at: datetime | None
    user_id: int
    name: str
    role: Role
    language: str | None


def find_session(connection: Connection, token: str, *, now: datetime | None = None) -> Found | None:
    """The session behind a cookie; None as in `session_user`. One look-up by index: every request asks."""
    row = connection.execute(_BY_TOKEN, {"token": _digest(token), "now": now or utc_now()}).one_or_none()
    return Found(*row) if row else None


_BY_TOKEN = (
    select(UserSession.id, UserSession.last_seen_at, User.id, User.name, User.role, User.language)
    .join(UserSession.user)
    .where(
        UserSession.token_hash == bindparam("token"),
        UserSession.expires_at > bindparam("now"),
        User.disabled_at.is_(None),
    )
)


def note_seen(session: Session, session_id: int, *, now: datetime | None = None) -> None:
    """Note that a browser was here, unless that was noted within the last minute."""
    moment = now or utc_now()
    stale = or_(UserSession.last_seen_at.is_(None), UserSession.last_seen_at <= moment - SEEN_NOTED_EVERY)
    session.execute(update(UserSession).where(UserSession.id == session_id, stale).values(last_seen_at=moment))


def list_sessions(session: Session, user: User, *, now: datetime | None = None) -> list[UserSession]:
    """The browsers in which `user` is signed in, the one seen last first."""
    query = select(UserSession).where(UserSession.user_id == user.id, UserSession.expires_at > (now or utc_now()))
    return list(session.scalars(query.order_by(UserSession.last_seen_at.desc(), UserSession.id.desc())))


def end_session(session: Session, user: User, session_id: int) -> None:
    """Sign one browser of `user` out by its number; raises `NotFound`, also for another person's."""
    gone = session.execute(
        delete(UserSession)
        .where(UserSession.id == session_id, UserSession.user_id == user.id)
        .returning(UserSession.id)
    ).all()
    if not gone:
        raise NotFound("that browser is signed out already")


def close_session(session: Session, token: str) -> None:
    """Sign one browser out; unknown tokens are ignored."""
    session.execute(delete(UserSession).where(UserSession.token_hash == _digest(token)))


def close_sessions_of(session: Session, user: User) -> None:
    """Sign a person out everywhere."""
    session.execute(delete(UserSession).where(UserSession.user_id == user.id))


def find_identity(session: Session, issuer: str, subject: str) -> User | None:
    """The user whom an OpenID Connect provider knows as `subject`, or None."""
    query = select(User).join(Identity, Identity.user_id == User.id)
    return session.scalar(query.where(Identity.issuer == issuer, Identity.subject == subject))


def has_identity(session: Session, user: User) -> bool:
    """Whether `user` signs in through an OpenID Connect provider."""
    return session.scalar(select(Identity.id).where(Identity.user_id == user.id).limit(1)) is not None


def users_by_provider(session: Session) -> frozenset[int]:
    """The ids of all who sign in through an OpenID Connect provider."""
    return frozenset(session.scalars(select(Identity.user_id)))


def create_from_identity(session: Session, issuer: str, subject: str, wished: str, role: Role) -> User:
    """A new user for somebody a provider vouches for, called `wished` or, where that is taken, `wished-2` and so on.

    A name that is taken is never taken over: whoever can choose a name at the provider is not therefore that person.
    Of two at the same moment one makes the user and the other finds it.
    """
    name = free_name(session, wished)
    try:
        with session.begin_nested():
            user = create_user(session, name, role)
            session.add(Identity(user_id=user.id, issuer=issuer, subject=subject))
    except IntegrityError:
        found = find_identity(session, issuer, subject)
        if found is None:
            raise
        return found
    return user


def free_name(session: Session, wished: str) -> str:
    """`wished` without what a name cannot hold, and with a number where it is taken."""
    base = " ".join("".join(letter for letter in wished if letter.isprintable()).split())[: MAX_NAME - 10] or "user"
    numbered = (f"{base}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain([base], numbered) if find_user(session, name) is None)


def _digest(token: str) -> str:
    # The tokens are 256 random bits: a plain hash is enough, nobody can guess their way back.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
