"""What all tests share."""

import signal

import pytest
from hypothesis import settings

# how long an example takes says more of the machine than of the code
settings.register_profile("reweight", deadline=None)
settings.load_profile("reweight")

# a shell lets the jobs behind it ignore interrupts, and their children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _cache_of_the_tests(tmp_path_factory, monkeypatch):
    """Keep decoded images out of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
