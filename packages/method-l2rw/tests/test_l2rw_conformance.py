from reweight_core.testing import MethodSuite


class TestL2RW(MethodSuite):
    name = "l2rw"


class TestRandom(MethodSuite):
    name = "random"


class TestCleanOnly(MethodSuite):
    name = "clean-only"


class TestWeighted(MethodSuite):
    name = "weighted"
