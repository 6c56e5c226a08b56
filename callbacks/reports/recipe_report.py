"""Report page of a recipe: an overview and, behind a tab each, the page of every stage.

A stage's page is the one it wrote itself, put in whole: nothing has to be kept beside the file, at the price of its
size. A stage without one shows the end of its log.
"""

from dataclasses import dataclass
from pathlib import Path

from callbacks.reports.pages import template, write_page
from callbacks.reports.run_report import read_curves, write_report
from common.run_folder import METRICS, REPORT

RECIPE_PAGE = "recipe.html"
LOG_LINES = 200


@dataclass(frozen=True)
class StageSummary:
    """Summary of a stage for the page.

    Attributes:
        name: of the stage.
        command: as a user would type it.
        state: in a word or two.
        seconds: it took so far.
        output: what it makes, where it makes something of its own.
        log: of all its starts, None where there was none.
    """

    name: str
    command: str
    state: str
    seconds: float
    output: Path | None
    log: Path | None

    def page(self) -> str | None:
        """The page the stage wrote; that of a run which has not ended is written here."""
        if self.output is None or not self.output.is_dir():
            return None
        path = self.output / REPORT
        if not path.is_file():
            if not (self.output / METRICS).is_file() or not read_curves(self.output):
                return None
            path = write_report(self.output)
        return path.read_text(encoding="utf-8")

    def end_of_log(self) -> str:
        """Its last lines; of a progress bar, which writes over its own, the last state."""
        if self.log is None:
            return ""
        lines = self.log.read_bytes().decode("utf-8", "replace").split("\n")
        return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines[-LOG_LINES:])


def write_recipe_report(folder: Path, stages: list[StageSummary]) -> Path:
    """Write the page of a recipe into its folder, and return its path; the overview shows the last stage's page too."""
    pages = [stage.page() for stage in stages]
    page = template("recipe.html.j2").render(
        title=folder.resolve().name,
        stages=list(zip(stages, pages, strict=True)),
        minutes=sum(stage.seconds for stage in stages) / 60,
        result=pages[-1] if pages else None,
    )
    return write_page(folder / RECIPE_PAGE, page)
