"""An audit's document for people and machines: terminal text, annotations of GitHub, SARIF, Markdown."""

from indexlab.formats.github import github
from indexlab.formats.remarks import Remark, Source, fails, remarks
from indexlab.formats.sarif import sarif
from indexlab.formats.summary import finding, summary
from indexlab.formats.text import Line, colored, plain, text

__all__ = [
    "Line",
    "Remark",
    "Source",
    "colored",
    "fails",
    "finding",
    "github",
    "plain",
    "remarks",
    "sarif",
    "summary",
    "text",
]
