"""docs/api.md has what `import evaluators` has."""

import evaluators
from tools import api


def test_the_page_is_what_the_docstrings_say():
    assert api.PAGE.read_text() == api.page(), "run python -m tools.api"


def test_every_public_function_and_class_has_an_entry():
    page = api.page()
    for name in ("frame_mAP", "video_mAP", "Intervals", "LINKINGS", "DataFileError", "to_frame"):
        listed = callable(getattr(evaluators, name, None))
        assert (f"### {name}\n" in page) == listed, name


def test_an_entry_has_the_signature_the_fields_and_the_docstring():
    entry = api.entry("Linking", evaluators.Linking)
    assert "class Linking:\n    box_nms: float = 0.3  # in a frame, drop boxes" in entry
    assert "How frame detections are linked to tubes" in entry
    entry = api.entry("compare", evaluators.compare)
    assert entry.startswith("### compare\n\n```python\ndef compare(\n    ground_truth: GroundTruth,")
    assert ") -> Comparison\n```" in entry
