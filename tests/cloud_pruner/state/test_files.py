"""Files by their digest: in a folder, in memory, and on an S3 server, all alike."""

from __future__ import annotations

import contextlib
import os
import threading

import fsspec
import pytest

from cloud_pruner.errors import MissingExtraError, StateError
from cloud_pruner.state import FileStore
from edge_runtime.digests import digest_of
from tests.support.disks import small_disk
from tests.support.s3 import s3_server

CONTENT = b"a plan" * 100
DIGEST = digest_of(CONTENT)


@pytest.fixture(scope="module")
def s3():
    with pytest.MonkeyPatch.context() as monkeypatch, s3_server(monkeypatch) as server:
        yield server


@pytest.fixture(params=["folder", "memory", "s3"])
def place(request, tmp_path):
    """The URL of a store, and what puts other content in the place of a file."""
    name = f"b{abs(hash(request.node.nodeid))}"
    if request.param == "folder":
        yield str(tmp_path / "files"), lambda digest, content: (tmp_path / "files" / digest).write_bytes(content)
    elif request.param == "memory":
        yield f"memory://{name}", lambda digest, content: fsspec.filesystem("memory").pipe(f"/{name}/{digest}", content)
    else:
        server = request.getfixturevalue("s3")
        url = server.make(name)
        yield url, lambda digest, content: server.replace(f"{url}/{digest}", content)


@pytest.fixture
def url(place):
    return place[0]


@pytest.fixture
def damage(place):
    return place[1]


class TestEveryStore:
    def test_returns_what_was_put(self, url):
        store = FileStore(url)
        assert store.get(DIGEST) is None
        assert not store.has(DIGEST)
        store.put(DIGEST, memoryview(CONTENT))
        assert store.get(DIGEST) == CONTENT
        assert store.has(DIGEST)
        store.ping()

    def test_outlasts_who_put_it(self, url):
        FileStore(url).put(DIGEST, CONTENT)
        assert FileStore(url).get(DIGEST) == CONTENT

    def test_putting_twice_changes_nothing(self, url):
        store = FileStore(url)
        threads = [threading.Thread(target=store.put, args=(DIGEST, CONTENT)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.get(DIGEST) == CONTENT

    def test_a_damaged_file_is_none_and_can_be_put_again(self, url, damage, caplog):
        store = FileStore(url)
        store.put(DIGEST, CONTENT)
        damage(DIGEST, CONTENT[:-1] + b"!")
        assert store.get(DIGEST) is None
        assert f"file {DIGEST} is damaged" in caplog.text
        assert not store.has(DIGEST)
        store.put(DIGEST, CONTENT)
        assert store.get(DIGEST) == CONTENT


class TestAFolder:
    def test_holds_nothing_but_whole_files(self, tmp_path):
        store = FileStore(str(tmp_path / "files"))
        store.put(DIGEST, CONTENT)
        assert sorted(os.listdir(tmp_path / "files")) == sorted([DIGEST, "capnn-files"])

    @pytest.mark.parametrize("left", ["nothing", "an empty folder"])
    def test_that_is_gone_is_no_empty_one(self, left, tmp_path):
        store = FileStore(str(tmp_path / "files"))
        store.put(DIGEST, CONTENT)
        (tmp_path / "files").rename(tmp_path / "away")
        if left == "an empty folder":  # a disk that is not mounted
            (tmp_path / "files").mkdir()
        for use in (
            lambda: store.get(DIGEST),
            lambda: store.has(DIGEST),
            lambda: store.put(DIGEST, CONTENT),
            store.ping,
        ):
            with pytest.raises(
                StateError, match="its file capnn-files is not there: see that the store is mounted"
            ) as raised:
                use()
            assert "\n" not in str(raised.value)
        assert not (tmp_path / "files" / DIGEST).exists()
        (tmp_path / "away").rename(tmp_path / "files")
        assert store.get(DIGEST) == CONTENT

    def test_on_a_full_disk(self, tmp_path):
        with small_disk(tmp_path / "disk", "256k") as disk:
            store = FileStore(str(disk / "files"))
            store.put(DIGEST, CONTENT)
            filler = disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            other = bytes(100_000)
            with pytest.raises(StateError, match="No space left on device"):
                store.put(digest_of(other), other)
            assert not store.has(digest_of(other))
            assert store.get(DIGEST) == CONTENT
            filler.unlink()
            store.put(digest_of(other), other)
            assert store.get(digest_of(other)) == other

    def test_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(StateError, match="see that the store is there"):
            FileStore(str(tmp_path / "file" / "files"))


class TestABucket:
    def test_that_vanishes_is_no_empty_one(self, s3):
        store = FileStore(s3.make("vanishing"))
        store.put(DIGEST, CONTENT)
        s3.remove("vanishing")
        for use in (
            lambda: store.get(DIGEST),
            lambda: store.has(DIGEST),
            lambda: store.put(DIGEST, CONTENT),
            store.ping,
        ):
            with pytest.raises(StateError, match="see that the store is mounted"):
                use()
        store = FileStore(s3.make("vanishing"))
        store.put(DIGEST, CONTENT)
        assert store.get(DIGEST) == CONTENT

    @pytest.mark.usefixtures("s3")
    def test_that_never_was(self):
        with pytest.raises(StateError, match="bucket does not exist"):
            FileStore("s3://never-made/service")


def test_a_store_that_nobody_knows():
    with pytest.raises(StateError, match="Protocol not known: nonsense"):
        FileStore("nonsense://x")
    with pytest.raises(MissingExtraError, match="install it"):
        FileStore("abfs://container/x")
