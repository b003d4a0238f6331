"""A real S3 server here, kept in memory, whose buckets can vanish."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


class S3:
    def __init__(self, address: str) -> None:
        import boto3

        self.client = boto3.client("s3", endpoint_url=address)

    def make(self, bucket: str) -> str:
        """Make a bucket; return the URL of a place in it."""
        self.client.create_bucket(Bucket=bucket)
        return f"s3://{bucket}/service"

    def remove(self, bucket: str) -> None:
        for entry in self.client.list_objects_v2(Bucket=bucket).get("Contents", ()):
            self.client.delete_object(Bucket=bucket, Key=entry["Key"])
        self.client.delete_bucket(Bucket=bucket)

    def replace(self, url: str, content: bytes) -> None:
        """Put other content at the URL of a file."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        self.client.put_object(Bucket=bucket, Key=key, Body=content)


@contextlib.contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """Run a server, and let the environment name it as that of everybody here."""
    pytest.importorskip("s3fs", reason="the package s3fs is not installed (extra 's3')")
    server = pytest.importorskip("moto.server", reason="the package moto is not installed").ThreadedMotoServer(
        "127.0.0.1", 0, verbose=False
    )
    server.start()
    try:
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield S3(address)
    finally:
        server.stop()
