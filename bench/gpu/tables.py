"""What is printed of the results, and the tables of docs/results/gpu.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.harness import markdown

NOT_MEASURED = "not measured"
NAMES = {"sd35": "SD3.5 Medium's shapes", "z_image": "Z-Image's shapes"}


def line(row: str, found: Mapping) -> str:
    """A result in one line."""
    values = {name: value for name, value in found.items() if value is not None}
    return f"{row}: " + ", ".join(f"{name} {_number(value)}" for name, value in values.items())


def sections(lines: list[dict]) -> dict[str, str]:
    """The page's tables from the committed runs; what no run says is "not measured"."""
    cards = sorted({run["machine"] for run in lines})
    return {
        "card": f"Card: {'; '.join(cards) or NOT_MEASURED}.",
        "memory": memory(lines),
        "generation": generation(lines),
        "step": step(lines),
        "demo": demo(lines),
    }


def memory(lines: list[dict]) -> str:
    """Each rung's peak beside `plan`'s."""
    planned = {(run["model"], run["options"]): run for run in _of(lines, "plan")}
    rows = []
    for run in (run for run in lines if run["row"].startswith("memory-")):
        plan = planned.get((run["model"], run["options"]), {})
        peak, said = run.get("peak"), plan.get("tensors")
        apart = f"{said / peak - 1:+.0%}" if peak and said else "–"
        seconds = _number(run["seconds"]) if "seconds" in run else run.get("error", "–")
        rows.append((NAMES[run["model"]], f"`{run['options']}`", _gb(peak), _gb(said), apart, seconds))
    columns = ("model", "options", "peak of tensors", "`plan` says", "apart", "seconds an update")
    return markdown(columns, rows or [(name, *[NOT_MEASURED] * 5) for name in NAMES.values()])


def generation(lines: list[dict]) -> str:
    """Images per second, and how many times the stock pipeline's."""
    rows = []
    for name in NAMES:
        runs = _of(lines, f"generation-{name}")
        stock = next((run.get("images_per_second") for run in runs if run["what"].startswith("stock")), None)
        for run in runs:
            speed = run.get("images_per_second")
            ratio = f"{speed / stock:.2f}x" if speed and stock else "–"
            rows.append((NAMES[name], run["what"], _number(speed or run.get("error", "–")), ratio, _share(run)))
    columns = ("model", "what", "images/s", "against stock", "MFU")
    return markdown(columns, rows or [(name, *[NOT_MEASURED] * 4) for name in NAMES.values()])


def step(lines: list[dict]) -> str:
    """A step of both sides."""
    rows = []
    for name in NAMES:
        runs = _of(lines, f"step-{name}")
        naive = next((run for run in runs if run["what"].startswith("naive")), {})
        for run in runs:
            speed, peak = run.get("images_per_second"), run.get("peak")
            times = f"{speed / naive['images_per_second']:.2f}x" if speed and naive.get("images_per_second") else "–"
            share = f"{peak / naive['peak']:.0%}" if peak and naive.get("peak") else "–"
            speed = _number(speed or run.get("error", "–"))
            rows.append((NAMES[name], run["what"], speed, times, _gb(peak), share, _share(run)))
    columns = ("model", "side", "images/s", "against naive", "peak above the model", "against naive", "MFU")
    return markdown(columns, rows or [(name, *[NOT_MEASURED] * 6) for name in NAMES.values()])


def demo(lines: list[dict]) -> str:
    """The chain's parts."""
    rows = []
    for run in _of(lines, "demo"):
        reached = ", ".join(
            f"{name} {_number(run[name])}"
            for name in ("seconds", "images", "updates", "strict", "geneval")
            if name in run
        )
        rows.append((run["what"], _number(run.get("images_per_second", "–")), reached or "–"))
    return markdown(("part", "images/s", "reached"), rows or [("all", NOT_MEASURED, NOT_MEASURED)])


def _of(lines: Iterable[dict], row: str) -> list[dict]:
    return [line for line in lines if line["row"] == row]


def _share(run: Mapping) -> str:
    return f"{run['mfu']:.0%}" if run.get("mfu") else "–"


def _gb(size: float | None) -> str:
    return f"{size / 1e9:.2f} GB" if size else "–"


def _number(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"
