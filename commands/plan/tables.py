"""Text tables of `plan`: at most 100 columns, numbers with their units."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from commands.plan.units import COLUMNS, format_bytes, format_count, format_duration
from strategies.planner.hardware import Hardware
from strategies.planner.layout_search import Candidate, Found, why_slower
from strategies.planner.peak_memory import Memory
from strategies.planner.plan import Plan
from strategies.planner.scaling_laws import ScalingLaw
from strategies.planner.step_time import model_flops_of_step
from strategies.planner.training_setup import TrainingSetup


def rows(lines: Sequence[tuple[str, str, str]]) -> list[str]:
    """Lines of name, value and remark in columns."""
    return [f"  {name:<24}{value:>18}  {remark}".rstrip()[:COLUMNS] for name, value, remark in lines]


def plan_table(setup: TrainingSetup, hardware: Hardware, plan: Plan, laws: Sequence[ScalingLaw]) -> str:
    """All tables of a run in its layout."""
    lines = [f"{setup.sizes.world} x {hardware.name}: {setup.sizes}", ""]
    lines += model_lines(setup, plan)
    lines += ["", *memory_lines(setup, hardware, plan.rank, plan.memory, plan.limit)]
    lines += ["", *time_lines(setup, hardware, plan)]
    lines += ["", *cost_lines(setup, hardware, plan)]
    lines += ["", *advice_lines(plan.active, setup.tokens, plan.flops_6nd, laws)]
    return "\n".join(lines)


def model_lines(setup: TrainingSetup, plan: Plan) -> list[str]:
    """Parameters and FLOPs."""
    small = sum(steps for _, steps in setup.warmup_batches)
    fewer = f", the first {min(small, setup.steps):,} smaller" if small else ""
    return ["model", *rows([
        ("parameters", format_count(plan.parameters, 4), "all"),
        ("active", format_count(plan.active, 4), "of them in a token's products"),
        ("tokens", format_count(setup.tokens, 4),
         f"{setup.steps:,} steps of {format_count(setup.step_tokens, 4)}{fewer}"),
        ("6 N D", format_count(plan.flops_6nd, 4) + "FLOP", "products only"),
        ("training FLOPs", format_count(plan.flops, 4) + "FLOP", "with causal attention over whole windows"),
    ])]  # fmt: skip


def memory_lines(setup: TrainingSetup, hardware: Hardware, rank: int, memory: Memory, limit: float) -> list[str]:
    """Memory of the worst rank by part."""
    words = {
        "weights": "float32 shard",
        "gradients": "float32, whole ones while they wait",
        "optimizer": setup.optimizer,
        "unsharded": "weights of others (FSDP2)",
        "casts": "bfloat16 weights in autocast's hands",
        "activations": f"checkpointing: {setup.checkpointing}",
        "logits": "a chunk of them, the output matrix's gradient",
        "working": "a block's backward pass and what it computes again",
        "buffers": "messages of the pipeline",
        "overhead": "context, communication, fragmentation",
    }
    where = f" (rank {rank} of the pipeline's {setup.sizes.pp})" if setup.sizes.pp > 1 else ""
    fits = memory.total <= limit
    verdict = (
        f"fits, {format_bytes(limit - memory.total)} left"
        if fits
        else f"DOES NOT FIT, {format_bytes(memory.total - limit)} short"
    )
    body = [(name, format_bytes(value), words[name]) for name, value in asdict(memory).items() if value]
    total = ("total", format_bytes(memory.total), f"of {format_bytes(limit)} ({hardware.name}): {verdict}")
    return [f"memory of the worst rank{where}", *rows([*body, total])]


def time_lines(setup: TrainingSetup, hardware: Hardware, plan: Plan) -> list[str]:
    """Step time by part."""
    time = plan.time
    parts = [("compute", format_duration(time.compute), "kernels, recomputation included")]
    if setup.sizes.tp > 1:
        remark = f"{format_bytes(time.tensor_bytes)} over the {time.tensor_link}"
        remark += ", and DTensor's dispatch" if hardware.tensor_dispatch else ""
        parts.append(("tensor parallel", format_duration(time.tensor), remark))
    if setup.sizes.data_parallel > 1:
        sent = {"shards": (time.shard_bytes, time.shard_link), "copies": (time.replicate_bytes, time.replicate_link)}
        remarks = [
            f"{format_bytes(n)} over the {link}, between {name}" for name, (n, link) in sent.items() if link != "none"
        ]
        parts.append(("data parallel", format_duration(time.data), f"exposed; {remarks[0]}"))
        parts += [("", "", f"         {remark}") for remark in remarks[1:]]
    if setup.sizes.pp > 1:
        remark = f"bubble {time.bubble:.1%}; {format_bytes(time.pipeline_bytes)} over the {time.pipeline_link}"
        parts.append(("pipeline", format_duration(time.pipeline), remark))
    parts += [
        ("optimizer", format_duration(time.optimizer), ""),
        (
            "step",
            format_duration(time.total),
            f"{setup.microbatches} micro-batches of {setup.microbatch_tokens:,} tokens",
        ),
        ("tokens/s/GPU", f"{plan.tokens_per_second:,.0f}", ""),
        ("MFU", f"{plan.utilization:.1%}", f"{plan.utilization_palm:.1%} as PaLM counts attention"),
    ]
    return ["a step", *rows(parts)]


def cost_lines(setup: TrainingSetup, hardware: Hardware, plan: Plan) -> list[str]:
    """Days, hours, money and failures."""
    failures = plan.reliability
    advised = f"{failures.advised_seconds / plan.time.total:,.0f} steps"
    saved = f"{advised}, no callbacks.Checkpoints" if plan.every_steps is None else f"{plan.every_steps:,} steps"
    days = plan.days - plan.advised_days
    money = days / plan.days * plan.cost
    better = f"would save {days:,.1f} days, {money:,.0f}" if days > 0 else "would save nothing"
    return ["the run", *rows([
        ("days", f"{plan.days:,.1f}", f"{failures.lost_share:.1%} of them saving, lost steps and restarts"),
        ("GPU-hours", f"{plan.device_hours:,.0f}", ""),
        ("cost", f"{plan.cost:,.0f}", f"at {hardware.price:g} a GPU-hour (--price)"),
        ("failures", f"{failures.failures:,.1f}",
         f"one in {format_duration(failures.mtbf_hours * 3600)}, at {hardware.mtbf_hours:,.0f} h a GPU (--mtbf_hours)"),
        ("checkpoint every", format_duration(failures.interval_seconds), f"{saved}, {_saving(plan)}"),
        ("Young/Daly's interval", format_duration(failures.advised_seconds), f"{advised}: {better}"),
    ])]  # fmt: skip


def _saving(plan: Plan) -> str:
    """Time that a checkpoint takes."""
    still = format_duration(plan.saving.still_at(plan.reliability.interval_seconds))
    whole = format_duration(plan.saving.writing_seconds)
    copied = "" if still == whole else f" (copy), {whole} in all"
    return f"training paused {still} per save{copied}"


def advice_lines(active: float, tokens: float, flops: float, laws: Sequence[ScalingLaw]) -> list[str]:
    """Losses that scaling laws predict for this model and for the optimum of its compute."""
    lines = [f"scaling laws at {format_count(flops, 3)}FLOP (loss in nats per token of their text, not of yours)"]
    for law in laws:
        best_n, best_d = law.optimum(flops)
        lines.append(f"  {law.name}")
        yours = f"{format_count(active)} and {format_count(tokens)} tokens: {law.loss(active, tokens):.3f}"
        best = f"{format_count(best_n)} and {format_count(best_d)} tokens: {law.loss(best_n, best_d):.3f}"
        lines.append(f"    this run {yours}; compute-optimal {best}"[:COLUMNS])
    return lines


def search_table(found: Found, hardware: Hardware) -> str:
    """The best layouts, why others are slower, and why some are refused."""
    lines = [f"{found.tried} layouts that the strategies accept, {format_bytes(found.limit)} a device"]
    if not found.best:
        smallest = found.too_large[0]
        lines += _folded(f"none fits: the smallest needs {format_bytes(smallest.memory.total)}: {smallest.name()}", 2)
        return "\n".join(lines)
    lines.append(f"  {'s/step':>8}{'MFU':>7}{'memory':>11}  layout")
    for candidate in found.best:
        lines += _folded(_line(candidate, hardware), 30)
        if candidate is not found.best[0]:
            lines.append(f"  {'':>26}  {why_slower(found.best[0], candidate)}")
    if found.too_large:
        lines.append("do not fit, though smallest of those:")
        for candidate in found.too_large[:3]:
            parts = asdict(candidate.memory)
            largest = max(parts, key=lambda name: parts[name])
            lines += _folded(f"  {format_bytes(candidate.memory.total):>26}  {candidate.name()}", 30)
            lines.append(f"  {'':>26}  of it {format_bytes(parts[largest])} {largest}")
    if found.refused:
        lines.append("the strategies refuse:")
        reasons = sorted(found.refused.items(), key=lambda item: -item[1])[:3]
        lines += [part for reason, count in reasons for part in _folded(f"  {count:>5} x {reason}", 10)]
    return "\n".join(lines)


def _folded(line: str, behind: int) -> list[str]:
    """A line wrapped at 100 columns, later lines indented; uncut, because the end of a reason is its fix."""
    return textwrap.wrap(line, COLUMNS, subsequent_indent=" " * behind)


def _line(candidate: Candidate, hardware: Hardware) -> str:
    setup = candidate.setup
    peak = hardware.peak(setup.mixed, setup.float8) * setup.sizes.world
    share = model_flops_of_step(setup) / candidate.seconds / peak
    return f"  {candidate.seconds:>8.2f}{share:>7.1%}{format_bytes(candidate.memory.total):>11}  {candidate.name()}"
