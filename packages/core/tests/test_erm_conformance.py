from reweight_core.testing import MethodSuite


class TestERM(MethodSuite):
    name = "erm"
