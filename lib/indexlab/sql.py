"""SQL text through PostgreSQL's own grammar; the only module that knows the parser."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import postgast
from postgast.pg_query_pb2 import C_COMMENT, SQL_COMMENT, Node, ParseResult, ScanToken

from indexlab.errors import InputError

MAX_IDENTIFIER_BYTES = 63


@dataclass(frozen=True, slots=True)
class RelationName:
    """A relation's name as written: with its schema, or without."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        parts = (self.name,) if self.schema is None else (self.schema, self.name)
        return ".".join(quote(part) for part in parts)


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """One statement of a text: its parse tree, its words and where they stand."""

    node: Node
    text: str
    line: int
    """Line of the first word, counted from 1."""
    comment: str
    """The comment directly above, without its marks; empty when there is none."""

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
        raise InputError(f"not UTF-8 text (byte {error.start})", source=path) from None
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
    if "\x00" in text:
        line = first_line + text[: text.index("\x00")].count("\n")
        raise InputError("a NUL character: this is not SQL text", source=source, line=line)
    try:
        tree = postgast.parse(text)
        tokens = postgast.scan(text).tokens
    except postgast.PgQueryError as error:
        before = text[: max(error.cursorpos - 1, 0)]
        line = first_line + before.count("\n")
        raise InputError(
            f"{error.message} (as PostgreSQL reads it)", source=source, line=line
        ) from None
    return tuple(_statements(text, tree, list(tokens), first_line))


def _statements(
    text: str, tree: ParseResult, tokens: list[ScanToken], first_line: int
) -> Iterator[Statement]:
    data = text.encode()
    newlines = [i for i, byte in enumerate(data) if byte == 0x0A]

    def line_of(offset: int) -> int:
        return first_line + bisect_right(newlines, offset - 1)

    words = [token for token in tokens if token.token not in (SQL_COMMENT, C_COMMENT)]
    word_starts = [token.start for token in words]
    comments = {
        line_of(token.end - 1): token
        for token in tokens
        if token.token in (SQL_COMMENT, C_COMMENT) and _stands_alone(data, token.start)
    }
    for raw in tree.stmts:
        end = raw.stmt_location + raw.stmt_len if raw.stmt_len else len(data)
        start = word_starts[bisect_right(word_starts, raw.stmt_location - 1)]
        above: list[str] = []
        line = line_of(start)
        while (token := comments.get(line - 1)) is not None:
            above.insert(0, _comment_text(data[token.start : token.end].decode()))
            line = line_of(token.start)
        yield Statement(
            raw.stmt,
            data[start:end].decode().rstrip(),
            line_of(start),
            "\n".join(part for part in above if part),
        )


def _stands_alone(data: bytes, start: int) -> bool:
    return not data[data.rfind(b"\n", 0, start) + 1 : start].strip()


def _comment_text(comment: str) -> str:
    if comment.startswith("--"):
        return comment.lstrip("-").strip()
    lines = comment.removeprefix("/*").removesuffix("*/").splitlines()
    return "\n".join(line.strip().lstrip("*").strip() for line in lines).strip()


def deparse(node: Node) -> str:
    """Write one statement's parse tree as SQL, identifiers quoted where they must be."""
    result = ParseResult()
    result.stmts.add().stmt.CopyFrom(node)
    return postgast.deparse(result)


def deparse_expression(expression: Node) -> str:
    """Write one expression's parse tree as SQL."""
    holder = postgast.parse("SELECT 1")
    target = holder.stmts[0].stmt.select_stmt.target_list[0].res_target
    target.val.CopyFrom(expression)
    return postgast.deparse(holder).removeprefix("SELECT ")


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

    Returns:
        The text with numbered placeholders, and the names in order of number.

    Raises:
        InputError: the scanner does not accept the text, or it has a numbered placeholder already.
    """
    try:
        tokens = list(postgast.scan(text).tokens)
    except postgast.PgQueryError as error:
        raise InputError(str(error.message), source=source, line=first_line) from None
    data = text.encode()
    names: list[str] = []
    pieces: list[bytes] = []
    done = 0
    for colon, word in zip(tokens, [*tokens[1:], tokens[-1]] if tokens else [], strict=True):
        spelled = data[colon.start : colon.end]
        if spelled.startswith(b"$") and spelled[1:].isdigit():
            line = first_line + data[: colon.start].count(b"\n")
            raise InputError(
                f"placeholder {spelled.decode()!r}: write it as :name with a sampler",
                source=source,
                line=line,
            )
        name = data[word.start : word.end].decode()
        if spelled != b":" or word.start != colon.end or not name.isidentifier():
            continue
        if name not in names:
            names.append(name)
        pieces += [data[done : colon.start], f"${names.index(name) + 1}".encode()]
        done = word.end
    return b"".join([*pieces, data[done:]]).decode(), tuple(names)
