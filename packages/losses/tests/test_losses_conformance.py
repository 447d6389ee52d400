import json
import tempfile
from pathlib import Path
from typing import ClassVar

import attrs
import numpy as np

from reweight_core.testing import LossSuite, MethodSuite


class TestGCE(LossSuite):
    name = "gce"


class TestTruncatedGCE(LossSuite):
    name = "gce"
    options: ClassVar = {"gce_truncate": 0.3}


class TestSCE(LossSuite):
    name = "sce"


class TestHardBootstrap(LossSuite):
    name = "bootstrap"


class TestSoftBootstrap(LossSuite):
    name = "bootstrap"
    options: ClassVar = {"bootstrap_target": "soft"}


class TestELR(LossSuite):
    name = "elr"


class Corrected(LossSuite):
    """A correction by a given matrix: an estimated one is the identity in the first stage."""

    __test__ = False

    def parts(self, observers=(), classes=4, **options):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "T.json"
            # a fifth of each class is observed as another
            path.write_text(json.dumps((0.8 * np.eye(classes) + 0.2 * np.eye(classes)[:, ::-1]).tolist()))
            return super().parts(observers, classes=classes, **{f"{self.name}_matrix": path, **options})


class TestForward(Corrected):
    __test__ = True
    name = "forward"


class TestBackward(Corrected):
    __test__ = True
    name = "backward"


class TestFocal(LossSuite):
    name = "focal"


class TestFocalOfASmallPower(LossSuite):
    name = "focal"
    options: ClassVar = {"focal_gamma": 0.5}


class TestSigmoidFocal(LossSuite):
    name = "sigmoid-focal"
    options: ClassVar = {"sigmoid_focal_beta": 0.9}
    rows_sum_to_zero = False


class TestClassBalanced(LossSuite):
    name = "class-balanced"


class TestClassBalancedByTheSumOfWeights(LossSuite):
    name = "class-balanced"
    options: ClassVar = {"class_balanced_normalise": "weights"}


class TestBalancedSoftmax(LossSuite):
    name = "balanced-softmax"


class TestLogitAdjusted(LossSuite):
    name = "logit-adjusted"
    options: ClassVar = {"logit_adjusted_tau": 1.5}


class TestLDAM(LossSuite):
    name = "ldam"
    options: ClassVar = {"head": "cosine"}


class TestLDAMWithClassWeights(LossSuite):
    name = "ldam"
    options: ClassVar = {"head": "cosine", "ldam_reweight_from": 0}


class TestSModel(LossSuite):
    name = "s-model"


class TestSelfPaced(MethodSuite):
    name = "self-paced"
    options: ClassVar = {"burn_in": 0.0}


class TestMentor(MethodSuite):
    name = "mentor"
    options: ClassVar = {"burn_in": 0.0}


class TestPencil(MethodSuite):
    name = "pencil"
    options: ClassVar = {"epochs": 3}


class TestPencilCorrectingLabels(MethodSuite):
    name = "pencil"
    options: ClassVar = {"epochs": 3}

    def parts(self, observers=(), **options):
        parts = super().parts(observers, **options)
        return attrs.evolve(parts, stages=parts.stages[1:])
