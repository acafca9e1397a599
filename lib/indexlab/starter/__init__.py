"""Begin: a folder with a plan, a workload and CI files to start from."""

from indexlab.starter.drafting import Draft, draft, examples
from indexlab.starter.folder import write

__all__ = ["Draft", "draft", "examples", "write"]
