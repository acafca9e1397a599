"""Copy what a reader of a run sees into reports/sample: its page, what that links to, its picture."""

from __future__ import annotations

import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

MOST_BYTES = 2 * 1024 * 1024
LEFT_OUT = (".json", ".ipynb")
"""For programs and for the kit: what a reader looks at is in the pages."""
PICTURES = (("charts/before_after.png", "before_after.png"), ("summary.png", "summary.png"))


class Links(HTMLParser):
    """Collects the files beside a page that it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of a link to a file beside the page."""
        href = dict(attrs).get("href") if tag == "a" else None
        if href and not href.startswith("#") and ":" not in href:
            self.found.add(unquote(href.partition("#")[0]))


def linked(run: Path, page: str = "index.html") -> set[str]:
    """Return a page and the files of its run that can be reached from it."""
    found, waiting = set(), {page}
    while waiting:
        name = waiting.pop()
        found.add(name)
        if name.endswith(".html"):
            links = Links()
            links.feed((run / name).read_text(encoding="utf-8"))
            beside = {(Path(name).parent / link).as_posix() for link in links.found}
            kept = {link for link in beside if not link.endswith(LEFT_OUT)}
            waiting |= {link for link in kept if (run / link).is_file()} - found
    return found


def without_dead_links(page: str, kept: set[str]) -> str:
    """Take the lines of a list of files out that are not kept."""

    def line(match: re.Match[str]) -> str:
        return match[0] if match["href"] in kept else ""

    return re.sub(r'<li><a href="(?P<href>[^"#:]+)">.*?</li>\n?', line, page)


def copy(run: Path, sample: Path) -> None:
    """Replace a sample by what there is to see of a run; nothing is replaced if that is too much."""
    wanted = {name: name for name in linked(run)} | dict(PICTURES) | {"summary.md": "summary.md"}
    outside = [name for name in wanted if not (run / name).resolve().is_relative_to(run.resolve())]
    total = sum((run / name).stat().st_size for name in wanted)
    if outside or total > MOST_BYTES:
        sys.exit(f"no sample: {total} bytes, at most {MOST_BYTES}; outside of the run: {outside}")
    shutil.rmtree(sample, ignore_errors=True)
    for name, copied in wanted.items():
        place = sample / copied
        place.parent.mkdir(parents=True, exist_ok=True)
        data = (run / name).read_bytes()
        if name.endswith(".html"):
            data = without_dead_links(data.decode(), set(wanted)).encode()
        place.write_bytes(data)
    (sample / ".sample").write_text("Made by make sample; not a run of yours.\n", encoding="utf-8")


if __name__ == "__main__":
    copy(Path(sys.argv[1]), Path(sys.argv[2]))
