"""Fuzzes what reads configs: `python -m tests.fuzz.config --minutes 5 --seed 0 --keep findings`.

Random YAML, changed `configs/*.yaml` and random `--set` overrides are loaded. A config is either loaded or refused with a
ConfigError of one line; anything else is a finding.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from occpipe.core.config_file import known_keys, load_config
from occpipe.core.errors import ConfigError
from tests.fuzz.tally import SUCCESS, Tally, main, until

REFUSED = "config_error"
PATIENCE = 2.0
"""Seconds that one config may take."""

_CONFIGS = Path(__file__).parents[2] / "configs"
_WORDS = (
    "null  ~  true  no  0  1  -1  8  0.5  1e400  .nan  .inf  -.inf  0x1F  0o7  1_000  1:30:00  starter  cuda:0",
    "cuda:99999999999  hf:x/y  [person]  [dog, cat]  []  {}  ''  \"\"  skip  paper2019",
)
_NASTY_WORDS = (
    "2020-01-01  2020-13-45  2020-01-01T25:61:61Z  !!binary x  !!binary 'gh=='  !!timestamp x  !!int x  !!float x",
    "!!bool x  !!null x  !!set {a, b}  !!omap [a: 1]  !!pairs [a: 1]  !!python/object/apply:os.system ['exit 1']",
    "!!python/name:os.system  !x y  &a [*a]  &a {b: *a}  *a  {<<: *a}  {<<: 1}  {[a]: b}  {{a: b}: c}  ? a  |  >  %  @  `",
    "[  ]  {  }  '  \"  -  :  %YAML 9.9  ---  ...  #  [1, 2, 3]  [null]  [[person]]  [1e400]  190:20:30.15  -0b1  +.5",
)
# Characters that end lines or texts, texts that hold them once YAML is read, and what is very long, large or deep.
_NASTY_TEXTS = (
    *("\t", "\r", "\x00", "\x7f", "\x85", "\u2028", "\ufeff", "\ud800", "💥", "a\nb", "a\n\nb", "['a\n\n b']"),
    *('"\\n"', '"a\\nb"', '"\\u2028"', '"\\x00"', '"\\ud800"'),
    *("1" * 400, "9" * 5_000, "1e" + "9" * 400, "0x" + "f" * 5_000, "0b" + "1" * 50, "x" * 10_000),
    *("[" * 300 + "]" * 300, "[" * 3_000, "{a: " * 200 + "}" * 200),
)
_PLAIN = [word for line in _WORDS for word in line.split("  ")]
_NASTY = [*(word for line in _NASTY_WORDS for word in line.split("  ")), *_NASTY_TEXTS]
# Nested references: each list names the one before it ten times, so that the last is ten million long where it is printed.
_REFERENCES = "x: [&a0 [lol]" + "".join(f", &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(7)) + "]\n"


def fuzz(seconds: float, seed: int, keep: Path | None = None) -> Tally:
    """Try configs for so many seconds; the same seed gives the same configs in the same order."""
    dice = random.Random(seed)
    texts = [path.read_text(encoding="utf-8") for path in sorted(_CONFIGS.glob("*.yaml"))]
    tally = Tally(PATIENCE, keep)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        for _ in until(seconds):
            text, overrides = random_config(dice, texts), random_overrides(dice)
            file.write_bytes(text.encode("utf-8", "surrogatepass"))
            # An input as it is kept: JSON, since an override may hold any character.
            data = json.dumps({"yaml": text, "set": overrides}).encode()
            tally.attempt(data, partial(outcome, file, overrides))
    return tally


def outcome(file: Path, overrides: list[str]) -> str:
    """Load a config; SUCCESS or REFUSED. Raises AssertionError where a refusal is not one line."""
    try:
        load_config(file, overrides)
    except ConfigError as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"a message of several lines: {str(error)!r}") from error
        return REFUSED
    return SUCCESS


def random_config(dice: random.Random, texts: list[str]) -> str:
    """A text: one of the configs after some changes, one of known keys and random values, or a value alone."""
    kind = dice.random()
    if kind < 0.5:
        text = dice.choice(texts)
        for _ in range(dice.choice((1, 1, 2, 4, 8))):
            text = dice.choice(_CHANGES)(dice, text)
        return text
    if kind < 0.95:
        start = _REFERENCES if dice.random() < 0.03 else ""
        return start + "".join(_random_line(dice, bool(start)) for _ in range(dice.randrange(6)))
    return _value(dice)


def random_overrides(dice: random.Random) -> list[str]:
    """No, one or some `--set` overrides, of which most name a key that is there."""
    overrides = []
    for _ in range(dice.choice((0, 0, 1, 1, 2, 3))):
        key = _changed_key(dice, dice.choice(_KEYS))
        overrides.append(f"{key}{dice.choice(('=', '=', '=', '=', '', ' = ', '=='))}{_value(dice)}")
    return overrides


_KEYS = known_keys()


def _value(dice: random.Random) -> str:
    value = dice.choice(_PLAIN if dice.random() < 0.6 else _NASTY)
    return dice.choice(("[{0}]", "{{a: {0}}}", "[{0}, {0}]", "'{0}'")).format(value) if dice.random() < 0.1 else value


def _changed_key(dice: random.Random, key: str) -> str:
    if dice.random() < 0.7:
        return key
    at = dice.randrange(len(key))
    new = dice.choice(("", ".", "x", " ", "\n", "\u2028", "\x00", "é", key[at] * 2, "=", "..", _value(dice)))
    return key[:at] + new + key[at + dice.randrange(2) :]


def _random_line(dice: random.Random, references: bool) -> str:
    """A line of YAML, and those of the sections around it."""
    value = f"*a{dice.randrange(8)}" if references and dice.random() < 0.5 else _value(dice)
    *sections, key = _changed_key(dice, dice.choice(_KEYS)).split(".")
    lines = [f"{'  ' * depth}{section}:\n" for depth, section in enumerate(sections)]
    return "".join(lines) + f"{'  ' * len(sections)}{key}: {value}\n"


def _set_a_value(dice: random.Random, text: str) -> str:
    lines = text.split("\n")
    at = dice.randrange(len(lines))
    key, colon, _ = lines[at].partition(":")
    lines[at] = f"{key}{colon} {_value(dice)}"
    return "\n".join(lines)


def _drop_a_line(dice: random.Random, text: str) -> str:
    lines = text.split("\n")
    del lines[dice.randrange(len(lines))]
    return "\n".join(lines) if lines else text


def _repeat_a_line(dice: random.Random, text: str) -> str:
    lines = text.split("\n")
    lines.insert(dice.randrange(len(lines)), dice.choice(lines))
    return "\n".join(lines)


def _insert_text(dice: random.Random, text: str) -> str:
    at = dice.randrange(len(text) + 1)
    return text[:at] + dice.choice((_value(dice), " ", "\n", "  ", ":", "- ")) + text[at:]


def _delete_text(dice: random.Random, text: str) -> str:
    at = dice.randrange(len(text) + 1)
    return text[:at] + text[at + dice.choice((1, 1, 2, 10)) :]


_CHANGES: tuple[Callable[[random.Random, str], str], ...] = (
    *(_set_a_value, _set_a_value, _set_a_value, _drop_a_line, _repeat_a_line, _insert_text, _delete_text),
)


if __name__ == "__main__":
    sys.exit(main(fuzz, "Fuzz load_config."))
