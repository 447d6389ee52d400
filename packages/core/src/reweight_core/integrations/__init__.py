"""Reweighting in other libraries: each file needs its own, and nothing else imports it."""
