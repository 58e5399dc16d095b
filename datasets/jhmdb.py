"""JHMDB-21 as it lies on disk: 21 classes of trimmed videos, one actor each, in three splits.

<root>/JHMDB-GT.pkl                                 annotations in ACT's schema
<root>/Frames/<class>/<video>/%05d.png              extracted frames, number 1 first; or else
<root>/videos/<class>/<video>.{avi,mp4,mkv,webm}    the videos
"""

from __future__ import annotations

from datasets.tubes import TubeBenchmark

JHMDB = TubeBenchmark("JHMDB-GT.pkl", images=(("Frames", "%05d.png"),), splits=3)

load, fingerprint = JHMDB.load, JHMDB.fingerprint
