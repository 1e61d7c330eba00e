"""What is compared: shipped configurations by name, and which asset each is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from threestudio_redream.errors import ConfigError

__all__ = ["MAIN", "METHODS", "Choice", "Method", "chosen_methods"]

#: Which asset a run gets: ``best`` is found by its prompt; ``second`` the next best; ``random`` drawn from the whole
#: index without looking at the prompt; ``wrong`` the best for another prompt of the suite.
Choice = Literal["best", "second", "random", "wrong"]


@dataclass(frozen=True)
class Method:
    """One row of the tables.

    Attributes:
        title: as tables print it. base: key of the suite's configurations (``sds``, ``vsd``, ``redream``).
        ablation: file of ``custom_configs/ablations`` merged over the base. overrides: ``key=value`` over both.
        asset: see :data:`Choice`; also what outlines and colours are compared with.
    """

    title: str
    base: Literal["sds", "vsd", "redream"] = "redream"
    ablation: str = ""
    overrides: tuple[str, ...] = ()
    asset: Choice = "best"


_TRUSTED = ("system.retrieval.gate=false",)
_NO_PRIOR = ("system.loss.lambda_prior_rgb=0", "system.loss.lambda_prior_mask=0")

METHODS: dict[str, Method] = {
    "dreamfusion": Method("DreamFusion (SDS)", "sds"),
    "prolificdreamer": Method("ProlificDreamer (VSD)", "vsd"),
    "redream": Method("ReDream"),
    "no-retrieval": Method("without retrieval", ablation="no-retrieval"),
    "no-adaptation": Method("without adaptation", ablation="no-adaptation"),
    "no-view-tokens": Method("without view tokens", ablation="no-view-tokens"),
    "no-prior": Method("without the 3D prior", overrides=_NO_PRIOR),
    "no-delta": Method("without the delta term", ablation="no-delta"),
    "initialisation-only": Method("3D prior alone", ablation="initialisation-only"),
    "adaptation-only": Method("adaptation alone", ablation="adaptation-only"),
    "second-asset": Method("second best asset", asset="second"),
    "random-asset": Method("random asset", asset="random"),
    "wrong-class-asset": Method("asset of another class", asset="wrong"),
    "random-asset-trusted": Method("random asset, gate off", overrides=_TRUSTED, asset="random"),
    "wrong-class-asset-trusted": Method("asset of another class, gate off", overrides=_TRUSTED, asset="wrong"),
}
#: The paper's rows; the others are ablations and controls.
MAIN = ("dreamfusion", "prolificdreamer", "redream")


def chosen_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Names of methods, where ``main``, ``ablations`` and ``all`` stand for several; each once, in the table's order.

    Raises:
        ConfigError: an unknown name, or none.
    """
    groups = {"main": MAIN, "ablations": tuple(name for name in METHODS if name not in MAIN), "all": tuple(METHODS)}
    if unknown := sorted(set(names) - set(METHODS) - set(groups)):
        raise ConfigError("Unknown methods", received=unknown, fix=f"Use {', '.join(METHODS)}; or {', '.join(groups)}.")
    wanted = {method for name in names for method in groups.get(name, (name,))}
    if not wanted:
        raise ConfigError("No method was named", received=list(names), fix="Use --methods main.")
    return tuple(name for name in METHODS if name in wanted)
