"""The settings of an `apply`, from those of a scan. Without Ray, which a dry run does not start."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from occpipe.core.config import Config
from occpipe.core.config_file import load_config, with_overrides
from occpipe.core.errors import ConfigError
from occpipe.dataset.reader import Published


def settings_for(
    scan: Published,
    source: str | None = None,
    overrides: Sequence[str] = (),
    more: Mapping[str, Sequence[str]] | None = None,
) -> Config:
    """The settings of the scan, or of a config, with overrides; `more` adds to the policy's lists.

    The detections stay, so `segmenter` and `corpus` are always the scan's. `ray`, `weights` and `storage` never are,
    because the scan may be a stranger's. Raises ConfigError.
    """
    before, ours = scan.config, load_config(source or "local")
    base = (
        ours
        if source
        else before.model_copy(update={"ray": ours.ray, "weights": ours.weights, "storage": ours.storage})
    )
    base = base.model_copy(update={"segmenter": before.segmenter, "corpus": before.corpus})
    config = with_overrides(base, [*([] if source else ["output.retry=none"]), *overrides])
    if (config.segmenter, config.corpus) != (before.segmenter, before.corpus):
        raise ConfigError("apply segments nothing: segmenter.* and corpus.* are those of the scan")
    lists = {key: [*getattr(config.policy, key), *names] for key, names in (more or {}).items() if names}
    return with_overrides(config, [f"policy.{key}={json.dumps(list(dict.fromkeys(lists[key])))}" for key in lists])
