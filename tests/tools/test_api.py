"""docs/api.md and docs/api_core.md have what the libraries have."""

import evaluators
from actloc_core import backbones
from actloc_core.detector import ActionDetector
from actloc_core.selection import two_c_t
from actloc_core.tracks import Linker
from tools import api


def test_the_pages_are_what_the_docstrings_say():
    for path, page in api.PAGES.items():
        assert path.read_text() == page(), f"{path}: run python -m tools.api"


def test_every_public_function_and_class_has_an_entry():
    page = api.evaluators_page()
    for name in ("frame_mAP", "video_mAP", "Intervals", "LINKINGS", "DataFileError", "to_frame"):
        listed = callable(getattr(evaluators, name, None))
        assert (f"### {name}\n" in page) == listed, name


def test_the_models_api_has_what_programs_import():
    page = api.core_page()
    names = ["ActionDetector", "load_backbone", "iter_detections", "Linker", "match", "set_loss", "two_c_t"]
    names += [name for name in vars(backbones) if callable(vars(backbones)[name])]
    assert [name for name in names if f"\n### {name}\n" not in page] == []
    assert "mvitv2_s" in names


def test_an_entry_has_the_signature_the_fields_and_the_docstring():
    entry = api.entry("Linking", evaluators.Linking)
    assert "class Linking:\n    box_nms: float = 0.3  # in a frame, drop boxes" in entry
    assert "How frame detections are linked to tubes" in entry
    entry = api.entry("compare", evaluators.compare)
    assert entry.startswith("### compare\n\n```python\ndef compare(\n    ground_truth: GroundTruth,")
    assert ") -> Comparison\n```" in entry
    assert "(B, t, h, w, D) ->" in api.entry("two_c_t", two_c_t)


def test_an_entry_of_a_class_has_how_it_is_made_and_its_methods_but_nothing_private():
    entry = api.entry("ActionDetector", ActionDetector)
    assert "class ActionDetector:\n    def __init__(\n        self,\n        checkpoint: str | Path," in entry
    assert "#### ActionDetector.__call__\n\n```python\ndef __call__(\n    self,\n    frames:" in entry
    assert "#### ActionDetector.batch\n\n```python\n@torch.no_grad()\ndef batch(self, clips:" in entry
    assert "_tracks" not in api.entry("Linker", Linker)
