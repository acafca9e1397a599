"""`targets.yaml`: which databases, with which plan; every mistake is told with its line and key."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import psycopg
import yaml
from psycopg import conninfo as libpq
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from indexlab import plan as plans
from indexlab import sql
from indexlab import workload as workloads
from indexlab.apply.settings import Window
from indexlab.batch.parameters import Parameters, Text
from indexlab.batch.tasks import NOTHING, VARIABLE, Source
from indexlab.demo import database
from indexlab.errors import InputError
from indexlab.target import SECRETS

LONGEST = 16 * 1024 * 1024
"""Bytes; a hundred thousand targets take about a half of it."""
FORMS = (
    "service=NAME, env, env:VARIABLE (a variable that holds the address where the target is "
    "worked on), or an address without a password such as postgresql://user@host/db"
)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
CONDITIONS = ("name", "tag", "group")
COMPOSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""With libyaml, where PyYAML has it: ten times as fast on files of thousands."""


def _window(text: str) -> str:
    try:
        return str(Window.parse(text))
    except InputError as error:
        raise ValueError(str(error)) from None


def _reference(text: str) -> str:
    """Refuse what is no address or holds a secret; never with its text."""
    if database.is_demo(text) and text:
        try:
            database.rows_of(text)
        except InputError as error:
            raise ValueError(str(error)) from None
        return text
    if text == "env":
        return text
    if text.startswith(VARIABLE):
        if not NAME.fullmatch(text.removeprefix(VARIABLE)):
            raise ValueError("env: must be followed by the name of an environment variable")
        return text
    try:
        given = libpq.conninfo_to_dict(text)
    except psycopg.ProgrammingError:
        raise ValueError(
            f"is not an address that libpq understands (not shown, it may hold a password): "
            f"write {FORMS}"
        ) from None
    if any(given.get(name) for name in SECRETS):
        raise ValueError(
            "holds a password (not shown): take it out, and give it by pg_service.conf, ~/.pgpass, "
            "PGPASSWORD, or as env:VARIABLE, where the target is worked on"
        )
    if not given:
        raise ValueError(f"is empty: write {FORMS}")
    return text


class _Entry(BaseModel):
    """What a target may say, and the defaults, too."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    plan: Text | None = None
    workload: Text | None = None
    parameters: Parameters = Parameters()
    tags: tuple[Text, ...] | None = Field(default=None, strict=False)
    window: Annotated[Text, AfterValidator(_window)] | None = None
    group: Text | None = None
    timeout: Annotated[float, Field(gt=0)] | None = None


class _Target(_Entry):
    name: Text
    target: Annotated[Text, AfterValidator(_reference)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    defaults: _Entry = _Entry()
    targets: Annotated[tuple[_Target, ...], Field(strict=False)]


@dataclass(frozen=True, slots=True)
class BatchTarget:
    """One database of a batch, with what is to be done there."""

    name: str
    target: str
    """As for --target, or `env:VARIABLE`; it holds no password."""
    plan: Source
    workload: Source
    parameters: Parameters
    tags: tuple[str, ...] = ()
    window: str = ""
    group: str = ""
    timeout: float | None = None
    """Seconds."""

    def fits(self, kind: str, pattern: str) -> bool:
        """Return whether a condition of --only holds; pure."""
        values = {"name": (self.name,), "tag": self.tags, "group": (self.group,)}[kind]
        return any(fnmatchcase(value, pattern) for value in values)


@dataclass(frozen=True, slots=True)
class Targets:
    """All that a file of targets says."""

    source: str
    targets: tuple[BatchTarget, ...]


def read(path: Path) -> Targets:
    """Read and check a file of targets, with the plans and workloads it names; connects to nothing.

    Args:
        path: of the file; the paths in it are relative to it.

    Raises:
        InputError: the file, a plan or a workload is not as it must be; names file, line and key.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=path) from None
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", source=path) from None
    if size > LONGEST:
        raise InputError(f"has {size:,} bytes; {LONGEST:,} is the most", source=path)
    return parse(text, path)


def parse(text: str, path: Path) -> Targets:
    """Check the text of a file of targets; reads the plans and workloads that it names.

    Args:
        text: YAML.
        path: where it stands; the paths in it are relative to it.

    Raises:
        InputError: as for `read`.
    """
    root = _composed(text, path)
    _without_doubles(root, path)
    try:
        data = _Loader.data(root)
    except yaml.MarkedYAMLError as error:
        raise _unreadable(error, path) from None
    if not isinstance(data, dict):
        raise InputError("is not a mapping with the key 'targets'", source=path, line=1)
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        raise _refused(error, root, path) from None
    entries = _node(root, ("targets",))
    if not file.targets:
        raise InputError("'targets' is empty", source=path, line=entries.start_mark.line + 1)
    assert isinstance(entries, yaml.SequenceNode)
    lines = [node.start_mark.line + 1 for node in entries.value]
    _check_names(file.targets, lines, path)
    reading = _Reading(path)
    return Targets(
        path.as_posix(),
        tuple(
            reading.completed(entry, file.defaults, line)
            for entry, line in zip(file.targets, lines, strict=True)
        ),
    )


def select(targets: Targets, only: str) -> tuple[BatchTarget, ...]:
    """Return the targets for which the conditions hold; pure.

    Args:
        targets: from `read`.
        only: such as `tag=eu,name=shop-*`: conditions on different keys must all hold, of several
            on one key any. Empty takes all.

    Raises:
        InputError: a condition is none, or no target is left.
    """
    wanted: dict[str, list[str]] = {}
    for condition in filter(None, map(str.strip, only.split(","))):
        kind, equals, pattern = condition.partition("=")
        if not equals or kind not in CONDITIONS or not pattern:
            raise InputError(
                f"--only {condition!r} is no condition: write {', '.join(CONDITIONS)} and a "
                "pattern, such as tag=eu,name=shop-*"
            )
        wanted.setdefault(kind, []).append(pattern)
    found = tuple(
        target
        for target in targets.targets
        if all(any(target.fits(kind, one) for one in some) for kind, some in wanted.items())
    )
    if not found:
        raise InputError(f"--only {only!r} fits none of the {len(targets.targets)} targets")
    return found


# YAML with its lines


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain data from nodes that are kept for their lines."""

    @classmethod
    def data(cls, root: yaml.Node) -> Any:
        loader = cls("")
        try:
            return loader.construct_document(root)
        finally:
            loader.dispose()


def _composed(text: str, path: Path) -> yaml.Node:
    try:
        root = yaml.compose(text, Loader=COMPOSER)
    except yaml.MarkedYAMLError as error:
        raise _unreadable(error, path) from None
    except yaml.YAMLError as error:
        raise InputError(f"is not YAML: {type(error).__name__}", source=path) from None
    if root is None:
        raise InputError("is empty: it needs the key 'targets'", source=path)
    return root


def _unreadable(error: yaml.MarkedYAMLError, path: Path) -> InputError:
    """Say where a text is no YAML; a snippet of it is not shown, as it may hold a password."""
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    return InputError(f"is not YAML: {error.problem}", source=path, line=line)


def _without_doubles(root: yaml.Node, path: Path) -> None:
    """Refuse a key that is given twice, of which YAML would keep the last in silence."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in keys:
                        raise InputError(
                            f"the key {key.value!r} is given twice",
                            source=path,
                            line=key.start_mark.line + 1,
                        )
                    keys.add(key.value)
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(node.value)


def _node(root: yaml.Node, place: tuple[int | str, ...]) -> yaml.Node:
    """Follow keys and numbers down from a node, as far as they lead; pure.

    The last key leads to the key itself where it stands for an unknown one.
    """
    node = root
    for step in place:
        if isinstance(node, yaml.MappingNode):
            values = [value for key, value in node.value if key.value == step]
            if not values:
                return node
            node = values[0]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            if step >= len(node.value):
                return node
            node = node.value[step]
        else:
            return node
    return node


def _refused(error: ValidationError, root: yaml.Node, path: Path) -> InputError:
    """Tell of the first mistake, by its line in the file."""

    def line(place: tuple[int | str, ...]) -> int:
        parent = _node(root, place[:-1])
        if isinstance(parent, yaml.MappingNode):
            for key, _ in parent.value:
                if key.value == place[-1]:
                    return int(key.start_mark.line) + 1
        return int(_node(root, place).start_mark.line) + 1

    found = sorted(
        error.errors(include_input=False, include_url=False),
        key=lambda mistake: (line(mistake["loc"]), mistake["type"] != "extra_forbidden"),
    )
    first, place = found[0], found[0]["loc"]
    key = ".".join(str(part) for part in place if not isinstance(part, int))
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return InputError(f"{_words(first, key)}{more}", source=path, line=line(place))


WORDS = {
    "string_type": "must be a text: put it into quotes",
    "string_too_short": "must not be empty",
    "tuple_type": "must be a list",
    "model_type": "must be a mapping of keys, such as {name: shop, target: env}",
}


def _words(mistake: Any, key: str) -> str:
    own = str(mistake.get("ctx", {}).get("error", ""))
    leaf = key.rpartition(".")[2]
    match mistake["type"]:
        case "extra_forbidden":
            known = _keys(key)
            return f"unknown key {leaf!r}: there are {', '.join(known)}"
        case "missing":
            return f"the key {leaf!r} is missing"
        case "value_error":
            return f"{key!r} {own}"
        case kind:
            said = f"{key!r}: {mistake['msg'][:1].lower()}{mistake['msg'][1:]}"
            return f"{key!r} {WORDS[kind]}" if kind in WORDS else said


def _keys(key: str) -> tuple[str, ...]:
    parts = key.split(".")
    if "parameters" in parts[:-1]:
        return tuple(Parameters.model_fields)
    models: dict[str, type[BaseModel]] = {"targets": _Target, "defaults": _Entry}
    model = models.get(parts[0], _File) if len(parts) > 1 else _File
    return tuple(model.model_fields)


def _check_names(entries: tuple[_Target, ...], lines: list[int], path: Path) -> None:
    seen: dict[str, int] = {}
    for entry, line in zip(entries, lines, strict=True):
        if entry.name in seen:
            raise InputError(
                f"two targets are named {entry.name!r}: the other one is in line "
                f"{seen[entry.name]}",
                source=path,
                line=line,
            )
        seen[entry.name] = line


# Plans and workloads


class _Reading:
    """Reads each plan and workload once."""

    def __init__(self, path: Path):
        self._path = path
        self._sources: dict[tuple[str, str], Source] = {}

    def completed(self, entry: _Target, defaults: _Entry, line: int) -> BatchTarget:
        """Return a target with what the defaults say beside it."""
        plan = entry.plan or defaults.plan
        if plan is None and not database.is_demo(entry.target):
            raise InputError(
                f"the target {entry.name!r} has no plan: give it one, or 'plan' in 'defaults'",
                source=self._path,
                line=line,
            )
        workload = entry.workload or defaults.workload
        return BatchTarget(
            name=entry.name,
            target=entry.target,
            plan=self._source("plan", plan, line),
            workload=self._source("workload", workload, line),
            parameters=entry.parameters.over(defaults.parameters),
            tags=entry.tags if entry.tags is not None else defaults.tags or (),
            window=entry.window or defaults.window or "",
            group=entry.group or defaults.group or "",
            timeout=entry.timeout or defaults.timeout,
        )

    def _source(self, kind: str, name: str | None, line: int) -> Source:
        if name is None:
            return NOTHING
        if (kind, name) not in self._sources:
            path = (self._path.absolute().parent / name).resolve()
            if not path.is_file():
                raise InputError(
                    f"the {kind} {name!r} does not exist beside this file",
                    source=self._path,
                    line=line,
                )
            text = sql.read_text(path)
            if kind == "plan":
                plans.parse(text, path.as_posix())
            else:
                workloads.parse(text, path.as_posix())
            self._sources[kind, name] = Source(path.as_posix(), text)
        return self._sources[kind, name]
