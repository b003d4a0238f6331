"""The tables of the service's state, the same in SQLite and PostgreSQL.

Every name begins with `capnn_`: a PostgreSQL database may hold other tables too. Moments are whole microseconds since
1970, which both databases order and compare alike.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

if TYPE_CHECKING:
    from sqlalchemy import Dialect

__all__ = [
    "BASES",
    "CURRENT",
    "CUTS",
    "DEVICES",
    "FILES",
    "JOBS",
    "MANIFESTS",
    "METADATA",
    "OPERATORS",
    "PROFILES",
    "ROLLOUTS",
    "SCHEMA_VERSION",
    "STATE",
    "now",
]

SCHEMA_VERSION: Final = 1

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc)


class _Moment(TypeDecorator[datetime]):
    """A time with its zone, as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, _dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + int(value) * _MICROSECOND


METADATA: Final = MetaData()

# SQLite counts rows by itself only in a column of exactly this type.
_COUNTED = BigInteger().with_variant(Integer, "sqlite")
_DIGEST = String()
_NAME = String()

STATE: Final = Table(
    "capnn_state",
    METADATA,
    Column("version", Integer, nullable=False),
    Column("revocations", BigInteger, nullable=False),  # rises whenever a token counts no longer
)

DEVICES: Final = Table(
    "capnn_devices",
    METADATA,
    Column("name", _NAME, primary_key=True),
    Column("model", _NAME, nullable=False),
    Column("token", _DIGEST, nullable=False, unique=True),  # its sha256
    Column("registered", _Moment, nullable=False),
    Column("last_seen", _Moment),
    Column("revoked", Boolean, nullable=False),
    Column("rolled_back", Text, nullable=False),
)

OPERATORS: Final = Table(
    "capnn_operators",
    METADATA,
    Column("name", _NAME, primary_key=True),
    Column("token", _DIGEST, nullable=False, unique=True),  # its sha256
    Column("created", _Moment, nullable=False),
)

ROLLOUTS: Final = Table(
    "capnn_rollouts",
    METADATA,
    Column("model", _NAME, primary_key=True),
    Column("current", _DIGEST, nullable=False),
    Column("candidate", _DIGEST),
    Column("share", Float, nullable=False),
)

# Which profiles the settings of the service that started last list.
PROFILES: Final = Table(
    "capnn_profiles",
    METADATA,
    Column("model", _NAME, primary_key=True),
    Column("profile", _DIGEST, primary_key=True),
)

JOBS: Final = Table(
    "capnn_jobs",
    METADATA,
    Column("number", _COUNTED, primary_key=True, autoincrement=True),  # the order in which they are taken
    Column("id", _DIGEST, nullable=False, unique=True),
    Column("device", _NAME, nullable=False),
    Column("state", String(), nullable=False),
    Column("submitted", _Moment, nullable=False),
    Column("finished", _Moment),
    Column("request", LargeBinary, nullable=False),
    Column("answer", LargeBinary),
    Column("error", Text, nullable=False),
    Column("taken", Integer, nullable=False),  # how often
    Column("worker", Text),
    Column("until", _Moment),  # of the lease
    Index("capnn_jobs_in_turn", "state", "number"),
)

# What was named to each device, and when.
CUTS: Final = Table(
    "capnn_cuts",
    METADATA,
    Column("number", _COUNTED, primary_key=True, autoincrement=True),
    Column("device", _NAME, nullable=False),
    Column("at", _Moment, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("plan", _DIGEST),
    Column("manifest", _DIGEST, nullable=False),
    Column("shortfall", Text, nullable=False),
    Index("capnn_cuts_of_device", "device", "number"),
    Index("capnn_cuts_by_digest", "device", "digest"),
    Index("capnn_cuts_by_plan", "device", "plan"),
)

# Many devices get the same cut: what is said of it is kept once.
MANIFESTS: Final = Table(
    "capnn_manifests",
    METADATA,
    Column("digest", _DIGEST, primary_key=True),  # of what is packed in `content`
    Column("content", LargeBinary, nullable=False),
)

# The last cut of each device, and how many it had: figures of a fleet come from here, without reading its history.
CURRENT: Final = Table(
    "capnn_current",
    METADATA,
    Column("device", _NAME, primary_key=True),
    Column("at", _Moment, nullable=False),
    Column("answer", _DIGEST, nullable=False),  # what of it tells one answer from the next
    Column("base", _DIGEST, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("relative_size", Float, nullable=False),
    Column("certified", Boolean, nullable=False),
    Column("cuts", BigInteger, nullable=False),
)

# Which plan makes which cut from which base. What two bases differ in may have been cut off: their cuts are one then.
FILES: Final = Table(
    "capnn_files",
    METADATA,
    Column("cut", _DIGEST, primary_key=True),
    Column("plan", _DIGEST, primary_key=True),
    Column("base", _DIGEST, nullable=False),
    Index("capnn_files_by_plan", "plan"),
)

BASES: Final = Table(
    "capnn_bases",
    METADATA,
    Column("digest", _DIGEST, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
)
