"""A SQLite file and a PostgreSQL server: what outlasts the service is the same in both."""

from __future__ import annotations

import pytest

from cloud_pruner.state import Database
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def shared_postgres():
    """One server for all tests that leave it alive; each takes an empty database."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.sqlite'}"
    import psycopg

    server = request.getfixturevalue("shared_postgres")
    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return server.url


@pytest.fixture
def database(url):
    with Database.open(url) as database:
        yield database


@pytest.fixture
def elsewhere(database, url):
    """The same database as another process has it open."""
    with Database.open(url) as opened:
        yield opened
