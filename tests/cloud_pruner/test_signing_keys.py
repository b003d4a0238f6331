"""The folder of signing keys: made, replaced, revoked, never half; serials rise whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from cloud_pruner import signing_keys
from cloud_pruner.errors import SigningKeyError
from cloud_pruner.serials import Serials
from cloud_pruner.signer import Signer
from cloud_pruner.signing_keys import SigningKeys, generate, revoke, rotate
from edge_runtime.errors import UnknownKeyError
from edge_runtime.signing import TrustedKeys
from tests.edge_runtime.tiny_models import describe


@pytest.fixture
def folder(tmp_path):
    return generate(tmp_path / "keys").folder


def device(keys):
    """What a device trusts that was given the key that signs."""
    return TrustedKeys.of([keys.public])


class TestFolder:
    def test_only_the_owner_can_read_it(self, folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        (private,) = folder.glob("*.pem")
        assert private.stat().st_mode & 0o777 == 0o600
        assert private.read_text().startswith("-----BEGIN PRIVATE KEY-----")

    def test_it_is_read_as_it_was_made(self, tmp_path):
        made = generate(tmp_path / "keys")
        opened = SigningKeys.open(tmp_path / "keys")
        assert (opened.trusted, opened.statements, opened.public) == (made.trusted, made.statements, made.public)
        assert opened.private.private_bytes_raw() == made.private.private_bytes_raw()

    def test_keys_are_never_overwritten(self, folder):
        before = SigningKeys.open(folder)
        with pytest.raises(SigningKeyError, match="holds keys already: replace the key with 'capnn keys rotate'"):
            generate(folder)
        assert SigningKeys.open(folder).public == before.public

    @pytest.mark.parametrize("action", [SigningKeys.open, rotate, lambda folder: revoke(folder, "0" * 16)])
    @pytest.mark.parametrize("name", ["nothing", "empty", "file"])
    def test_what_is_no_folder_of_keys(self, tmp_path, action, name):
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").touch()
        with pytest.raises(SigningKeyError, match="holds no signing keys: make some with 'capnn keys generate'"):
            action(tmp_path / name)

    def test_a_private_key_that_others_can_read(self, folder):
        (private,) = folder.glob("*.pem")
        private.chmod(0o640)
        with pytest.raises(SigningKeyError, match=r"\.pem: others may read or write the private key: chmod 600"):
            SigningKeys.open(folder)

    def test_a_private_key_that_is_missing(self, folder):
        (private,) = folder.glob("*.pem")
        private.unlink()
        with pytest.raises(SigningKeyError, match=r"\.pem: the private key is missing: restore it"):
            SigningKeys.open(folder)

    @pytest.mark.parametrize(
        "content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\xff"]
    )
    def test_a_private_key_that_is_damaged(self, folder, content):
        (private,) = folder.glob("*.pem")
        private.write_bytes(content)
        with pytest.raises(SigningKeyError, match=r"\.pem: is damaged, or of another key"):
            SigningKeys.open(folder)

    def test_a_private_key_of_another_name(self, folder, tmp_path):
        (private,) = folder.glob("*.pem")
        (other,) = generate(tmp_path / "other").folder.glob("*.pem")
        private.write_bytes(other.read_bytes())
        with pytest.raises(SigningKeyError, match="is damaged, or of another key"):
            SigningKeys.open(folder)

    def test_no_damage_of_the_statements_goes_unnoticed(self, folder):
        rotate(folder)
        path = folder / "statements"
        content = path.read_bytes()
        for position in range(0, len(content), 3):
            path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
            with pytest.raises(SigningKeyError, match="is damaged: restore it from a copy"):
                SigningKeys.open(folder)
        path.write_bytes(content[:-1])
        with pytest.raises(SigningKeyError, match="is damaged"):
            SigningKeys.open(folder)


class TestRotation:
    def test_devices_follow_from_any_key(self, folder):
        first = SigningKeys.open(folder)
        second = rotate(folder)
        third = rotate(folder)
        for keys in (first, second, third):
            assert device(keys).successor(third.statements).keys == third.trusted.keys
        assert list(third.trusted.keys) == [third.signing, second.signing, first.signing]

    def test_a_revoked_key_is_no_longer_trusted_and_its_private_half_is_gone(self, folder):
        first = SigningKeys.open(folder)
        second = rotate(folder)
        last = revoke(folder, first.signing)
        assert list(device(first).successor(last.statements).keys) == [second.signing]
        assert [path.stem for path in folder.glob("*.pem")] == [second.signing]
        assert SigningKeys.open(folder).public == second.public

    def test_the_signing_key_can_be_revoked_then_the_next_one_signs(self, folder):
        first = SigningKeys.open(folder)
        second = rotate(folder)
        last = revoke(folder, second.signing)
        assert last.public == SigningKeys.open(folder).public == first.public
        assert device(second).successor(last.statements).keys == last.trusted.keys

    def test_the_last_key_stays(self, folder):
        keys = SigningKeys.open(folder)
        with pytest.raises(SigningKeyError, match=f"{keys.signing} is the only key.*rotate' first"):
            revoke(folder, keys.signing)
        assert SigningKeys.open(folder).public == keys.public

    def test_a_key_that_is_not_there(self, folder):
        with pytest.raises(SigningKeyError, match="there is no key 'nonsense' to revoke"):
            revoke(folder, "nonsense")

    def test_no_more_keys_than_devices_take(self, folder, monkeypatch):
        monkeypatch.setattr(signing_keys, "KEYS_MAX", 3)
        rotate(folder)
        rotate(folder)
        with pytest.raises(SigningKeyError, match="take old ones out"):
            rotate(folder)

    def test_a_rotation_that_is_killed_changes_nothing_or_all(self, folder):
        """A real process, killed at one of its writes to the folder after the other."""
        script = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from cloud_pruner.signing_keys import rotate\n"
            "left = int(sys.argv[2])\n"
            "def watch(event, arguments):\n"
            "    global left\n"
            "    if event in ('open', 'os.rename') and sys.argv[1] in str(arguments[0]):\n"
            "        left -= 1\n"
            "        if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
            "sys.addaudithook(watch)\n"
            "rotate(Path(sys.argv[1]))\n"
        )
        signed_with = [SigningKeys.open(folder).public]
        for steps in range(100):
            done = subprocess.run([sys.executable, "-c", script, str(folder), str(steps)], check=False)
            signed_with.append(SigningKeys.open(folder).public)
            if done.returncode == 0:
                break
            assert done.returncode == -signal.SIGKILL
        assert steps >= 5
        # Only the last write that it waits for comes after the change.
        assert len(set(signed_with[:-2])) == 1
        assert len(set(signed_with[-3:])) == 3


class TestSerials:
    def test_they_are_the_time(self, tmp_path):
        serials = Serials(tmp_path / "serial", lambda: 5_000_000)
        assert serials.next() == 5_000_000

    def test_a_clock_that_stands_still_or_is_set_back(self, tmp_path):
        times = iter([5_000_000, 5_000_000, 1, 0, 7_000_000])
        serials = Serials(tmp_path / "serial", lambda: next(times))
        given = [serials.next() for _ in range(5)]
        assert given == sorted(set(given))
        assert given[-1] == 7_000_000

    def test_a_restart_with_the_clock_set_back(self, tmp_path):
        before = Serials(tmp_path / "serial", lambda: 9_000_000).next()
        assert Serials(tmp_path / "serial", lambda: 1).next() > before

    def test_a_power_cut_with_the_clock_set_back(self, tmp_path):
        """What was not yet on the disk is lost: the content at the last fsync comes back."""
        path, now, given = tmp_path / "serial", 10_000_000, []
        on_disk = b""
        fsync = os.fsync

        def noted(descriptor):
            nonlocal on_disk
            fsync(descriptor)
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                on_disk = path.read_bytes()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", noted)
            serials = Serials(path, lambda: now)
            for _ in range(500):
                now += 30_000
                given.append(serials.next())
            serials.close()
        assert on_disk < path.read_bytes()
        path.write_bytes(on_disk)
        assert Serials(path, lambda: 1).next() > max(given)

    def test_threads_and_processes_share_them(self, tmp_path):
        """Four threads here and two other processes: no serial comes twice, and each sees its own rise."""
        path = tmp_path / "serial"
        script = (
            "import sys\n"
            "from pathlib import Path\n"
            "from cloud_pruner.serials import Serials\n"
            "serials = Serials(Path(sys.argv[1]), lambda: 1)\n"
            "print('ready', flush=True)\n"
            "input()\n"
            "print(*[serials.next() for _ in range(5000)])\n"
        )
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        others = [subprocess.Popen([sys.executable, "-c", script, str(path)], **pipes) for _ in range(2)]
        for other in others:
            assert other.stdout.readline() == "ready\n"
        for other in others:
            other.stdin.write("go\n")
            other.stdin.flush()
        serials = Serials(path, lambda: 1)
        given = [[] for _ in range(4)]

        def take(mine):
            while any(other.poll() is None for other in others) and len(mine) < 5000:
                mine.append(serials.next())

        threads = [threading.Thread(target=take, args=(mine,)) for mine in given]
        for thread in threads:
            thread.start()
        given += [[int(text) for text in other.communicate()[0].split()] for other in others]
        for thread in threads:
            thread.join()
        assert all(mine == sorted(mine) for mine in given)
        everything = [serial for mine in given for serial in mine]
        assert len(given[4]) == len(given[5]) == 5000
        assert len(everything) == len(set(everything))

    @pytest.mark.parametrize("content", [b"garbage", b"-5", b"9" * 30])
    def test_a_damaged_file_is_named(self, tmp_path, content):
        (tmp_path / "serial").write_bytes(content)
        with pytest.raises(SigningKeyError, match="serial: holds no serial"):
            Serials(tmp_path / "serial")


class TestSigner:
    def test_what_it_signs_is_believed_and_rises(self, folder):
        manifest = describe(b"model").manifest
        with Signer(folder) as signer:
            trusted = device(signer.keys)
            first, second = (signer.sign(manifest).verified(trusted) for _ in range(2))
        assert 0 < first.serial < second.serial
        assert first.digest == manifest.digest

    def test_it_follows_a_rotation_and_a_revocation_at_once(self, folder):
        manifest = describe(b"model").manifest
        with Signer(folder) as signer:
            former = device(signer.keys)
            signer.sign(manifest).verified(former)
            rotate(folder)
            signed = signer.sign(manifest)
            with pytest.raises(UnknownKeyError):
                signed.verified(former)
            assert signed.verified(former.successor(signer.keys.statements)).digest == manifest.digest
            revoke(folder, next(iter(former.keys)))
            now = former.successor(signer.keys.statements)
            assert not former.keys.keys() & now.keys.keys()
            signer.sign(manifest).verified(now)
