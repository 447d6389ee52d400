from reweight_core.testing import LossSuite, MethodSuite


class TestGCE(LossSuite):
    name = "gce"


class TestTruncatedGCE(LossSuite):
    name = "gce"
    options = {"gce_truncate": 0.3}


class TestSCE(LossSuite):
    name = "sce"


class TestHardBootstrap(LossSuite):
    name = "bootstrap"


class TestSoftBootstrap(LossSuite):
    name = "bootstrap"
    options = {"bootstrap_target": "soft"}


class TestELR(LossSuite):
    name = "elr"


class TestForward(LossSuite):
    name = "forward"


class TestBackward(LossSuite):
    name = "backward"


class TestFocal(LossSuite):
    name = "focal"


class TestFocalOfASmallPower(LossSuite):
    name = "focal"
    options = {"focal_gamma": 0.5}


class TestSigmoidFocal(LossSuite):
    name = "sigmoid-focal"
    options = {"sigmoid_focal_beta": 0.9}
    rows_sum_to_zero = False


class TestClassBalanced(LossSuite):
    name = "class-balanced"


class TestClassBalancedByTheSumOfWeights(LossSuite):
    name = "class-balanced"
    options = {"class_balanced_normalise": "weights"}


class TestBalancedSoftmax(LossSuite):
    name = "balanced-softmax"


class TestLogitAdjusted(LossSuite):
    name = "logit-adjusted"
    options = {"logit_adjusted_tau": 1.5}


class TestSelfPaced(MethodSuite):
    name = "self-paced"
    options = {"burn_in": 0.0}


class TestMentor(MethodSuite):
    name = "mentor"
    options = {"burn_in": 0.0}


class TestPencil(MethodSuite):
    name = "pencil"
    options = {"epochs": 3}
