"""UCF101-24 as it lies on disk: 24 classes of untrimmed sports videos, labelled frame by frame.

<root>/UCF101v2-GT.pkl                              annotations in ACT's schema (corrected boxes)
<root>/rgb-images/<Class>/<video>/%05d.jpg          extracted frames, number 1 first; or else
<root>/videos/<Class>/<video>.{avi,mp4,mkv,webm}    the videos (25 or 29.97 frames per second)
"""

from __future__ import annotations

from datasets.tubes import TubeBenchmark

UCF24 = TubeBenchmark("UCF101v2-GT.pkl", images=(("rgb-images", "%05d.jpg"),), splits=1)
"""The first split is the one that is reported."""

load, fingerprint = UCF24.load, UCF24.fingerprint
