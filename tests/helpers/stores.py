"""A moto server on loopback, and what a client of it finds in its environment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def moto_server() -> Iterator[str]:
    """The URL of a server that forgets everything at its end."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    yield f"http://127.0.0.1:{server._server.server_port}"  # type: ignore[union-attr]  # moto tells it nowhere else
    server.stop()


def make_bucket(name: str) -> str:
    """A bucket of that name, as far as S3 allows it; its URI."""
    import boto3

    bucket = name.replace("_", "-").lower()[:60]
    boto3.client("s3").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"
