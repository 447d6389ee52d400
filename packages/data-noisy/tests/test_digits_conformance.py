from reweight_core.testing import DataSuite


class TestDigits(DataSuite):
    name = "digits"


class TestDigitsLongTail(DataSuite):
    name = "digits-lt"
