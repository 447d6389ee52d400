from typing import ClassVar

from reweight_core.testing import ComponentSuite, MethodSuite


class TestINSW(MethodSuite):
    name = "insw"


class TestSoftLabel(MethodSuite):
    name = "soft-label"


class TestLabelRows(MethodSuite):
    name = "soft-label"
    options: ClassVar = {"soft_labels": "rows"}


class TestGenLabel(MethodSuite):
    name = "gen-label"
    options: ClassVar = {"warmup_epochs": 0}


class TestGenLabelWhileItWarmsUp(MethodSuite):
    name = "gen-label"
    options: ClassVar = {"warmup_epochs": 1}


class TestGLC(MethodSuite):
    name = "glc"


class TestPosteriorLabel(MethodSuite):
    name = "posterior-label"


class TestFineTune(ComponentSuite):
    name = "fine-tune"


class TestFineTuneAfterAMethodThatLooksAhead(ComponentSuite):
    name = "fine-tune"
    method = "insw"
