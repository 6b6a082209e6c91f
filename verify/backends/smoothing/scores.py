"""The soft vote: the class of the largest mean softmax score under Gaussian noise, another classifier than the vote.

Its mean score has the radius that a probability has (Salman et al. 2019, arXiv:1906.04584), and is bounded by its own
variance (empirical Bernstein).
"""

from __future__ import annotations

import torch
from torch import Tensor

from assay.verify.backends.smoothing import certificates, confidence, deciding
from assay.verify.backends.smoothing.deciding import Outcome
from assay.verify.backends.smoothing.ledger import Draw, Ledger
from assay.verify.backends.smoothing.question import Certified, Question, abstained, certified
from assay.verify.backends.smoothing.refined import deviation, in_l2
from assay.verify.backends.smoothing.sampling import answers


def by_scores(question: Question) -> Certified:
    """The class that a pilot's vote suggests, its mean score on fresh draws, and the radius."""
    ledger = Ledger(question.alpha)
    pilot, label = question.pilot(ledger)
    if label is None:
        return abstained(pilot.counts)
    draw, total, square = Draw("the estimate", [0] * (question.classes + 1)), 0.0, 0.0
    for _, y in question.outputs("estimate", question.n):
        deciding.add(draw, torch.bincount(answers(y), minlength=len(draw.counts)).tolist())
        score = softmax(y)[:, label]
        total, square = total + float(score.sum()), square + float(score.square().sum())
    mean = min(1.0, total / question.n)
    variance = max(0.0, (square - question.n * mean**2) / (question.n - 1))
    lower = confidence.bernstein_lower(mean, variance, question.n, ledger.pay(draw))
    radius = in_l2(question, certificates.cohen(lower, deviation(question)))
    return certified(label, radius, pilot.counts, Outcome(lower, draw.counts, question.n))


def largest(question: Question) -> int | None:
    """The class whose mean score is the largest, with confidence 1 - alpha; None where no class is sure to be."""
    suggested = torch.cat([softmax(y) for _, y in question.outputs("suggest", question.n0)]).mean(0)
    label = int(suggested.argmax())
    rivals = [k for k in range(question.classes) if k != label]
    return label if exceed(question, "compare", label, rivals) else None


def exceed(question: Question, name: str, label: int, rivals: list[int]) -> bool:
    """Whether, with confidence 1 - alpha, the mean score of ``label`` exceeds each rival's: each difference of two
    scores, moved to [0, 1], has a mean above 1/2 at its share of alpha."""
    scores = torch.cat([softmax(y) for _, y in question.outputs(name, question.n)])
    lead = ((scores[:, [label]] - scores[:, rivals]) + 1) / 2
    share = question.alpha / len(rivals)
    pairs = zip(lead.mean(0).clamp(0, 1).tolist(), lead.var(0).tolist(), strict=True)
    return all(confidence.bernstein_lower(mean, var, question.n, share) > 0.5 for mean, var in pairs)


def softmax(y: Tensor) -> Tensor:
    """Scores of outputs y (n x classes), float64; NaN is worth 0."""
    return y.double().softmax(1).nan_to_num(0.0)
