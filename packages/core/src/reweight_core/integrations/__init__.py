"""Reweighting in the training loops of other libraries; each file needs its library, and nothing else imports it."""
