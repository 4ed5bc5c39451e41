"""How a store is reached: names of profiles, keys and accounts, never secrets. It travels to the workers with the URI."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """How the store of one side, INPUT or OUTPUT, is reached; the fields are those of `storage.input` in the config."""

    endpoint: str | None = None
    region: str | None = None
    profile: str | None = None
    anonymous: bool = False
    requester_pays: bool = False
    bucket_owner: str | None = None
    kms_key: str | None = None
    read_timeout_s: float = 300


FROM_ENVIRONMENT = Access()


class Address(str):
    """The URI of a store, with how it is reached. Two addresses are equal where their URIs are."""

    access: Access
    __slots__ = ("access",)

    def __new__(cls, uri: str, access: Access = FROM_ENVIRONMENT) -> Address:
        """An address; `uri` as `locate` gives it."""
        address = super().__new__(cls, uri)
        address.access = access
        return address

    def __reduce__(self) -> tuple[type[Address], tuple[str, Access]]:
        """What pickle makes it from in a worker."""
        return Address, (str(self), self.access)


def access_of(uri: str) -> Access:
    """How a store is reached: as an address says, and for any other text by what the environment has."""
    return uri.access if isinstance(uri, Address) else FROM_ENVIRONMENT
