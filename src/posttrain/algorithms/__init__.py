"""All algorithms: one file (config, equation, paper, and `build`, which returns the value) and one line here for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from posttrain.algorithms.from_teachers.gkd import GKD
from posttrain.algorithms.from_teachers.kd import KD
from posttrain.algorithms.from_teachers.opd import OPD
from posttrain.algorithms.from_teachers.sdft import SDFT
from posttrain.algorithms.from_teachers.sdpo import SDPO
from posttrain.algorithms.function import FunctionAlgorithm, installed_algorithm
from posttrain.algorithms.hybrids.bread import BREAD
from posttrain.algorithms.hybrids.chord import CHORD
from posttrain.algorithms.hybrids.grpo_sft import GRPOSFT
from posttrain.algorithms.hybrids.hpt import HPT
from posttrain.algorithms.hybrids.luffy import LUFFY
from posttrain.algorithms.hybrids.prefix_rft import PrefixRFT
from posttrain.algorithms.hybrids.relift import ReLIFT
from posttrain.algorithms.hybrids.srft import SRFT
from posttrain.algorithms.hybrids.uft import UFT
from posttrain.algorithms.on_demonstrations.a_lol import ALoL
from posttrain.algorithms.on_demonstrations.ascent import Ascent
from posttrain.algorithms.on_demonstrations.asft import ASFT
from posttrain.algorithms.on_demonstrations.awr import AWR
from posttrain.algorithms.on_demonstrations.dft import DFT
from posttrain.algorithms.on_demonstrations.f_sft import FSFT
from posttrain.algorithms.on_demonstrations.forget_retain import ForgetRetain
from posttrain.algorithms.on_demonstrations.iw_sft import IWSFT
from posttrain.algorithms.on_demonstrations.npo import NPO
from posttrain.algorithms.on_demonstrations.psft import PSFT
from posttrain.algorithms.on_demonstrations.rwr import RWR
from posttrain.algorithms.on_demonstrations.sft import SFT
from posttrain.algorithms.on_demonstrations.unlikelihood import Unlikelihood
from posttrain.algorithms.on_labels.bco import BCO
from posttrain.algorithms.on_labels.kto import KTO
from posttrain.algorithms.on_preferences._sampled import sampled_pairs
from posttrain.algorithms.on_preferences.alpha_po import AlphaPO
from posttrain.algorithms.on_preferences.apo_down import APODown
from posttrain.algorithms.on_preferences.apo_zero import APOZero
from posttrain.algorithms.on_preferences.bco_pair import BCOPair
from posttrain.algorithms.on_preferences.cpo import CPO
from posttrain.algorithms.on_preferences.discopop import DiscoPOP
from posttrain.algorithms.on_preferences.dpo import DPO
from posttrain.algorithms.on_preferences.dpop import DPOP
from posttrain.algorithms.on_preferences.exo import EXO
from posttrain.algorithms.on_preferences.f_dpo import FDPO
from posttrain.algorithms.on_preferences.hinge_dpo import HingeDPO
from posttrain.algorithms.on_preferences.ipo import IPO
from posttrain.algorithms.on_preferences.ld_dpo import LDDPO
from posttrain.algorithms.on_preferences.ln_dpo import LNDPO
from posttrain.algorithms.on_preferences.nca import NCA
from posttrain.algorithms.on_preferences.orpo import ORPO
from posttrain.algorithms.on_preferences.r_dpo import RDPO
from posttrain.algorithms.on_preferences.robust_dpo import RobustDPO
from posttrain.algorithms.on_preferences.rpo import RPO
from posttrain.algorithms.on_preferences.simpo import SimPO
from posttrain.algorithms.on_preferences.slic import SLiC
from posttrain.algorithms.on_preferences.sppo import SPPO
from posttrain.algorithms.on_preferences.tpo import TPO
from posttrain.algorithms.on_preferences.wpo import WPO
from posttrain.algorithms.on_principles.sami import SAMI
from posttrain.algorithms.on_rollouts.a_star_po import AStarPO
from posttrain.algorithms.on_rollouts.asymre import AsymRE
from posttrain.algorithms.on_rollouts.best_of_group import BestOfGroup
from posttrain.algorithms.on_rollouts.cispo import CISPO
from posttrain.algorithms.on_rollouts.clip_cov import ClipCov
from posttrain.algorithms.on_rollouts.dapo import DAPO
from posttrain.algorithms.on_rollouts.dppo import DPPO
from posttrain.algorithms.on_rollouts.dr_grpo import DrGRPO
from posttrain.algorithms.on_rollouts.dro import DRO
from posttrain.algorithms.on_rollouts.f_grpo import FGRPO
from posttrain.algorithms.on_rollouts.gdpo import GDPO
from posttrain.algorithms.on_rollouts.gmpo import GMPO
from posttrain.algorithms.on_rollouts.gpg import GPG
from posttrain.algorithms.on_rollouts.grpo import GRPO
from posttrain.algorithms.on_rollouts.grpo_lead import GRPOLEAD
from posttrain.algorithms.on_rollouts.gspo import GSPO
from posttrain.algorithms.on_rollouts.kl_cov import KLCov
from posttrain.algorithms.on_rollouts.opmd import OPMD
from posttrain.algorithms.on_rollouts.opo import OPO
from posttrain.algorithms.on_rollouts.p3o import P3O
from posttrain.algorithms.on_rollouts.pass_k import PassK
from posttrain.algorithms.on_rollouts.rec import REC
from posttrain.algorithms.on_rollouts.reinforce import Reinforce
from posttrain.algorithms.on_rollouts.reinforce_pp import ReinforcePP
from posttrain.algorithms.on_rollouts.remax import ReMax
from posttrain.algorithms.on_rollouts.rloo import RLOO
from posttrain.algorithms.on_rollouts.sapo import SAPO
from posttrain.algorithms.on_rollouts.top_entropy import TopEntropy
from posttrain.algorithms.on_rollouts.topr import TOPR
from posttrain.algorithms.on_rollouts.vespo import VESPO
from posttrain.algorithms.options import AlgorithmConfig, OnPreferences
from posttrain.errors import RecipeError
from posttrain.settings.doors.kinds import Kind, name_of
from posttrain.settings.faults import faults

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm

ALGORITHMS: tuple[type[AlgorithmConfig], ...] = (
    SFT,
    DFT,
    ASFT,
    IWSFT,
    PSFT,
    FSFT,
    ALoL,
    RWR,
    AWR,
    Ascent,
    Unlikelihood,
    NPO,
    ForgetRetain,
    DPO,
    IPO,
    RobustDPO,
    HingeDPO,
    EXO,
    NCA,
    BCOPair,
    SPPO,
    APOZero,
    APODown,
    DiscoPOP,
    DPOP,
    RDPO,
    LNDPO,
    LDDPO,
    FDPO,
    RPO,
    SimPO,
    AlphaPO,
    CPO,
    ORPO,
    SLiC,
    TPO,
    WPO,
    KTO,
    BCO,
    SAMI,
    GRPO,
    DrGRPO,
    DAPO,
    GSPO,
    CISPO,
    GMPO,
    SAPO,
    DPPO,
    VESPO,
    GPG,
    DRO,
    GDPO,
    GRPOLEAD,
    FGRPO,
    PassK,
    BestOfGroup,
    TopEntropy,
    ClipCov,
    KLCov,
    OPO,
    Reinforce,
    RLOO,
    ReMax,
    AStarPO,
    ReinforcePP,
    AsymRE,
    OPMD,
    REC,
    P3O,
    TOPR,
    HPT,
    PrefixRFT,
    UFT,
    BREAD,
    LUFFY,
    SRFT,
    CHORD,
    GRPOSFT,
    ReLIFT,
    KD,
    GKD,
    OPD,
    SDFT,
    SDPO,
)

KIND = Kind(
    "algorithm",
    group="posttrain.algorithms",
    base=AlgorithmConfig,
    members=(*ALGORITHMS, FunctionAlgorithm),
    wrap=installed_algorithm,
)

if TYPE_CHECKING:
    AnyAlgorithm = AlgorithmConfig
else:
    AnyAlgorithm = KIND.field


def build_algorithm(name: str, **options: Any) -> Algorithm:
    """The named algorithm as a frozen value; its repr shows its parts.

    Args:
        name: of a config in `ALGORITHMS`, or under which an installed package brings one.
        options: fields of its config, for instance `clip_high=0.28`.

    Raises:
        RecipeError: an unknown name, an unknown option, or a value out of range (also a ValueError).
    """
    try:
        config = KIND.find(name)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if config is None:
        raise RecipeError(KIND.unknown(name))
    try:
        return built(config.model_validate({"name": name, **options}))
    except ValidationError as error:
        raise RecipeError(f"{name}: {'; '.join(map(str, faults(error)))}") from None


def built(config: AlgorithmConfig) -> Algorithm:
    """The value that a config describes.

    Raises:
        RecipeError: it cannot be built (also a ValueError).
    """
    try:
        algorithm = config.build()
        return sampled_pairs(algorithm, config) if isinstance(config, OnPreferences) and config.pairs else algorithm
    except ValueError as error:
        raise RecipeError(f"algorithm: {error}") from error


def example_values() -> list[Algorithm]:
    """Every algorithm with its published defaults; where an option has none, with an example of it."""
    counted = [config for config in ALGORITHMS if "max_tokens" in config.model_fields]
    return [build_algorithm(name_of(one), **({"max_tokens": 1024} if one in counted else {})) for one in ALGORITHMS]
