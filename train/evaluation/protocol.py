"""What an evaluation measures and how: scores, convention, TPR, draws; and the paper's choice of them by one name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from srood.errors import InputError
from srood.metrics import CONVENTIONS, DEFAULT_CONVENTION
from srood.posthoc import choose
from train.evaluation.measures import Draws

PROTOCOLS = ("paper",)
PAPER_CONVENTION, PAPER_DRAWS, PAPER_OOD = "paper", 10, ("paper",)


@dataclass(frozen=True)
class Settings:
    """How scores are turned into figures; `draws` None uses all images.

    `required` are the scores that were asked for by name, and not as one of ``all``.
    """

    scores: tuple[str, ...]
    required: frozenset[str] = frozenset()
    convention: str = DEFAULT_CONVENTION
    tpr: float = 0.95
    draws: Draws | None = None


def settings_of(
    protocol: str | None,
    convention: str | None,
    tpr: float,
    scores: Sequence[str],
    draws: int | None,
    draw_size: int | None,
    draw_seed: int | None,
) -> Settings:
    """Check the options and fill in what was left out (None) from the protocol.

    Args:
        protocol: ``paper`` for convention ``paper`` and ten draws of a fifth of the ID test set's number; or None
        convention: a key of `srood.metrics.CONVENTIONS`
        tpr: of the FPR, in (0, 1]
        scores: names of scores, ``default`` or ``all``
        draws: random subsets of each OOD set; 0 for all images at once
        draw_size: images a draw; None for a fifth of the ID test set's number
        draw_seed: of the draws; None for 0

    Raises:
        InputError: an option that makes no sense, named as the command line writes it.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise InputError(f"--protocol {protocol}: is unknown; choose {', '.join(PROTOCOLS)}, or leave it out")
    if protocol == "paper":
        convention = PAPER_CONVENTION if convention is None else convention
        draws = PAPER_DRAWS if draws is None else draws
    convention = DEFAULT_CONVENTION if convention is None else convention
    if convention not in CONVENTIONS:
        raise InputError(f"--convention {convention}: is unknown; choose one of {', '.join(CONVENTIONS)}")
    if not 0 < tpr <= 1:
        raise InputError(f"--tpr {tpr:g}: is not a share; give a number above 0 and at most 1, like 0.95")
    if not draws and draw_size is not None:
        raise InputError(f"--draw-size {draw_size}: needs --draws, the number of draws")
    if not draws and draw_seed is not None:
        raise InputError(f"--draw-seed {draw_seed}: needs --draws, the number of draws")
    if draws is not None and (draws == 1 or draws < 0):
        raise InputError(f"--draws {draws}: give 2 or more for a deviation over draws, or 0 for all images")
    if draw_size is not None and draw_size < 1:
        raise InputError(f"--draw-size {draw_size}: give 1 or more images")
    if draw_seed is not None and draw_seed < 0:
        raise InputError(f"--draw-seed {draw_seed}: give 0 or more")
    chosen = tuple(choose(scores))
    required = frozenset(name.strip() for text in scores for name in text.split(",")) & frozenset(chosen)
    wanted = Draws(draws, draw_size or 0, draw_seed or 0) if draws else None
    return Settings(chosen, required, convention, tpr, wanted)
