"""The settings: `Config`, and the description of each of its fields."""

from daphne_ng.config.config import Config, check_alone, settings
from daphne_ng.config.setting import Setting

__all__ = ["Config", "Setting", "check_alone", "settings"]
