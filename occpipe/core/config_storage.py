"""The section `storage` of the config: how INPUT and OUTPUT are reached."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from occpipe.core.access import Access
from occpipe.core.config_section import Section


class _Names(Section):
    model_config = ConfigDict(coerce_numbers_to_str=True)


class InputAccess(_Names):
    """How INPUT is reached."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+/?$")] | None = Field(
        default=None, description="S3: URL of a server other than AWS, such as http://127.0.0.1:9000"
    )
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = Field(default=None, description="S3: region")
    profile: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="S3: profile of the AWS config"
    )
    anonymous: bool = Field(default=False, description="read public buckets without credentials")
    requester_pays: bool = Field(default=False, description="accept the charges of a requester-pays bucket")
    bucket_owner: Annotated[str, Field(pattern=r"^\d{12}$")] | None = Field(
        default=None, description="account that must own the bucket, 12 digits"
    )
    read_timeout_s: float = Field(
        default=300, gt=0, le=86_400, description="a read without an answer for so long ends as unreachable"
    )

    @property
    def access(self) -> Access:
        """The same settings in the form that is sent to workers with a URI."""
        return Access(**self.model_dump())

    @model_validator(mode="after")
    def _credentials(self) -> InputAccess:
        if self.anonymous and self.profile:
            raise ValueError("anonymous takes no credentials, and so no profile")
        return self


class OutputAccess(InputAccess):
    """How OUTPUT is reached."""

    kms_key: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="encrypt objects with this KMS key (SSE-KMS): its id, alias or ARN"
    )


class Storage(_Names):
    """How stores are reached, if the environment does not decide it. Names only, never secrets."""

    input: InputAccess = InputAccess()
    output: OutputAccess = OutputAccess()
