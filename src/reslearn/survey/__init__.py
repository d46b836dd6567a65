"""Survey a folder of images before training: its content, its problems, and advice.

Torch is imported inside functions only, with the room `data`.
"""

from reslearn.survey.advice import Advice
from reslearn.survey.as_json import survey_json
from reslearn.survey.facts import FolderFacts
from reslearn.survey.finding import Finding
from reslearn.survey.page import survey_page
from reslearn.survey.run import Survey, survey_folder
from reslearn.survey.tables import make_tables
from reslearn.survey.text import example_lines, headline, verdict

__all__ = [
    "Advice",
    "Finding",
    "FolderFacts",
    "Survey",
    "example_lines",
    "headline",
    "make_tables",
    "survey_folder",
    "survey_json",
    "survey_page",
    "verdict",
]
