from reweight_core.testing import MethodSuite


class TestGDW(MethodSuite):
    name = "gdw"
