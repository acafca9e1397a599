"""The impact as tables: for a page and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from indexlab import display, explain, units
from indexlab.display import Markup
from indexlab.impact.matrix import Candidate, Existing, Impact, QueryImpact, planned_apart


def page(impact: Impact) -> Markup:
    """Show what was asked, then the queries, the planned indexes and the existing ones."""
    return Markup(
        "".join((_queries(impact), _candidates(impact), _existing(impact), _asked(impact)))
    )


def _queries(impact: Impact) -> str:
    numeric = ("weight", "cost before", "cost after", "change")
    return display.table(
        ["query", *numeric, "indexes used", "plans"],
        [_query(item) for item in impact.queries],
        caption=headline(impact),
        numeric=numeric,
    )


def headline(impact: Impact) -> str:
    """Say in a sentence what the plan does to the workload as a whole."""
    better = [q for q in impact.simulated if q.rise < 0.99]
    total = units.plural(len(impact.simulated), "query")
    said = f"the plan makes {len(better)} of {total} cheaper"
    if impact.cost_before > 0:
        said += (
            f"; cost times weight {units.cost(impact.cost_before)} -> "
            f"{units.cost(impact.cost_after)}"
        )
    return said


def change(query: QueryImpact) -> str:
    """Say how the cost of a query changes: `43.1x cheaper`."""
    words = units.factor(query.rise) if query.rise > 0 else "unknown"
    return words.replace("faster", "cheaper").replace("slower", "dearer")


def _query(item: QueryImpact) -> tuple[object, ...]:
    if item.problem:
        problem = f"not simulated, because {item.problem}"
        return (item.query, f"{item.weight:g}", "", "", "", problem, item.note)
    return (
        item.query,
        f"{item.weight:g}",
        units.cost(item.cost_before),
        units.cost(item.cost_after),
        change(item),
        ", ".join(item.uses_after) or "none",
        _plans(item),
    )


def values_words(item: QueryImpact) -> str:
    """Say for how many values a query was planned, and where they make a difference."""
    if item.generic:
        words = "planned for any values"
    elif item.sets == 1:
        words = "1 set of values"
    else:
        words = f"{item.sets} sets of values"
    if len(item.variants) > 1:
        words += f", {len(item.variants)} different plans"
    return "; ".join(filter(None, (words, item.note, item.unseen)))


def _plans(item: QueryImpact) -> Markup:
    parts = [f"<summary>{display.escape(values_words(item))}</summary>"]
    for number, variant in enumerate(item.variants, 1):
        sets = f"plan {number}, for {units.plural(variant.sets, 'set')} of values: "
        told = explain.difference(variant.before, variant.after)
        parts.append(f"<p>{display.escape((sets if len(item.variants) > 1 else '') + told)}</p>")
        if told != "same plan":
            parts.append(f"<p>before</p>{explain.tree(variant.before)}<p>after</p>")
        parts.append(explain.tree(variant.after))
    return Markup(f'<details class="il-fold">{"".join(parts)}</details>')


def use(impact: Impact, item: Candidate) -> str:
    """Say which queries use a planned index, or why none does."""
    if item.problem:
        return f"not simulated, because {item.problem}"
    users = impact.users(item.name)
    if users:
        return ", ".join(query.query for query in users)
    instead = impact.supersedes(item.name)
    if instead:
        return f"none: {', '.join(instead)} is used instead"
    return "none"


def _candidates(impact: Impact) -> str:
    if not impact.candidates:
        return ""
    numeric = ("size", "worth alone", "worth beside the others")
    rows = [
        (
            item.name,
            "" if item.problem else ("~ " if item.rough else "") + units.size(item.bytes),
            "" if item.problem else units.cost(impact.worth_alone(item.name)),
            "" if item.problem else units.cost(impact.worth(item.name)),
            use(impact, item),
        )
        for item in impact.candidates
    ]
    return display.table(
        ["planned index", *numeric, "used by"],
        rows,
        caption="what each planned index is worth: cost times weight that it saves",
        numeric=numeric,
    )


def _existing(impact: Impact) -> str:
    if not impact.existing:
        return ""
    numeric = ("size", "lost without it")
    rows = [(item.name, units.size(item.bytes), *_lost(impact, item)) for item in impact.existing]
    return display.table(
        ["existing index", *numeric, "used now by", "would suffer"],
        rows,
        caption="existing indexes that enforce nothing: what would be lost without each, "
        "the plan in place",
        numeric=numeric,
    )


def _lost(impact: Impact, item: Existing) -> tuple[str, str, str]:
    before = ", ".join(query.query for query in impact.users_before(item.name)) or "none"
    if not item.tried:
        return "unknown", before, "not tried: it cannot be hidden here"
    losses = impact.losses(item.name)
    words = ", ".join(
        f"{loss.query} ({units.cost(loss.before)} -> {units.cost(loss.after)})" for loss in losses
    )
    return units.cost(sum(loss.worth for loss in losses)), before, words or "none"


def _asked(impact: Impact) -> str:
    notes = [*impact.notes, "Costs do not contain what writes pay for each index."]
    listed = "".join(f"<li>{display.escape(note)}</li>" for note in notes)
    return f"<p>Asked: {display.escape(impact.backend)}.</p><ul>{listed}</ul>"


def lines(impact: Impact) -> Iterator[str]:
    """Write the impact as lines of text."""
    yield display.clean(headline(impact))
    for item in impact.queries:
        if item.problem:
            yield display.clean(f"{item.query}: not simulated, because {item.problem}")
            continue
        yield display.clean(
            f"{item.query}: {units.cost(item.cost_before)} -> {units.cost(item.cost_after)} "
            f"({change(item)}); uses {', '.join(item.uses_after) or 'no index'}; "
            f"{values_words(item)}"
        )
        yield from (f"    {display.clean(words)}" for words in planned_apart(item))
    for candidate in impact.candidates:
        yield display.clean(
            f"{candidate.name}: {units.size(candidate.bytes)}, worth "
            f"{units.cost(impact.worth_alone(candidate.name))} alone, "
            f"{units.cost(impact.worth(candidate.name))} beside the others; used by "
            f"{use(impact, candidate)}"
        )
    yield display.clean(f"asked: {impact.backend}")
