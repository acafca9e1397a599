"""An audit as SARIF 2.1.0, the interchange format of code scanners."""

from __future__ import annotations

from urllib.parse import quote

from indexlab import rules
from indexlab.display import clean
from indexlab.formats.remarks import Remark, Source, remarks
from indexlab.runs import Json

VERSION = "2.1.0"
LEVELS = {"error": "error", "warning": "warning", "info": "note"}


def sarif(document: Json, source: Source, *, version: str, verbose: bool = False) -> Json:
    """Write an audit as a log of one run; what the plan accepts is in it as suppressed.

    Args:
        document: of an audit, as `audit.json` holds it.
        source: the plan file.
        version: of the kit.
        verbose: whether notes of severity info are wanted, too.
    """
    told = remarks(document, verbose=verbose)
    used = sorted({remark.rule for remark in told})
    return {
        "version": VERSION,
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "indexlab",
                        "version": version,
                        "semanticVersion": version,
                        "rules": [_rule(name) for name in used],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(remark, source, used.index(remark.rule)) for remark in told],
            }
        ],
    }


def _rule(name: str) -> Json:
    page = rules.page(name)
    return {
        "id": name,
        "shortDescription": {"text": rules.summary(name)},
        "help": {"text": page, "markdown": page},
    }


def _result(remark: Remark, source: Source, number: int) -> Json:
    fix = f"\nFix: {remark.fix}" if remark.fix else ""
    result: Json = {
        "ruleId": remark.rule,
        "ruleIndex": number,
        "level": LEVELS[remark.severity],
        "message": {"text": _unlinked(remark.message + fix)},
        "locations": [_location(remark, source)],
        "properties": {"evidence": [list(pair) for pair in remark.evidence]},
    }
    if remark.suppressed:
        result["suppressions"] = [{"kind": "inSource", "justification": remark.suppressed}]
    return result


def _unlinked(text: str) -> str:
    """Write a message in which nothing is hidden, and in which no viewer finds a link."""
    return clean(text).replace("](", "] (")


def _location(remark: Remark, source: Source) -> Json:
    physical: Json = {"artifactLocation": {"uri": quote(source.path)}}
    place = remark.place
    if place is not None:
        physical["region"] = {
            "startLine": place.line,
            "startColumn": place.column,
            "endLine": place.end_line,
            "endColumn": place.end_column,
        }
    return {
        "physicalLocation": physical,
        "logicalLocations": [{"fullyQualifiedName": remark.about}],
    }
