"""Elastic-net attacks: sparser than attacks in l2 alone."""

from __future__ import annotations

from assay.attacks.ddn import DDN
from assay.attacks.ead import EAD
from assay.verify.core.region import LpBall
from tests.attacks.attack_models import mlp, samples


def test_the_elastic_net_is_sparser_than_the_l2_attack() -> None:
    net, x = mlp(0, inputs=30), samples(1, 12, 30)
    labels = net(x).argmax(1)
    counts = []
    for attack, p in ((EAD(beta=0.03), 1.0), (DDN(), 2.0)):
        result = attack.run(net, x, labels, LpBall(x, 30.0, p, (0.0, 1.0)))
        assert bool(result.success.all())
        counts.append(int(((result.adversarial - x).abs() > 1e-6).sum()))
    assert counts[0] < 0.7 * counts[1]
