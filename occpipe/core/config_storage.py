"""The section `storage` of the config: how INPUT and OUTPUT are reached."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from occpipe.core.access import Access
from occpipe.core.config_section import Section


class _Names(Section):
    model_config = ConfigDict(coerce_numbers_to_str=True)


class InputAccess(_Names):
    """How a store is reached, where the environment does not say it: names, never secrets.

    `endpoint`, `region` and `profile` (of the AWS config) are for S3. `anonymous` reads public buckets without
    credentials, `requester_pays` accepts to be charged, `bucket_owner` is the account that must own the bucket. A read ends
    as `unreachable` after `read_timeout_s`.
    """

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+/?$")] | None = None
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = None
    profile: Annotated[str, Field(min_length=1)] | None = None
    anonymous: bool = False
    requester_pays: bool = False
    bucket_owner: Annotated[str, Field(pattern=r"^\d{12}$")] | None = None
    read_timeout_s: float = Field(default=300, gt=0, le=86_400)

    @property
    def access(self) -> Access:
        """The same, as it travels with a URI."""
        return Access(**self.model_dump())

    @model_validator(mode="after")
    def _credentials(self) -> InputAccess:
        if self.anonymous and self.profile:
            raise ValueError("anonymous takes no credentials, and so no profile")
        return self


class OutputAccess(InputAccess):
    """As above; objects are encrypted with the KMS key of this name (SSE-KMS), where one is given."""

    kms_key: Annotated[str, Field(min_length=1)] | None = None


class Storage(_Names):
    """How INPUT and OUTPUT are reached. Each has its own, for two accounts or two kinds of store."""

    input: InputAccess = InputAccess()
    output: OutputAccess = OutputAccess()
