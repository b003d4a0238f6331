"""Devices and operators are known by their tokens, which are kept nowhere."""

from __future__ import annotations

import pytest

from cloud_pruner.errors import NameTakenError, RequestError, UnknownNameError
from cloud_pruner.state import Devices, Operators
from cloud_pruner.state.tables import now
from tests.support.waiting import until


class TestDevices:
    def test_a_token_tells_who_asks(self, database):
        devices = Devices(database)
        porch, yard = devices.register("porch"), devices.register("yard", "birds")
        assert devices.by_token(porch).name == "porch"
        assert devices.by_token(yard) == devices.get("yard")
        assert devices.get("yard").model == "birds"
        assert devices.by_token(porch[:-1]) is None
        assert devices.get("shed") is None

    def test_tokens_are_kept_nowhere(self, database, url, request):
        devices = Devices(database)
        tokens = [devices.register("porch"), devices.new_token("porch"), Operators(database).create("ada")]
        assert devices.by_token(tokens[1]) is not None
        if url.startswith("sqlite"):
            folder = request.getfixturevalue("tmp_path")
            stored = b"".join(path.read_bytes() for path in folder.glob("state.sqlite*"))
        else:
            with database.reading() as connection:
                tables = [row[0] for row in connection.exec_driver_sql("SELECT tablename FROM pg_tables "
                          "WHERE schemaname = 'public'")]  # fmt: skip
                stored = b"".join(
                    str(connection.exec_driver_sql(f"SELECT * FROM {table}").all()).encode() for table in tables
                )
        assert b"porch" in stored
        for token in tokens:
            assert token.encode() not in stored

    def test_a_name_is_taken_once(self, database, elsewhere):
        token = Devices(database).register("porch")
        with pytest.raises(NameTakenError, match="there is a device 'porch' already"):
            Devices(elsewhere).register("porch")
        assert Devices(elsewhere).by_token(token).name == "porch"

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "a" * 65, "a\n", "\0"])
    def test_a_name_that_is_none(self, database, name):
        with pytest.raises(RequestError, match="is no name for a device"):
            Devices(database).register(name)
        assert Devices(database).get(name) is None

    def test_a_revocation_counts_in_every_process(self, database, elsewhere):
        here, there = Devices(database), Devices(elsewhere)
        token = here.register("porch")
        assert there.by_token(token).name == "porch"
        here.revoke("porch")
        assert here.by_token(token) is None
        until(lambda: there.by_token(token) is None)
        assert there.get("porch").revoked

    def test_a_new_token_replaces_the_former_and_readmits(self, database):
        devices = Devices(database)
        former = devices.register("porch")
        devices.revoke("porch")
        token = devices.new_token("porch")
        assert devices.by_token(former) is None
        assert devices.by_token(token).revoked is False

    def test_what_nobody_registered_cannot_be_changed(self, database):
        for change in (Devices(database).revoke, Devices(database).new_token):
            with pytest.raises(UnknownNameError, match="there is no device 'shed'"):
                change("shed")

    def test_pages_by_name(self, database):
        devices = Devices(database)
        for name in ("b_2", "a1", "b12", "C3", "b%4"[:1] + ".4"):
            devices.register(name, "birds" if name == "a1" else "")
        first = devices.all(limit=2)
        rest = devices.all(after=first[-1].name, limit=10)
        names = [device.name for device in (*first, *rest)]
        assert sorted(names) == sorted(["b_2", "a1", "b12", "C3", "b.4"])
        assert len(first) == 2
        assert [device.name for device in devices.all(search="B_")] == ["b_2"]
        assert [device.name for device in devices.all(search="bird")] == ["a1"]
        assert devices.count() == 5

    def test_when_devices_were_seen_is_written_without_anybody_waiting(self, database, elsewhere):
        devices, before = Devices(database), now()
        for name in ("porch", "yard"):
            devices.register(name)
            devices.saw(name)
        devices.saw("porch", "cut c0de:\nit was slow")
        devices.saw("never registered")
        devices.close()
        porch, yard = Devices(elsewhere).all()
        assert before <= yard.last_seen <= porch.last_seen <= now()
        assert porch.rolled_back == "cut c0de: it was slow"


class TestOperators:
    def test_come_and_go(self, database, elsewhere):
        here, there = Operators(database), Operators(elsewhere)
        token = here.create("ada")
        assert there.by_token(token) == "ada"
        assert list(there.all()) == ["ada"]
        with pytest.raises(NameTakenError, match="there is an operator 'ada' already"):
            there.create("ada")
        here.revoke("ada")
        assert here.by_token(token) is None
        until(lambda: there.by_token(token) is None)
        with pytest.raises(UnknownNameError, match="there is no operator 'ada'"):
            here.revoke("ada")
