"""The plugin records of the losses and methods."""

from reweight_core import LossPlugin, MethodPlugin, imported
from reweight_losses.options import (
    BootstrapConfig,
    ClassBalancedConfig,
    CorrectionConfig,
    ELRConfig,
    FocalConfig,
    GCEConfig,
    LDAMConfig,
    LogitAdjustedConfig,
    MentorConfig,
    PencilConfig,
    SCEConfig,
    SelfPacedConfig,
    SigmoidFocalConfig,
    SModelConfig,
)

gce = LossPlugin(
    name="gce",
    summary="between cross-entropy and mean absolute error; wrong labels count less (Zhang & Sabuncu 2018)",
    build=imported("reweight_losses.gce:build"),
    config=GCEConfig,
    several_processes=True,
)
sce = LossPlugin(
    name="sce",
    summary="cross-entropy with its reverse, for noisy labels (Wang et al. 2019)",
    build=imported("reweight_losses.sce:SCE"),
    config=SCEConfig,
    one_label=False,
    several_processes=True,
)
bootstrap = LossPlugin(
    name="bootstrap",
    summary="labels mixed with the network's own predictions (Reed et al. 2015)",
    build=imported("reweight_losses.bootstrap:build"),
    config=BootstrapConfig,
    one_label=False,
    several_processes=True,
)
elr = LossPlugin(
    name="elr",
    summary="pulls predictions to what they were early on, before wrong labels are memorised (Liu et al. 2020)",
    build=imported("reweight_losses.elr:ELR"),
    config=ELRConfig,
    one_label=False,
    per_example=True,
    several_processes=True,
)
forward = LossPlugin(
    name="forward",
    summary="predictions corrected by the noise's transition matrix, given or estimated (Patrini et al. 2017)",
    build=imported("reweight_losses.correction:forward"),
    config=CorrectionConfig,
    several_processes=True,
)
backward = LossPlugin(
    name="backward",
    summary="losses corrected by the inverse of the noise's transition matrix (Patrini et al. 2017)",
    build=imported("reweight_losses.correction:backward"),
    config=CorrectionConfig,
    one_label=False,
    # the loss has no lower bound, and runs away without it
    defaults={"max_grad_norm": 1.0},
    several_processes=True,
)
s_model = LossPlugin(
    name="s-model",
    summary="a noise channel after the network, learned with it (Goldberger & Ben-Reuven 2017)",
    build=imported("reweight_losses.s_model:SModel"),
    config=SModelConfig,
    several_processes=True,
)
focal = LossPlugin(
    name="focal",
    summary="easy examples count less; focal loss of a softmax (Lin et al. 2017)",
    build=imported("reweight_losses.focal:Focal"),
    config=FocalConfig,
    several_processes=True,
)
sigmoid_focal = LossPlugin(
    name="sigmoid-focal",
    summary="focal loss of a sigmoid for each class, class-balanced if wanted (Cui et al. 2019)",
    build=imported("reweight_losses.focal:SigmoidFocal"),
    config=SigmoidFocalConfig,
    several_processes=True,
)
class_balanced = LossPlugin(
    name="class-balanced",
    summary="classes weighted by their effective number of examples, or by inverse frequency (Cui et al. 2019)",
    build=imported("reweight_losses.class_balanced:ClassBalanced"),
    config=ClassBalancedConfig,
    several_processes=True,
)
balanced_softmax = LossPlugin(
    name="balanced-softmax",
    summary="softmax that knows how frequent each class is (Ren et al. 2020)",
    build=imported("reweight_losses.logit_adjusted:balanced_softmax"),
    one_label=False,
    several_processes=True,
)
logit_adjusted = LossPlugin(
    name="logit-adjusted",
    summary="balanced softmax with a factor of the log-frequency (Menon et al. 2021)",
    build=imported("reweight_losses.logit_adjusted:logit_adjusted"),
    config=LogitAdjustedConfig,
    one_label=False,
    several_processes=True,
)
ldam = LossPlugin(
    name="ldam",
    summary="larger margins for smaller classes, class weights late (Cao et al. 2019)",
    build=imported("reweight_losses.ldam:LDAM"),
    config=LDAMConfig,
    # its margins are cosines: a linear layer would only grow its logits until they say nothing
    head="cosine",
    defaults={"head": "cosine"},
    several_processes=True,
)
self_paced = MethodPlugin(
    name="self-paced",
    summary="trains on the examples of small loss at present (Kumar et al. 2010)",
    build=imported("reweight_losses.mentor:SelfPaced"),
    config=SelfPacedConfig,
    several_processes=True,
)
mentor = MethodPlugin(
    name="mentor",
    summary="MentorNet with its predefined curriculum: small losses, with example dropout (Jiang et al. 2018)",
    build=imported("reweight_losses.mentor:Mentor"),
    config=MentorConfig,
    several_processes=True,
)
pencil = MethodPlugin(
    name="pencil",
    summary="learns a label distribution for every example beside the network (Yi & Wu 2019)",
    build=imported("reweight_losses.pencil:Pencil"),
    config=PencilConfig,
    one_label=True,
    several_processes=True,
)
