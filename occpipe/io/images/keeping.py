"""What an edited file keeps of the metadata of its source: the policy, and the names of what is lost."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import ImageFile

from occpipe.core.provenance import MetadataPolicy, SourceType

MAX_NAMES = 32
MAX_NAME_CHARS = 60


@dataclass(frozen=True, slots=True)
class Source:
    """The source of an edited file: its bytes, its picture as Pillow decoded it, and the orientation still to apply."""

    data: bytes
    image: ImageFile.ImageFile
    orientation: int


@dataclass
class Keeping:
    """The policy and the mark of one file, and the names of lost metadata.

    Metadata that the policy leaves out does not count as lost.
    """

    policy: MetadataPolicy = MetadataPolicy.KEEP
    mark: SourceType = SourceType.NONE
    _lost: dict[str, None] = field(default_factory=dict)

    @property
    def strips_location(self) -> bool:
        """Whether places are left out."""
        return self.policy is not MetadataPolicy.KEEP

    @property
    def strips_all(self) -> bool:
        """Whether everything that the picture does not need is left out."""
        return self.policy is MetadataPolicy.STRIP_ALL

    def lose(self, name: str) -> None:
        """Record that something is not kept. Names may come from untrusted files, so they are shortened and printable."""
        if self.strips_all:
            return
        printable = "".join(c if c.isprintable() else "?" for c in name[:MAX_NAME_CHARS])
        if len(self._lost) < MAX_NAMES:
            self._lost[printable] = None

    @property
    def lost(self) -> list[str]:
        """The names of what was lost, sorted."""
        return sorted(self._lost)
