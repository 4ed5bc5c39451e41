"""How a store is reached: names of profiles, keys and accounts, never secrets. It is sent to the workers with the URI."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """How the store of INPUT or OUTPUT is reached; the fields are those of `storage.input` in the config."""

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
    """The URI of a store, with its access. Two addresses are equal if their URIs are equal."""

    access: Access
    __slots__ = ("access",)

    def __new__(cls, uri: str, access: Access = FROM_ENVIRONMENT) -> Address:
        """Make an address; `uri` is as `locate` returns it."""
        address = super().__new__(cls, uri)
        address.access = access
        return address

    def __reduce__(self) -> tuple[type[Address], tuple[str, Access]]:
        """Tell pickle how to make it again in a worker."""
        return Address, (str(self), self.access)


def access_of(uri: str) -> Access:
    """The access of an address; any other text is reached with the settings of the environment."""
    return uri.access if isinstance(uri, Address) else FROM_ENVIRONMENT
