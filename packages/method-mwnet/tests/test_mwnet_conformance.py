from reweight_core.testing import MethodSuite


class TestMWNet(MethodSuite):
    name = "mwnet"
