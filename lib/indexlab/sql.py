"""SQL text through PostgreSQL's own grammar; the only module that runs the parser."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import postgast
from google.protobuf.descriptor_pb2 import FileDescriptorProto  # type: ignore[import-untyped]
from google.protobuf.descriptor_pool import DescriptorPool  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from postgast.pg_query_pb2 import (
    C_COMMENT,
    SQL_COMMENT,
    Node,
    ObjectType,
    ParseResult,
    ScanToken,
)

from indexlab.errors import InputError

MAX_IDENTIFIER_BYTES = 63
COMMENTS = (SQL_COMMENT, C_COMMENT)
POSITIONS = ("location", "rexpr_list_start", "rexpr_list_end", "list_start", "list_end")
"""Fields of the grammar that say where words stand, not what they mean."""
OWN = "/* indexlab */"
"""Stands in what the kit asks about the rows of a target, for who reads pg_stat_statements."""


@dataclass(frozen=True, slots=True)
class RelationName:
    """A relation's name as written: with its schema, or without."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        parts = (self.name,) if self.schema is None else (self.schema, self.name)
        return ".".join(quote(part) for part in parts)


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment that stands on lines of its own."""

    text: str
    """As written, with its marks."""
    line: int
    """Its first line, counted from 1."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a statement, as PostgreSQL's scanner sees it."""

    value: str
    """A name as the server would read it, anything else as written."""
    start: int
    """Where it stands, in characters from 0."""
    end: int
    is_name: bool
    """Whether it is an identifier or a key word."""


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement of a text: its parse tree, its words and where they stand."""

    node: Node
    text: str
    line: int
    """Line of the first word, counted from 1."""
    comment: str
    """The comment directly above, without its marks; empty when there is none."""
    column: int = 1
    """Where the first word stands in its line, in characters from 1."""
    above: tuple[Comment, ...] = ()
    """The comments that `comment` was made of."""

    @property
    def kind(self) -> str:
        """Name of the parse node, such as `index_stmt`."""
        return self.node.WhichOneof("node") or ""

    @property
    def tree(self) -> Any:
        """The parse node itself, a protobuf message of PostgreSQL's grammar."""
        return getattr(self.node, self.kind)


def read_text(path: Path) -> str:
    """Read a text file of the user; reads only.

    Raises:
        InputError: the file is absent, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError("not UTF-8 text: save it as UTF-8", source=path, line=line) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", source=path) from None


def parse(text: str, source: str | Path, first_line: int = 1) -> tuple[Statement, ...]:
    """Split `text` into statements with their lines and comments.

    Args:
        text: any number of SQL statements.
        source: what errors call the text, usually its path.
        first_line: the line of `source` on which `text` begins.

    Raises:
        InputError: the grammar does not accept the text; names the line.
    """
    _check_text(text, source, first_line)
    try:
        tree = postgast.parse(text)
        tokens = postgast.scan(text).tokens
    except postgast.PgQueryError as error:
        raise _refused(error, text, source, first_line) from None
    except DecodeError:
        line = first_line + text[: _too_deep(text)].count("\n")
        raise InputError(
            "nested too deeply to be read: some forty operators or joins within each other",
            source=source,
            line=line,
        ) from None
    return tuple(_statements(text, tree, list(tokens), first_line))


def _check_text(text: str, source: str | Path, first_line: int) -> None:
    before, nul, _ = text.partition("\x00")
    if nul:
        line = first_line + before.count("\n")
        raise InputError("a NUL character: this is not SQL text", source=source, line=line)


def _refused(
    error: postgast.PgQueryError, text: str, source: str | Path, first_line: int
) -> InputError:
    line = first_line + text[: max(error.cursorpos - 1, 0)].count("\n")
    said = error.message.partition("\n")[0]  # it may repeat the rest of the text
    return InputError(f"{said} (as PostgreSQL reads it)", source=source, line=line)


def _too_deep(text: str) -> int:
    """Find the first statement whose tree the library cannot hand over."""
    start = 0
    for part in postgast.split(text):
        start = text.index(part, start)
        try:
            postgast.parse(part)
        except DecodeError:
            return start
        start += len(part)
    return start


def _statements(
    text: str, tree: ParseResult, tokens: list[ScanToken], first_line: int
) -> Iterator[Statement]:
    data = text.encode()
    newlines = [i for i, byte in enumerate(data) if byte == 0x0A]

    def line_of(offset: int) -> int:
        return first_line + bisect_right(newlines, offset - 1)

    words = [token for token in tokens if token.token not in COMMENTS]
    word_starts = [token.start for token in words]
    comments = {
        line_of(token.end - 1): token
        for token in tokens
        if token.token in COMMENTS and _stands_alone(data, token)
    }
    for raw in tree.stmts:
        end = raw.stmt_location + raw.stmt_len if raw.stmt_len else len(data)
        start = word_starts[bisect_left(word_starts, raw.stmt_location)]
        end = words[bisect_left(word_starts, end) - 1].end  # comments after it are not its text
        above: list[Comment] = []
        line = line_of(start)
        while (token := comments.get(line - 1)) is not None:
            line = line_of(token.start)
            above.insert(0, Comment(data[token.start : token.end].decode(), line))
        said = [comment_text(item.text) for item in above]
        yield Statement(
            raw.stmt,
            data[start:end].decode(),
            line_of(start),
            "\n".join(line for part in said for line in part.splitlines() if line),
            len(data[data.rfind(b"\n", 0, start) + 1 : start].decode()) + 1,
            tuple(above),
        )


def _stands_alone(data: bytes, token: ScanToken) -> bool:
    before = data[data.rfind(b"\n", 0, token.start) + 1 : token.start]
    after = data[token.end :].partition(b"\n")[0]
    return not before.strip() and not after.strip()


def comment_text(comment: str) -> str:
    """Return what a comment says, without its marks."""
    if comment.startswith("--"):
        return comment.lstrip("-").strip()
    lines = comment.removeprefix("/*").removesuffix("*/").splitlines()
    return "\n".join(line.strip().lstrip("*").strip() for line in lines).strip()


def line_comments(text: str) -> Iterator[Comment]:
    """Find every `--` comment of a text that the grammar accepts, wherever it stands."""
    data = text.encode()
    for token in postgast.scan(text).tokens:
        if token.token == SQL_COMMENT:
            line = data.count(b"\n", 0, token.start) + 1
            yield Comment(data[token.start : token.end].decode(), line)


def words(text: str) -> tuple[Word, ...]:
    """Split a text into its words, without comments; what the scanner refuses has none."""
    data = text.encode()
    found = []
    try:
        tokens = postgast.scan(text).tokens
    except postgast.PgQueryError:
        return ()
    for token in tokens:
        if token.token in COMMENTS:
            continue
        spelled = data[token.start : token.end].decode()
        start = len(data[: token.start].decode())
        is_name = spelled[0] in '"_' or spelled[0].isalpha()
        value = spelled
        if spelled.startswith('"'):
            value = truncate(spelled[1:-1].replace('""', '"'))
        elif is_name:
            value = truncate("".join(c.lower() if c.isascii() else c for c in spelled))
        found.append(Word(value, start, start + len(spelled), is_name))
    return tuple(found)


def without_outer_comments(text: str) -> str:
    """Return the words of `text` without what surrounds them: comments, space and semicolons."""
    data = text.encode()
    words = [
        token
        for token in postgast.scan(text).tokens
        if token.token not in COMMENTS and data[token.start : token.end] != b";"
    ]
    return data[words[0].start : words[-1].end].decode() if words else ""


def without_comments(text: str) -> str:
    r"""Return a text with a space in place of each comment; what stands in quotes is left alone.

    >>> without_comments("SELECT 1 /* one */ -- and\n , '--2'")
    "SELECT 1    \n , '--2'"
    """
    data = text.encode()
    pieces: list[bytes] = []
    done = 0
    for token in postgast.scan(text).tokens:
        if token.token in COMMENTS:
            pieces += [data[done : token.start], b" "]
            done = token.end
    return b"".join([*pieces, data[done:]]).decode()


def nodes(tree: Any, *kinds: str) -> Iterator[Any]:
    """Walk the parse nodes of these kinds, such as `ColumnRef`, parents first."""
    return (node for _, node in postgast.walk(tree) if node.DESCRIPTOR.name in kinds)


def split(text: str) -> tuple[str, ...]:
    """Split a text into its statements by the scanner alone, which reads any version's SQL."""
    return tuple(postgast.split(text))


def copied(node: Node) -> Node:
    """Copy a parse tree, to change the copy."""
    copy = Node()
    copy.CopyFrom(node)
    return copy


def object_word(number: int) -> str:
    """Name a kind of object, such as `collation`, by its number in the grammar."""
    return str(ObjectType.Name(number)).removeprefix("OBJECT_").lower().replace("_", " ")


def deparse(node: Node, *, verified: bool = True) -> str:
    """Write one statement's parse tree as SQL, identifiers quoted where they must be.

    Args:
        node: a statement.
        verified: read it back and compare; without, an expression may come out as another one.

    Raises:
        InputError: what the library writes would not be read back as the same tree.
    """
    result = ParseResult()
    result.stmts.add().stmt.CopyFrom(node)
    return _written(result) if verified else str(postgast.deparse(result))


def deparse_expression(expression: Node) -> str:
    """Write one expression's parse tree as SQL.

    Raises:
        InputError: what the library writes would not be read back as the same tree.
    """
    holder = ParseResult()
    holder.CopyFrom(_select_one())
    target = holder.stmts[0].stmt.select_stmt.target_list[0].res_target
    target.val.CopyFrom(expression)
    return _written(holder, "SELECT ")


@lru_cache(maxsize=1)
def _select_one() -> ParseResult:
    return postgast.parse("SELECT 1")


def _written(tree: ParseResult, prefix: str = "") -> str:
    # The library drops parentheses that matter, as in (NOT a) IS NULL, and quotes, as in
    # f("desc" => 1): nobody may get another index than the one that was asked for.
    text = postgast.deparse(tree)
    try:
        same = _without_positions(postgast.parse(text)) == _without_positions(tree)
    except (postgast.PgQueryError, DecodeError):
        same = False
    if not same:
        raise InputError(
            f"would be written back as {text.removeprefix(prefix)!r}, which is not the same: "
            "write it in other words"
        )
    return text.removeprefix(prefix)


def _without_positions(tree: ParseResult) -> list[Any]:
    bare = _grammar_without_positions().FromString(tree.SerializeToString())
    bare.DiscardUnknownFields()
    return [statement.stmt for statement in bare.stmts]


@lru_cache(maxsize=1)
def _grammar_without_positions() -> Any:
    """Make ParseResult once more without the fields of positions, which are then left out in C.

    To walk a tree in Python and clear them takes longer than all else that is done with it.
    """
    file = FileDescriptorProto()
    ParseResult.DESCRIPTOR.file.CopyToProto(file)
    for message in file.message_type:
        kept = [item for item in message.field if item.name not in POSITIONS]
        del message.field[:]
        message.field.extend(kept)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(ParseResult.DESCRIPTOR.full_name))


@lru_cache(maxsize=65536)
def quote(identifier: str) -> str:
    """Quote an identifier if PostgreSQL would not read it back unquoted.

    >>> quote("bookings"), quote("Album"), quote("select"), quote('a"b')
    ('bookings', '"Album"', '"select"', '"a""b"')
    """
    if re.fullmatch(r"[a-z_][a-z0-9_$]*", identifier):
        token = postgast.scan(identifier).tokens[0]
        if token.keyword_kind in (0, 1):  # none or unreserved
            return identifier
    return '"' + identifier.replace('"', '""') + '"'


def truncate(identifier: str) -> str:
    """Cut a name to 63 bytes at a character's border, as the server does silently."""
    return identifier.encode()[:MAX_IDENTIFIER_BYTES].decode(errors="ignore")


def bind_names(text: str, source: str | Path, first_line: int) -> tuple[str, tuple[str, ...]]:
    """Replace `:name` placeholders by `$1`, `$2`, ...

    Quoted text, comments, casts (`::`) and `:=` are left alone: PostgreSQL's own scanner decides.
    A text with numbered placeholders of its own, as pg_stat_statements shows it, stays as it is.

    Returns:
        The text with numbered placeholders, and the names in order of number.

    Raises:
        InputError: the scanner does not accept the text, or it has placeholders of both kinds.
    """
    _check_text(text, source, first_line)
    try:
        tokens = list(postgast.scan(text).tokens)
    except postgast.PgQueryError as error:
        raise _refused(error, text, source, first_line) from None
    data = text.encode()
    names: list[str] = []
    pieces: list[bytes] = []
    done = 0
    numbered: ScanToken | None = None
    for colon, word in zip(tokens, [*tokens[1:], tokens[-1]] if tokens else [], strict=True):
        spelled = data[colon.start : colon.end]
        if spelled.startswith(b"$") and spelled[1:].isdigit():
            numbered = numbered or colon
        name = data[word.start : word.end].decode()
        if spelled != b":" or word.start != colon.end or not name.isidentifier():
            continue
        if name not in names:
            names.append(name)
        pieces += [data[done : colon.start], f"${names.index(name) + 1}".encode()]
        done = word.end
    if numbered is not None and names:
        raise InputError(
            f"placeholder {data[numbered.start : numbered.end].decode()!r} beside "
            f":{names[0]}: write all as :name with a sampler, or none",
            source=source,
            line=first_line + data[: numbered.start].count(b"\n"),
        )
    return b"".join([*pieces, data[done:]]).decode(), tuple(names)
