"""HypoPG, an extension inside the target, behind the what-if interface."""

from __future__ import annotations
