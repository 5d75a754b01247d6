"""`make dashboard`: write the file."""

from pathlib import Path

from dashboard import text

(Path(__file__).parents[1] / "helm" / "files" / "dashboard.json").write_text(text(), encoding="utf-8")
