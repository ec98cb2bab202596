"""Accounts and decisions in SQL: tables, writing, asking, the recorder of a bot and its followers."""
