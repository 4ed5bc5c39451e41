"""Clients of S3: one for each access in a process, so that its threads share connections and a request rate.

The adaptive retries of boto3 cover throttling (503 Slow Down), 5xx and connection resets. After a store throttles, a token
bucket slows down all requests of the client, and so of the process, until requests succeed again.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol

from occpipe.core.access import Access
from occpipe.io.storage import s3_keys

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
"""How long a connection may stay without a byte."""
_LOCK = threading.Lock()


class S3Client(Protocol):
    """The operations of the boto3 client, which has no types; parameters and responses have the names of S3's API."""

    exceptions: Any
    meta: Any
    get_object: Callable[..., dict[str, Any]]
    head_object: Callable[..., dict[str, Any]]
    put_object: Callable[..., dict[str, Any]]
    copy_object: Callable[..., dict[str, Any]]
    delete_object: Callable[..., dict[str, Any]]
    list_objects_v2: Callable[..., s3_keys.Page]


def client_of(access: Access) -> S3Client:
    """The boto3 client of an access, made on first use; threads may share a boto3 client."""
    environment = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    with _LOCK:  # the threads of a stage call this together, and boto3 cannot make clients in parallel
        return _connect(access, environment)


@functools.lru_cache(8)
def _connect(access: Access, environment: tuple[tuple[str, str], ...]) -> S3Client:  # noqa: ARG001 - part of the cache's key
    import boto3  # half a second of imports that local runs do not need
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.handlers import add_expect_header

    config = Config(
        retries={"mode": "adaptive", "max_attempts": 5},
        max_pool_connections=64,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=min(READ_TIMEOUT_S, access.read_timeout_s),
        signature_version=UNSIGNED if access.anonymous else None,
        response_checksum_validation="when_required",  # with a part some servers send the checksum of the whole
    )
    session = boto3.Session(profile_name=access.profile, region_name=access.region)
    client: Any = session.client("s3", endpoint_url=access.endpoint, config=config)
    # If a connection breaks within "100 Continue", botocore reads forever; our bodies are small enough to go without.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    # The name makes it run before a handler for `s3.*`, which parses whole pages to look for errors.
    client.meta.events.register("before-parse.*.*", s3_keys.parse_page)
    client.meta.events.register("provide-client-params.s3.*", _with_parameters(access))
    connected: S3Client = client
    return connected


def _with_parameters(access: Access) -> Callable[..., None]:
    """A hook of botocore that adds those of these parameters to a request that its operation accepts."""
    parameters = {
        "RequestPayer": "requester" if access.requester_pays else None,
        "ExpectedBucketOwner": access.bucket_owner,
        "ServerSideEncryption": "aws:kms" if access.kms_key else None,
        "SSEKMSKeyId": access.kms_key,
    }

    def add(params: dict[str, Any], model: Any, **_: object) -> None:
        members = model.input_shape.members
        for name, value in parameters.items():
            if value is not None and name in members:
                params.setdefault(name, value)

    return add
