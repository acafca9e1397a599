"""A run in Markdown, to be put into a comment of a pull request: nothing in it acts or links."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from indexlab import units
from indexlab.display import clean
from indexlab.runs import Json, documents

MARKS = frozenset("\\`*_[]#!|~$")
"""What may be Markdown within a line, in GitHub's kind or in GitLab's."""
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
REFERRING = frozenset("@#!~%$:&")
"""What begins a mention, an issue, a label or an emoji where a word follows."""
APART = "&#8203;"
ADDRESS = re.compile(r"(?<=:)(?=//)|(?<=www)(?=\.)", re.IGNORECASE)
"""Where an address would be taken for a link."""
MOST_ROWS = 60
LONGEST_NAME, LONGEST_ALT = 120, 4_000
"""Characters: a comment holds some ten thousands."""
GRAVE = ("error", "warning")


def summary(found: dict[str, Json], *, chart: str = "", alt: str = "") -> str:
    """Write a run as Markdown: the finding, the verdicts, what changed, what was built.

    Args:
        found: the documents of the run, by stage: `run`, `audit`, `apply`, `benchmark`.
        chart: the picture beside it; empty without one.
        alt: its words for those who do not see it.
    """
    audit, benchmark = found.get("audit"), found.get("benchmark")
    apply = found.get("apply")
    parts = [f"### {escaped(finding(found))}"]
    run = found.get("run") or {}
    parts += [f"> **Mind:** {escaped(notice)}" for notice in run.get("notices", ())]
    if chart:
        parts.append(f"![{escaped(units.shortened(alt, LONGEST_ALT))}]({chart})")
    if audit is not None:
        parts.append(
            _table(("verdict", "index", "line", "outcome", "why"), _verdicts(audit, apply))
        )
    elif apply is not None:
        parts.append(_table(("outcome", "index", "size", "why"), _steps(apply)))
    if benchmark is not None:
        parts.append(_changes(benchmark))
    parts.append(escaped(_source(found)))
    return "\n\n".join(parts) + "\n"


def finding(found: dict[str, Json]) -> str:
    """Say in a sentence what came of a run; pure."""
    audit, apply, benchmark = (found.get(name) for name in ("audit", "apply", "benchmark"))
    parts = []
    if benchmark is not None and benchmark["headline"] is not None:
        headline = benchmark["headline"]
        if headline["queries"]:
            parts.append(
                f"{units.ms(headline['before_ms'])} → {units.ms(headline['after_ms'])} "
                f"({units.gained(headline['ratio'], decided=headline.get('decided', True))}) over the "
                f"{units.plural(len(headline['queries']), 'query')} with a new index"
            )
        else:
            parts.append("no query uses the new indexes")
    elif benchmark is not None:
        parts.append(f"{units.plural(len(benchmark['queries']), 'query')} measured")
    if apply is not None and apply["executed"]:
        built = documents.built(apply)
        size = units.size(sum(step["bytes"] for step in built))
        parts.append(f"{units.plural(len(built), 'index')} built, {size}")
    if audit is not None:
        counts = Counter(item["verdict"] for item in audit["statements"])
        told = ", ".join(f"{number} to {verdict}" for verdict, number in counts.items())
        parts.append(f"{units.plural(len(audit['statements']), 'statement')}: {told}")
    return "; ".join(parts) or "nothing was done"


def _verdicts(audit: Json, apply: Json | None) -> Iterator[tuple[str, ...]]:
    steps = documents.by_index(apply) if apply else {}
    for item in audit["statements"]:
        step = steps.get(item["qualified"])
        grave = [
            finding["message"]
            + (f" (ignored: {finding['suppressed']})" * bool(finding["suppressed"]))
            for finding in item["findings"]
            if finding["severity"] in GRAVE
        ]
        yield (
            f"**{escaped(item['verdict'])}**",
            _code(item["index"]),
            str(item["line"]),
            "" if step is None else escaped(_outcome(step)),
            escaped("; ".join(grave)),
        )


def _steps(apply: Json) -> Iterator[tuple[str, ...]]:
    for step in apply["steps"]:
        size = units.size(step["bytes"]) if step["bytes"] else ""
        why = " ".join(filter(None, (step["error"], step["note"])))
        yield f"**{escaped(step['outcome'])}**", _code(step["index"]), size, escaped(why)


def _outcome(step: Json) -> str:
    word = step["outcome"].replace("_", " ")
    return f"{word}, {units.size(step['bytes'])}" if step["bytes"] else word


def _changes(benchmark: Json) -> str:
    if not benchmark["changes"]:
        rows = (
            (_code(q["query"]), *(units.ms(q[f"p{p}_ms"]) for p in (50, 95, 99)))
            for q in benchmark["queries"]
        )
        return _table(("query", "p50", "p95", "p99"), rows)
    rows = (
        (
            _code(change["query"]),
            _bound(change, "before"),
            _bound(change, "after"),
            f"{change['ratio']:.3g} ({change['ratio_low']:.3g} to {change['ratio_high']:.3g})",
            f"**{escaped(change['verdict'])}**",
        )
        for change in benchmark["changes"]
    )
    return _table(("query", "before", "after", "after / before (95 %)", "verdict"), rows)


def _bound(change: Json, side: str) -> str:
    """Write a median, or what it is at least."""
    return ("≥ " if change["bound"] in (side, "both") else "") + units.ms(change[f"{side}_ms"])


def _source(found: dict[str, Json]) -> str:
    target = next(
        (one["target"] for name in ("audit", "benchmark", "apply") if (one := found.get(name))),
        None,
    )
    run = found.get("run") or found.get("benchmark") or {}
    parts = [
        "indexlab",
        str(run.get("started", ""))[:16].replace("T", " "),
        "" if target is None else f"PostgreSQL {target['version_text']}",
        "texts and values hidden" if any(one.get("redacted") for one in found.values()) else "",
    ]
    return ", ".join(filter(None, parts))


def _table(columns: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rest = len(lines) - MOST_ROWS
    more = [f"\nand {rest} more: the report has all"] if rest > 0 else []
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*head, *lines[:MOST_ROWS], *more])


def escaped(text: object) -> str:
    r"""Write a text so that no Markdown, HTML, mention or link comes of it, within a line.

    Mentions and references are looked for after Markdown is done, so that no escape keeps them from
    being found: a space without width does.

    >>> print(escaped("a|b @all <b> [x](http://y)"))
    a\|b @&#8203;all &lt;b&gt; \[x\](http:&#8203;//y)
    """
    flat = " ".join(clean(text).split())
    following = flat[1:] + " "
    marked = "".join(
        _shown(character) + (APART if character in REFERRING and after.isalnum() else "")
        for character, after in zip(flat, following, strict=False)
    )
    return ADDRESS.sub(APART, marked)


def _shown(character: str) -> str:
    return ENTITIES.get(character) or ("\\" if character in MARKS else "") + character


def _code(text: object) -> str:
    """Write a name as code; a very long one without its middle."""
    flat = units.shortened(" ".join(clean(text).split()), LONGEST_NAME)
    return f"<code>{''.join(_as_entity(character) for character in flat)}</code>"


def _as_entity(character: str) -> str:
    """Whatever is neither letter, digit nor space is written by its number."""
    plain = character.isalnum() or character in " "
    return character if plain else f"&#{ord(character)};"
