"""Audit, apply and benchmark PostgreSQL index plans."""
