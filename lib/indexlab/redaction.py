"""Redaction: what of a result must not leave the machine, and the one place where it is taken out.

Results go through a `Veil` where they leave the lab: when a verb hands one out, and before one is
written into a run. What shows them, charts, pages, JSON, summaries, terminal, comes after that and
knows of nothing that was hidden. The table `SECRETS` says what is secret of which result; every
other text is searched for literals and for values that were drawn. Definitions of indexes and the
names of tables, columns, indexes and queries are no secret: without them no report would say a thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from hashlib import blake2b
from typing import Any, TypeVar

import psycopg

from indexlab.apply import Outcome
from indexlab.apply.blockers import CONSTANTS, Session, without_constants
from indexlab.audit import ExistingAudit, Finding, StatementAudit
from indexlab.benchmark import Series
from indexlab.benchmark.series import HIDDEN
from indexlab.catalog import Catalog, Index
from indexlab.explain import Node
from indexlab.impact import Trial
from indexlab.plan import CommentOnIndex, CreateIndex, DropIndex, IndexDef, IndexPlan, Surrounding
from indexlab.progress import About, Tell
from indexlab.sql import RelationName
from indexlab.statements import Recorded
from indexlab.target import Server, Target
from indexlab.workload import Query, SampledQuery, Sampler, Workload

SHORTEST = 4
"""Shorter values are hidden where they stand as literals, not in prose, where they are words."""
FEWEST_DIGITS = 5
"""Numbers with fewer digits are hidden where they stand as literals: in prose they count things."""
COMMON = "most common"
"""The evidence that holds values of the data."""

T = TypeVar("T")
Hide = Callable[["Veil", Any], Any]


def is_hidden(text: str) -> bool:
    """Return whether a text was taken out; pure."""
    return text.startswith(HIDDEN)


# How a field is treated


def _open(_veil: Veil, value: Any) -> Any:
    return value


def _query(veil: Veil, text: str) -> str:
    return text if is_hidden(text) else f"{HIDDEN} {veil.mark(text)}]"


def _nothing(_veil: Veil, _value: Any) -> tuple[()]:
    return ()


def _conditions(
    _veil: Veil, conditions: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    return tuple((label, without_constants(text)) for label, text in conditions)


def _answers(veil: Veil, digests: tuple[str, ...]) -> tuple[str, ...]:
    """The hash of a short answer can be found by trying: only this machine can compare it."""
    cut = (digest.partition(":") for digest in digests)
    return tuple(
        f"{rows}:{found and (found if is_hidden(found) else _query(veil, found))}"
        for rows, _, found in cut
    )


def _evidence(veil: Veil, evidence: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (name, HIDDEN + "]" if name == COMMON else veil.result(value)) for name, value in evidence
    )


def _waits(veil: Veil, waits: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(veil.text, waits))


SECRETS: Mapping[type, Mapping[str, Hide]] = {
    Series: {"sql": _query, "answers": _answers, "query": _open, "indexes": _open},
    Node: {"conditions": _conditions},
    Trial: {"statement": _query, "statements": _open},
    Recorded: {"text": _query, "name": _open},
    Query: {"sql": _query, "statement": _query},
    Sampler: {"sql": _query},
    SampledQuery: {"values": _nothing},
    Finding: {"evidence": _evidence, "rule": _open, "subject": _open, "suppressed": _open},
    Session: {"query": lambda _veil, _text: ""},
    # Definitions of indexes, which are run and taken back as they stand here:
    Outcome: {
        "statement": _open,
        "index": _open,
        "definition": _open,
        "undo": _open,
        "restores": _open,
        "purpose": _open,
        "waited_for": _waits,
    },
    IndexPlan: {"source": _open},
    CreateIndex: {"text": _open, "search_path": _open},
    DropIndex: {"text": _open, "search_path": _open},
    CommentOnIndex: {"text": _open, "comment": _open},
    Surrounding: {"text": _open},
    StatementAudit: {
        "label": _open,
        "revised": _open,
        "undo": _open,
        "parts": _open,
        "restores": _open,
    },
    ExistingAudit: {"index": _open, "label": _open, "drop": _open, "restore": _open},
}
"""What is done with a field of a result; any other is looked through."""
OPEN = (IndexDef, Index, RelationName, Server, Target)
"""What holds definitions and names only."""

QUOTED = re.compile(
    r"""
    (?<![\w'"]) (?: [eEbBxXnN] | [uU]& )? ' (?P<single> (?: '' | [^'] )* ) (?: ' | \Z )
  | (?<![\w"]) " (?P<double> (?: "" | [^"] )* ) (?: " | \Z )
  | (?P<tag> \$ (?: [A-Za-z_] \w* )? \$ ) .*? (?: (?P=tag) | \Z )
    """,
    re.VERBOSE | re.DOTALL,
)
"""What stands in quotes: literals, what the server quotes of a row, and names."""
ROWS = re.compile(r"(?<=\)=)\(.*\)|(?<=row contains )\(.*\)")
"""What the server says of a row: `Key (a)=(1) already exists`, `Failing row contains (1, x)`."""
STATEMENT = re.compile(
    r"""
    [\s(]* (?: (?: select | insert \s+ into | update \s+ \S+ \s+ set | delete \s+ from | merge \s+ into ) \b
           | with \s+ (?: recursive \s | \S+ \s+ (?: \([^)]*\) \s* )? as \s* (?: \w+ \s+ )* \( )
              | values \s* \( )
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""How the text of a query begins: wherever it stands, and whatever it is called there."""
WORD = re.compile(r"\w+")
SNIPPET = re.compile(r"^LINE \d+: .*(?:\n *\^.*)?$", re.MULTILINE)
BLOCKER = re.compile(r"(query of \d\d:\d\d:\d\d): .*(?=\))|(query of \d\d:\d\d:\d\d): .*$")


class Veil:
    """Hides the texts of queries and the values of rows; one that is not worn changes nothing.

    It learns on its way what are names, which may be told, and which values were drawn.
    """

    def __init__(self, *, worn: bool = True, key: bytes = b""):
        self.worn = worn
        self._key = key
        self._names: set[str] = set()
        self._values: dict[str, set[str]] = {}

    # Learning

    def learn_names(self, names: Iterable[str]) -> None:
        """Take in what may be told, also in quotes."""
        self._names.update(names)

    def learn_catalog(self, catalog: Catalog) -> None:
        """Take in the names of a target."""
        if not self.worn:
            return
        self.learn_names(catalog.schemas)
        for relation in catalog.relations:
            self.learn_names((relation.schema, relation.name, str(relation.qualified)))
        self.learn_names(column.name for column in catalog.columns)
        self.learn_names(index.name for index in catalog.indexes)

    def learn_workload(self, workload: Workload) -> None:
        """Take in a workload: names of queries and parameters, and the literals of the texts."""
        if not self.worn:
            return
        for query in workload.queries:
            self.learn_names((query.name, *query.parameters))
            for text in (query.sql, *(sampler.sql for sampler in query.samplers)):
                self.learn_values(_literals(text))

    def learn_samples(self, sampled: Iterable[SampledQuery]) -> None:
        """Take in the values that were drawn."""
        if self.worn:
            for one in sampled:
                self.learn_values(value for row in one.values for value in row if value is not None)

    def learn_values(self, values: Iterable[str]) -> None:
        """Take in values that are hidden wherever they stand as a word."""
        for value in values:
            if _tells(value):
                self._values.setdefault(_first_word(value), set()).add(value)

    def mark(self, text: str) -> str:
        """Return what knows a text again, for who has the key; pure."""
        return blake2b(text.encode("utf-8", "replace"), key=self._key, digest_size=8).hexdigest()

    # Hiding

    def text(self, text: str) -> str:
        """Hide literals, values and the texts of queries in some words."""
        if not self.worn or text in self._names or is_hidden(text):
            return text
        if STATEMENT.match(text):
            return _query(self, text)
        shown = SNIPPET.sub("", text)
        shown = BLOCKER.sub(lambda match: match[1] or match[2], shown)
        shown = ROWS.sub("(?)", shown)
        shown = QUOTED.sub(self._quoted, shown)
        return self._without_values(shown)

    def _without_values(self, text: str) -> str:
        """Hide the drawn values; thousands of them are told from a text by their first words."""
        if not self._values:
            return text
        low = text.lower()
        begun = {"", *WORD.findall(low)}
        near = {value for word in begun for value in self._values.get(word, ())} - self._names
        for value in sorted(near, key=len, reverse=True):
            if value.lower() not in low:
                continue
            pattern = rf"(?<!\w){re.escape(value)}(?!\w)"
            text = re.sub(pattern, "?", text, flags=re.IGNORECASE)
        return text

    def _quoted(self, match: re.Match[str]) -> str:
        for kind, mark in (("single", "'"), ("double", '"')):
            if match[kind] is not None:
                inner = match[kind].replace(mark * 2, mark)
                return match[0] if inner in self._names else "?"
        return "?"

    def result(self, value: T) -> T:
        """Hide what is secret of a result: a dataclass, a text, or a sequence of them."""
        return self._shown(value) if self.worn else value

    def _shown(self, value: Any) -> Any:
        if isinstance(value, About):
            return About(value.topic, self.text(value), lasting=value.lasting)
        if type(value) is str:
            return self.text(value)
        if type(value) in (tuple, list):
            return type(value)(self._shown(item) for item in value)
        if is_dataclass(value) and not isinstance(value, (type, *OPEN)):
            return self._veiled(value)
        return value

    def _veiled(self, value: Any) -> Any:
        treated = SECRETS.get(type(value), {})
        changed = {}
        for field in fields(value):
            before = getattr(value, field.name)
            hide = treated.get(field.name)
            after = self._shown(before) if hide is None else hide(self, before)
            if field.init and after is not before and after != before:
                changed[field.name] = after
        return replace(value, **changed) if changed else value

    def telling(self, tell: Tell) -> Tell:
        """Return what tells of progress without what is secret."""
        return lambda text, fraction: tell(self.result(text), fraction)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Take what is secret out of an error that passes, and out of what it came from."""
        try:
            yield
        except Exception as error:
            if self.worn:
                self._clear(error)
            raise

    def _clear(self, error: BaseException) -> None:
        """Rewrite an error in place, so that its type and its traceback stay."""
        said = {part for part in _server_words(error) if part}
        error.__cause__ = error.__context__ = None
        for name in ("args", "__notes__"):
            given = getattr(error, name, None)
            if given is not None:
                setattr(error, name, type(given)(self._without(item, said) for item in given))

    def _without(self, item: object, said: Collection[str]) -> object:
        """The server's own words may hold a value anywhere: they give way to what kind it was."""
        if not isinstance(item, str):
            return item
        for words in sorted(said, key=len, reverse=True):
            item = item.replace(words, "the server refused it, in words that are hidden here")
        return self.text(item)


def _literals(text: str) -> Iterator[str]:
    """Find the constants of SQL, without their quotes; pure."""
    for match in CONSTANTS.finditer(text):
        if match["string"] is not None:
            inner = match["string"].partition("'")[2].removesuffix("'")
            yield inner.replace("''", "'") if inner else match["string"].strip("$")
            yield from re.split(r"[%_]+", inner)  # what LIKE looks for
        elif match["number"] is not None:
            yield match["number"]


def _first_word(value: str) -> str:
    """Return the word by which a value is looked for; empty where it has none; pure."""
    found = WORD.search(value)
    return found[0].lower() if found else ""


def _tells(value: str) -> bool:
    """Return whether a value says something by itself, where it stands in prose; pure."""
    if value.replace(".", "").isdigit():
        return sum(character.isdigit() for character in value) >= FEWEST_DIGITS
    return len(value) >= SHORTEST


def _server_words(error: BaseException) -> Iterator[str]:
    """Find what a server said, in an error and in all that it came from; pure."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        waiting += [one.__cause__, one.__context__]
        # Without a code it is libpq that speaks, of the connection; class 42 names what is not there.
        if isinstance(one, psycopg.Error) and one.sqlstate and not one.sqlstate.startswith("42"):
            diag = one.diag
            yield from (diag.message_primary or "", diag.message_detail or "", str(one))
            yield from (diag.message_hint or "", diag.context or "")


OFF = Veil(worn=False)
"""Hides nothing."""
