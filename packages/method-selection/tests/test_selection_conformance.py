from reweight_core.testing import ComponentSuite, MethodSuite


class TestCoTeaching(MethodSuite):
    name = "co-teaching"


class TestHardMining(MethodSuite):
    name = "hard-mining"


class TestCrust(MethodSuite):
    name = "crust"


class TestResample(ComponentSuite):
    name = "resample"
