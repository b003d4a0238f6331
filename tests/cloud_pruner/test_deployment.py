"""What the documentation says of running the service is so: its settings are read, and deploy/ names what is there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cloud_pruner.service.settings_file import read_settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deployment.md").read_text()


def test_the_settings_on_the_page_are_read(tmp_path):
    alone, replicas = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "service.toml"
    path.write_text(alone)
    settings = read_settings(path)
    assert settings.server.tokens_required
    assert settings.models == {"birds": (Path("/srv/capnn/birds-1"),)}
    # The second takes the place of the sections of the first that it names.
    named = "|".join(re.findall(r"(?m)^\[(\w+)\]", replicas))
    path.write_text(re.sub(rf"(?ms)^\[({named})\].*?(?=^\[|\Z)", "", alone) + replicas)
    assert read_settings(path).state.database.startswith("postgresql+psycopg://")
    assert read_settings(path).cache.redis


def test_every_setting_and_metric_on_the_page_is_known():
    settings = (ROOT / "cloud_pruner" / "service" / "settings.py").read_text()
    for table, name in re.findall(r"`(server|limits|state|keys|cache)\.(\w+)", PAGE):
        assert f"    {name}: " in settings, f"{table}.{name}"
    metrics = (ROOT / "cloud_pruner" / "service" / "metrics.py").read_text()
    for name in re.findall(r"\bcapnn_\w+", PAGE):
        assert f'"{re.sub("_(total|bucket|sum|count)$", "", name)}"' in metrics, name


def test_the_image_is_made_of_what_is_there():
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"(?m)^COPY (?!--from)(.*)", text) for name in line.split()[:-1]]
    assert {"pyproject.toml", "constraints.txt", "cloud_pruner", "edge_runtime", "cache", "hwmodel"} <= set(copied)
    assert all((ROOT / source).exists() for source in copied)


def test_systemd_takes_the_unit(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = (ROOT / "deploy" / "capnn-serve.service").read_text()
    program = shlex.split(re.findall(r"(?m)^ExecStart=(.*)", unit)[0])[0]
    (tmp_path / "capnn-serve.service").write_text(unit.replace(program, "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / "capnn-serve.service"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
