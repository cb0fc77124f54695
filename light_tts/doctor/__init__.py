"""`light-tts doctor`: what is wrong with a model directory, and what this machine offers."""

from light_tts.doctor.checkup import diagnose, run
from light_tts.doctor.findings import Diagnosis, Finding, Level
from light_tts.doctor.report import print_diagnosis

__all__ = ["Diagnosis", "Finding", "Level", "diagnose", "print_diagnosis", "run"]
