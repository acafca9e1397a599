"""How large an index is or becomes, and how high, from the planner's statistics alone."""

from indexlab.sizes.btree import PAGE
from indexlab.sizes.estimates import SizeEstimate, estimate, height

__all__ = ["PAGE", "SizeEstimate", "estimate", "height"]
