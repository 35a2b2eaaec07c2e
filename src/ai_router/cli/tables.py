"""Reports as text for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ai_router.learning.evaluation import Report
from ai_router.learning.replay import Replayed
from ai_router.routing.verdict import LABELS


def reports_table(reports: Mapping[str, Report]) -> str:
    """One line a decider, then what there is to say of each."""
    return "\n".join(_report_lines(reports))


def _report_lines(reports: Mapping[str, Report]) -> Iterator[str]:
    first = next(iter(reports.values()))
    support = ", ".join(f"{label} {first.classes[label].support}" for label in LABELS)
    yield f"{first.prompts} prompts: {support}"
    yield ""
    yield f"{'':15} {'accuracy':>8} {'sure on':>8} {'right there':>11} {'ECE':>6} {'p50 ms':>8} {'p99 ms':>8}"
    for name, found in reports.items():
        times = found.ms
        yield (
            f"{name:15} {_share(found.accuracy):>8} {_share(found.coverage):>8} {_share(found.accuracy_sure):>11} "
            f"{'-' if found.calibration_error is None else f'{found.calibration_error:.3f}':>6} "
            f"{_ms(times.get('p50')):>8} {_ms(times.get('p99')):>8}"
        )
    for name, found in reports.items():
        yield ""
        yield from _details(name, found)


def _details(name: str, found: Report) -> Iterator[str]:
    yield f"{name}:" + (f" {found.failed} without an answer" if found.failed else "")
    columns = (*LABELS, "failed") if found.failed else LABELS
    yield f"  {'truth, said':12}" + "".join(f"{column:>10}" for column in columns) + "   precision  recall   AUROC"
    for label in LABELS:
        of_class = found.classes[label]
        cells = "".join(f"{found.confusion[label][column]:>10}" for column in columns)
        area = "-" if of_class.auroc is None else f"{of_class.auroc:.3f}"
        yield f"  {label:12}{cells}   {_share(of_class.precision):>9} {_share(of_class.recall):>7} {area:>7}"
    if found.coverage_at_risk:
        told = ", ".join(f"{share:.1%} at {risk:.0%}" for risk, share in found.coverage_at_risk.items())
        yield f"  coverage at risk: {told}"


def difficulty_table(figures: Mapping[str, float], prompts: int) -> str:
    """APGR of each way to tell difficulty."""
    lines = [f"difficulty routing, {prompts} prompts with a weak and a strong model's success (APGR, chance is 0.5):"]
    return "\n".join([*lines, *(f"  {name:8} {value:.3f}" for name, value in figures.items())])


def replay_table(policy: str, result: Replayed) -> str:
    """What a policy would have changed."""
    return "\n".join(_replay_lines(policy, result))


def _replay_lines(policy: str, result: Replayed) -> Iterator[str]:
    yield f"{result.sessions} sessions decided again by policy {policy}; {result.agreed:.1%} keep their route"
    for (here, there), count in sorted(result.moved.items()):
        if here != there:
            yield f"  {here} -> {there}: {count}"
    yield f"classifier asked: {result.asked_before} times, would be {result.asked}"
    if result.before_ms is not None and result.after_ms is not None:
        yield f"time to the answer (p50): {result.before_ms:.0f} ms, would be about {result.after_ms:.0f} ms"
    yield f"cost: {result.before_usd:.4f} USD, would be about {result.after_usd:.4f} USD"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
